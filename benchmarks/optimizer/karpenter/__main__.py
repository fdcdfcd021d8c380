"""`python -m benchmarks.optimizer.karpenter SEED [LAST]`: look for clusters that Karpenter runs cheaper than a plan.

Each seed is a cluster without nodes (varied.py). Karpenter is asked with everything that is sold and with narrower
NodePools; the cheapest in which all pods have a place counts. Where it is even below the plan's proven bound, one of
the two is wrong about the rules. With `--out FOLDER` the files of these seeds stay there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.optimizer.dumps import Object, write_dump
from benchmarks.optimizer.karpenter.answer import Schedule
from benchmarks.optimizer.karpenter.program import NoKarpenter, ask, best_narrowed
from benchmarks.optimizer.karpenter.varied import Case, case_of

_ROOT = Path(__file__).parents[3]
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Compared:
    """What one seed cost, in USD per hour; `wrong` says what must not be."""

    line: str
    wrong: str


def main() -> int:
    """Compare the seeds; exit code 1 where Karpenter is cheaper or below the bound, 2 where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer.karpenter", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("last", type=int, nargs="?", help="the last seed (default: the first)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="pass this to kinema plan")
    parser.add_argument("--karpenter-limit", type=float, default=60.0, metavar="SECONDS", help="of Karpenter (60)")
    parser.add_argument("--out", type=Path, help="a folder for the files of seeds that went wrong")
    asked = parser.parse_args()
    failed = 0
    for seed in range(asked.first, (asked.last or asked.first) + 1):
        case = case_of(seed)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = _compared(case, Path(folder), asked.time_limit, asked.karpenter_limit)
            except NoKarpenter as error:
                sys.stderr.write(f"{error}\n")
                return 2
            print(found.line, flush=True)
            if found.wrong:
                failed += 1
                print(f"seed {seed}: {found.wrong}", flush=True)
                if asked.out:
                    _keep(asked.out / str(seed), Path(folder))
    print(f"{failed} seeds went wrong")
    return int(bool(failed))


def _compared(case: Case, folder: Path, limit: float | None, karpenter_limit: float) -> Compared:
    request, cores = case.request(), len(os.sched_getaffinity(0))
    (folder / "request.json").write_text(json.dumps(request.body(karpenter_limit)), encoding="utf-8")
    found = ask(request, karpenter_limit, cores)
    schedules = {"everything": found}
    if better := best_narrowed(request, karpenter_limit, cores):
        schedules[better[0]] = better[1]
    name, best = min(schedules.items(), key=lambda item: (_left_out(item[1]), item[1].price_nanousd_per_hour))
    (folder / "schedule.json").write_text(json.dumps(_shown(name, best), indent=1), encoding="utf-8")
    plan = _plan(case, folder, limit)
    cost, bound = float(plan["cost_usd_per_hour"]), float(plan["objective"]["lower_bound"])
    unplaced = sum(entry["count"] for entry in plan["unplaced"].values())
    price = best.price_nanousd_per_hour / 1e9
    wrong = ""
    if unplaced > _left_out(best):
        wrong = f"kinema has no place for {unplaced} pods, Karpenter ({name}) for {_left_out(best)}"
    elif unplaced == _left_out(best) and price < cost - 1e-9:
        wrong = f"Karpenter ({name}) is cheaper: {price:.6f} $/h against {cost:.6f}"
        wrong += f", and below the bound {bound:.6f}" if price < bound - 1e-6 else ""
    line = (
        f"seed {case.seed} {case.theme}: {len(request.pods)} pods, {len(case.machines)} machine types: plan {cost:.4f} "
        f"({unplaced} unplaced, bound {bound:.4f}), Karpenter {found.price_nanousd_per_hour / 1e9:.4f} "
        f"({_left_out(found)} unplaced), with {name} {price:.4f} ({price / cost - 1 if cost else 0:+.1%})"
    )
    return Compared(line, wrong)


def _plan(case: Case, folder: Path, limit: float | None) -> Object:
    write_dump(folder / "cluster.json", case.objects())
    (folder / "machines.csv").write_text(case.machines_csv(), encoding="utf-8")
    line = ["--cluster", str(folder / "cluster.json"), "--machines", str(folder / "machines.csv"), "--output", "json"]
    if (pools := case.pools_yaml()) is not None:
        (folder / "pools.yaml").write_text(pools, encoding="utf-8")
        line += ["--pools", str(folder / "pools.yaml")]
    if limit is not None:
        line += ["--time-limit", f"{limit:g}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KINEMA_")}
    done = subprocess.run(
        [sys.executable, "-m", "planner", "plan", *line],
        capture_output=True,
        cwd=_ROOT,
        env=clean,
        timeout=(limit or 60.0) + _PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"seed {case.seed}: kinema plan: {done.stderr.decode('utf-8', 'replace')[-2000:]}")
    (folder / "plan.json").write_bytes(done.stdout)
    plan: Object = json.loads(done.stdout)
    return plan


def _left_out(schedule: Schedule) -> int:
    return len(schedule.unplaced) + schedule.never_tried


def _shown(name: str, schedule: Schedule) -> Object:
    nodes = [{field: getattr(node, field) for field in node.__struct_fields__} for node in schedule.nodes]
    price = schedule.price_nanousd_per_hour
    return {"pools": name, "price_nanousd_per_hour": price, "nodes": nodes, "unplaced": schedule.unplaced}


def _keep(kept: Path, folder: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        (kept / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
