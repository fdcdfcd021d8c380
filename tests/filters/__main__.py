"""`python -m tests.filters SEED [LAST]`: plan the clusters of these seeds and print what the real filters refuse.

With `--out FOLDER` the dump, the tables and the final state of each refused seed are left there, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import yaml

from planner.errors import KinemaError
from tests.controlplane.build import FILTER_CHECK, build
from tests.filters.clusters import Case, generate
from tests.filters.judging import Verdict, judge
from tests.filters.scheduler import Filters


def main() -> int:
    """Judge the seeds; exit code 1 where any pod is refused or there is no plan."""
    parser = argparse.ArgumentParser(prog="python -m tests.filters", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("last", type=int, nargs="?", help="the last seed (default: the first)")
    parser.add_argument("--out", type=Path, help="a folder for the files of refused seeds")
    arguments = parser.parse_args()
    failed, moves, pods, boots = 0, 0, 0, 0
    began = time.monotonic()
    with Filters(build().path(FILTER_CHECK)) as filters:
        for seed in range(arguments.first, (arguments.last or arguments.first) + 1):
            case = generate(seed, filters)
            try:
                verdict = judge(case, filters)
            except (KinemaError, AssertionError) as error:
                failed += 1
                _say(f"seed {seed}: no plan: {type(error).__name__} {error}")
                if arguments.out:
                    _keep(arguments.out / str(seed), case, None)
                continue
            plan = verdict.plan
            moves += plan.moves
            pods += len(verdict.final.pods)
            boots += sum(node.state == "boot" for node in plan.nodes)
            if verdict.faults:
                failed += 1
                for fault in verdict.faults:
                    _say(f"seed {seed}: {fault}")
                if arguments.out:
                    _keep(arguments.out / str(seed), case, verdict)
    _say(
        f"{failed} seeds failed; {pods} pods, {moves} moves, {boots} boots in {time.monotonic() - began:.0f} s",
    )
    return int(bool(failed))


def _keep(folder: Path, case: Case, verdict: Verdict | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cluster.json").write_text(json.dumps(case.dump(), indent=1))
    (folder / "machines.csv").write_text(case.table())
    if case.pools:
        (folder / "pools.yaml").write_text(yaml.safe_dump(case.pools))
    if verdict is not None:
        final = {"nodes": verdict.final.nodes, "pods": verdict.final.pods}
        (folder / "final.json").write_text(json.dumps(final, indent=1))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
