"""The knapsacks of a problem, one for each class of nodes, and what their nodes can be worth where pods may be cut.

Multipliers of the resources (the dual of the fractional knapsack, by an interior point method) give every group a
reduced profit and every class a bound; any multipliers >= 0 give a right bound, good ones a sharp one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.problem import Problem

MARGIN = 0.5
"""In nanodollars per hour, added to every bound that is a float: far above its rounding error."""

_INTERIOR_STEPS = 14


@dataclass(frozen=True, slots=True)
class Knapsacks:
    """What stays the same from one pricing to the next: one knapsack per class.

    `requests` (groups, resources), `sides` (groups), `room` (classes, resources), `caps`, `present` and `displeasure`
    (classes, groups). The first `whole` resources are no shares of a node and have multipliers; a share of which no
    class admits two groups is in the caps already and left out.
    """

    requests: IntArray
    sides: IntArray
    room: IntArray
    caps: IntArray
    present: IntArray
    displeasure: IntArray
    move_prices: IntArray
    whole: int

    @classmethod
    def of(cls, problem: Problem) -> Knapsacks:
        caps = problem.caps
        shared = [
            r < problem.whole or bool(((caps[:, problem.requests[:, r] > 0] > 0).sum(axis=1) > 1).any())
            for r in range(len(problem.resources))
        ]
        return cls(
            problem.requests[:, shared],
            problem.sides,
            np.maximum(problem.room[:, shared], 0),
            caps,
            np.minimum(problem.present, caps),
            problem.displeasure,
            problem.move_prices,
            problem.whole,
        )

    def only(self, classes: IntArray) -> Knapsacks:
        """Return the knapsacks of some classes."""
        return replace(
            self,
            room=self.room[classes],
            caps=self.caps[classes],
            present=self.present[classes],
            displeasure=self.displeasure[classes],
        )

    def of_groups(self, groups: IntArray) -> Knapsacks:
        """Return the knapsacks of some groups of pods."""
        return replace(
            self,
            requests=self.requests[groups],
            sides=self.sides[groups],
            caps=self.caps[:, groups],
            present=self.present[:, groups],
            displeasure=self.displeasure[:, groups],
            move_prices=self.move_prices[groups],
        )

    def worth(self, classes: IntArray, contents: IntArray, prices: IntArray) -> IntArray:
        """Return what contents of these classes are worth at prices of pods (groups), (contents,)."""
        arriving = np.maximum(contents - self.present[classes], 0)
        displeased = (self.displeasure[classes] * contents).sum(axis=1)
        worth: IntArray = contents @ prices - displeased - arriving @ self.move_prices
        return worth

    def capped(self, counts: IntArray) -> Knapsacks:
        """Return the knapsacks where no more than `counts` pods of each group are left."""
        caps = np.minimum(self.caps, counts[None, :])
        return replace(self, caps=caps, present=np.minimum(self.present, caps))


@dataclass(frozen=True, slots=True)
class Roots:
    """The fractional knapsacks at some multipliers: reduced profits of pods that stay and arrive, `best` of both
    (classes, groups), and the bound `root` (classes).
    """

    multipliers: FloatArray
    stay: FloatArray
    arrive: FloatArray
    best: FloatArray
    root: FloatArray


def outbid(sacks: Knapsacks, prices: IntArray, floor: IntArray, whole: FloatArray) -> tuple[IntArray, Roots]:
    """Return for each class the greater of its floor and of what these multipliers (classes, whole resources) bound."""
    multipliers = np.zeros(sacks.room.shape)
    multipliers[:, : sacks.whole] = whole
    weight = multipliers @ sacks.requests.T
    stay = prices[None, :] - sacks.displeasure - weight
    arrive = stay - sacks.move_prices
    best = np.maximum(stay, 0) * sacks.present + np.maximum(arrive, 0) * (sacks.caps - sacks.present)
    root = (multipliers * sacks.room).sum(axis=1) + best.sum(axis=1)
    upper: IntArray = np.where(root > floor + MARGIN, np.ceil(root + MARGIN), floor).astype(np.int64)
    return upper, Roots(multipliers, stay, arrive, best, root)


def fractional(sacks: Knapsacks, prices: IntArray) -> FloatArray:
    """Return what a node of each class can be worth at most where pods may be cut, (classes)."""
    nothing = np.zeros(sacks.caps.shape[0], dtype=np.int64)
    return outbid(sacks, prices, nothing, multipliers_of(sacks, prices))[1].root


def multipliers_of(sacks: Knapsacks, prices: IntArray) -> FloatArray:
    """Approximate the optimal dual of each fractional knapsack, (classes, whole resources), in price per unit.

    Primal: max p.x, A x + w = 1, x + t = u. Where pods are there now, a group is two items: those and arriving ones.
    """
    net = prices[None, :] - sacks.displeasure
    room = np.maximum(sacks.room[:, : sacks.whole], 1).astype(np.float64)
    share = sacks.requests[None, :, : sacks.whole] / room[:, None, :]
    share = np.where((sacks.caps > 0)[:, :, None], share, 0.0)
    coming = (sacks.caps - sacks.present).astype(np.float64)
    if sacks.present.any():
        a, u = np.concatenate([share, share], axis=1), np.concatenate([sacks.present, coming], axis=1)
        p = np.concatenate([net, net - sacks.move_prices], axis=1).astype(np.float64)
    else:
        a, u, p = share, coming, (net - sacks.move_prices).astype(np.float64)
    scale = max(1.0, float(np.abs(p).max(initial=0.0)))
    p = np.where(u > 0, p / scale, -1.0)
    u = np.where(u > 0, u, 1.0)
    a = np.where((u > 0)[:, :, None], a, 0.0)
    load = a.sum(axis=1).max(axis=1, keepdims=True)
    x = np.minimum(u, 1.0 / np.maximum(load, 1e-9)) * 0.5
    t = u - x
    w = np.maximum(1.0 - (a * x[:, :, None]).sum(axis=1), 0.1)
    y = np.full((a.shape[0], a.shape[2]), 0.5)
    s, z = np.full_like(x, 0.5), np.full_like(x, 0.5)
    eye = np.eye(a.shape[2])[None]
    size = x.shape[1] * 2 + w.shape[1]
    with np.errstate(all="ignore"):
        for _ in range(_INTERIOR_STEPS):
            mu = 0.15 * ((x * z).sum(axis=1) + (t * s).sum(axis=1) + (w * y).sum(axis=1))[:, None] / size
            rb = 1.0 - (a * x[:, :, None]).sum(axis=1) - w
            rd = p - (a * y[:, None, :]).sum(axis=2) - s + z
            theta = s / t + z / x
            q = (rd - (mu - t * s - s * (u - x - t)) / t + (mu - x * z) / x) / theta
            normal = np.einsum("cgr,cgq->crq", a / theta[:, :, None], a) + eye * (w / y + 1e-12)[:, :, None]
            right = (a * q[:, :, None]).sum(axis=1) + (mu - w * y) / y - rb
            try:
                dy = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
            except np.linalg.LinAlgError:
                # Any multipliers bound; those so far are as good as the steps that led to them.
                break
            dx = q - (a * dy[:, None, :]).sum(axis=2) / theta
            dt = u - x - t - dx
            dw = (mu - w * y - w * dy) / y
            dz = (mu - x * z - z * dx) / x
            ds = (mu - t * s - s * dt) / t
            primal = np.minimum(_step(x, dx), np.minimum(_step(t, dt), _step(w, dw)))
            dual = np.minimum(_step(z, dz), np.minimum(_step(s, ds), _step(y, dy)))
            x, t, w = x + primal * dx, t + primal * dt, w + primal * dw
            y, s, z = y + dual * dy, s + dual * ds, z + dual * dz
    y = np.where(np.isfinite(y) & (y > 1e-9), y, 0.0)
    multipliers: FloatArray = y * scale / room
    return multipliers


def _step(x: FloatArray, dx: FloatArray) -> FloatArray:
    ratio = np.where(dx < 0, -x / np.where(dx < 0, dx, -1.0), np.inf).min(axis=1, keepdims=True)
    step: FloatArray = np.minimum(1.0, 0.95 * ratio)
    return step
