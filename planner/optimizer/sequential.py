"""Plans made node by node at prices of pods, and prices corrected by what such a plan pays for them.

At given prices the content that is worth most beside what its node costs is taken as often as the pods allow, then the
best one of what remains, until nothing remains. What a pod's nodes cost, shared out by the prices, is what it was paid
for: pods that came into well-filled nodes were dearer than that, the last ones cheaper, and half of the difference
corrects the prices of the next such plan. Each takes a quick search of the knapsacks for every step and finds contents
of all kinds; where nodes hold many pods a few of these plans give column generation most of the contents it needs, and
they are often better than what is rounded from it.

Source: A. Mukhacheva, G. Belov, V. Kartack, E. Mukhacheva, "Linear one-dimensional cutting-packing problems: numerical
experiments with the sequential value correction method (SVC) and a modified branch-and-bound method (MBB)", Pesquisa
Operacional 20 (2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.knapsacks import Knapsacks, fractional
from planner.optimizer.pricing import Depth, price_contents

_QUICK = Depth(24, 0)
# Classes whose fractional knapsack is worth less than this share of what a node of them costs are not asked.
_NEAR = 0.9
# A content is taken as soon as it is worth so much of its node; what remains at the end is worth less, step by step.
_WORTH, _LESS, _LEAST_WORTH = 0.999, 0.97, 0.01
_CORRECTION = 0.5
# So many contents of each step are kept for the master program.
_CONTENTS_KEPT = 60


@dataclass(frozen=True, slots=True)
class Sequence:
    """Nodes in the order in which they were taken: class, content and how many (nodes), (nodes, groups), (nodes).

    `found_classes` (found) and `found` (found, groups) are the contents that were met on the way, those taken among
    them. `paid` (groups) is what a pod of each group was paid for, in nanodollars per hour.
    """

    classes: IntArray
    contents: IntArray
    amounts: IntArray
    found_classes: IntArray
    found: IntArray
    paid: FloatArray


def sequence(
    sacks: Knapsacks, prices: FloatArray, floor: IntArray, limits: IntArray, counts: IntArray, over: Callable[[], bool]
) -> Sequence:
    """Return the plan that comes of these prices (groups), until no pod has a place any more or it is `over`.

    `floor` (classes) is what a node costs, `limits` (classes) how many there may be, `counts` (groups) the pods.
    """
    left, nodes_left = counts.copy(), limits.copy()
    pods = np.floor(prices).astype(np.int64)
    costs = np.maximum(floor, 1)
    open_ = np.flatnonzero(fractional(sacks, pods) >= _NEAR * costs)
    taken: list[tuple[int, IntArray, int]] = []
    classes_met, contents_met = [np.zeros(0, dtype=np.int64)], [np.zeros((0, counts.size), dtype=np.int64)]
    spent = np.zeros(counts.size)
    least = _WORTH
    while left.any() and not over():
        open_ = open_[nodes_left[open_] > 0]
        groups = np.flatnonzero(left)
        part = sacks.only(open_).of_groups(groups).capped(left[groups])
        priced = price_contents(part, pods[groups], np.floor(least * floor[open_]).astype(np.int64), _QUICK)
        # Where rows of the master pay for a node, an empty one can be worth its price, too.
        some = np.flatnonzero(priced.contents.any(axis=1))
        if not some.size:
            least *= _LESS
            if least < _LEAST_WORTH:
                break
            continue
        worth = part.worth(priced.classes, priced.contents, pods[groups]) / costs[open_[priced.classes]]
        best = some[np.argsort(-worth[some], kind="stable")[:_CONTENTS_KEPT]]
        met = np.zeros((best.size, counts.size), dtype=np.int64)
        met[:, groups] = priced.contents[best]
        classes_met.append(open_[priced.classes[best]])
        contents_met.append(met)
        k, content = int(classes_met[-1][0]), met[0]
        holds = content > 0
        many = min(int((left[holds] // content[holds]).min()), int(nodes_left[k]))
        taken.append((k, content, many))
        left, nodes_left[k] = left - many * content, nodes_left[k] - many
        rate = floor[k] / max(1.0, float(content @ prices)) if floor[k] > 0 else 1.0
        spent += many * content * prices * rate
    placed = counts - left
    return Sequence(
        np.array([k for k, _, _ in taken], dtype=np.int64),
        np.array([content for _, content, _ in taken], dtype=np.int64).reshape(len(taken), counts.size),
        np.array([many for _, _, many in taken], dtype=np.int64),
        np.concatenate(classes_met),
        np.vstack(contents_met),
        np.where(placed > 0, spent / np.maximum(placed, 1), prices),
    )


def corrected(prices: FloatArray, paid: FloatArray) -> FloatArray:
    """Return the prices (groups) for the next plan."""
    between: FloatArray = (1 - _CORRECTION) * prices + _CORRECTION * paid
    return between
