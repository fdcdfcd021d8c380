"""How good and how fast plans are: clusters of several sizes, filled as a scheduler that spreads would, fixed seed.

`python -m benchmarks.bench_optimizer [PODS …]` prints a row for each size: cost before and after, proven bound,
gap, time, and the peak of the process's memory.
"""

from __future__ import annotations

import random
import resource
import sys
import time

from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.optimizer import optimize
from tests.building import catalogue, deployment, inputs, node, offering, pod, resources, snapshot

SIZES = (500, 1000, 2000, 4000)
SHAPES = ((100, 0.25), (200, 0.5), (250, 1), (500, 1), (500, 2), (750, 1.5), (300, 3), (1000, 2), (1500, 6), (2000, 4))
"""CPU in millicores and memory in GiB, as in the demo's cluster."""

MACHINES = (
    ("e2-standard-4", 3920, 12.9, 0.13402),
    ("e2-standard-8", 7910, 28.1, 0.26805),
    ("e2-highmem-4", 3920, 27.7, 0.18084),
    ("e2-standard-16", 15890, 58.0, 0.53609),
    ("n2-standard-4", 3920, 12.9, 0.19420),
    ("n2-standard-8", 7910, 28.1, 0.38840),
)
"""Name, allocatable CPU in millicores and memory in GiB, list price in USD per hour."""


def badly_packed(pods: int, seed: int) -> PlanningInputs:
    """Return a cluster of so many pods on machines of random types that are about half full."""
    chance = random.Random(seed)
    offers = catalogue(*(offering(name, price, cpu, memory) for name, cpu, memory, price in MACHINES))
    workloads, found, left = [], [], pods
    while left:
        replicas = min(left, chance.choice((1, 2, 3, 4, 6, 8, 12, 20, 40)))
        cpu, memory = chance.choice(SHAPES)
        workloads.append(deployment(f"w{len(workloads)}", replicas, cpu, memory))
        left -= replicas
    nodes, room = [], []
    for owner in workloads:
        for index in range(owner.replicas):
            fits = [i for i, left_over in enumerate(room) if owner.requests.fits_in(left_over)]
            if not fits:
                name, cpu, memory, _ = chance.choice(MACHINES)
                nodes.append(node(f"n{len(nodes)}", name, cpu, memory))
                # Half of the machine, or what the largest pod needs: the other half is what the plan can win.
                room.append(resources(max(cpu // 2, 2000), max(memory / 2, 6), 110))
                fits = [len(nodes) - 1]
            spot = chance.choice(fits)
            room[spot] = room[spot] - owner.requests
            found.append(pod(owner, index, on=nodes[spot].name))
    return inputs(snapshot(nodes, workloads, found), offers)


def main(sizes: tuple[int, ...]) -> None:
    """Plan each size once and print its row."""
    print(f"{'pods':>6} {'nodes':>12} {'$/h before':>11} {'after':>9} {'bound':>9} {'gap':>8} {'s':>6} {'peak MB':>8}")
    for size in sizes:
        problem = badly_packed(size, seed=7)
        began = time.perf_counter()
        plan = optimize(problem, Effort(), Watch(now=time.monotonic, report=lambda _: None))
        elapsed = time.perf_counter() - began
        after = sum(item.state != "remove" for item in plan.nodes)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{size:>6} {f'{len(problem.snapshot.nodes)} -> {after}':>12} "
            f"{plan.current_cost_nanousd_per_hour / 1e9:>11.4f} {plan.objective.value_nanousd_per_hour / 1e9:>9.4f} "
            f"{plan.objective.lower_bound_nanousd_per_hour / 1e9:>9.4f} {plan.objective.relative_gap:>8.4%} "
            f"{elapsed:>6.1f} {peak_mb:>8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main(tuple(int(argument) for argument in sys.argv[1:]) or SIZES)
