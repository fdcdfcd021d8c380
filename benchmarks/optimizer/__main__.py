"""The command: `python -m benchmarks.optimizer [--only PATTERN …]`; prints one table, writes the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from benchmarks.optimizer.instances import Instance, instances
from benchmarks.optimizer.plot import growth_plot
from benchmarks.optimizer.runs import CORES, ROOT, Bench, Limits, Row
from benchmarks.optimizer.table import progress, table

_OUTPUT = ROOT / "build" / "benchmarks" / "optimizer"


def main() -> int:
    """Run what was asked for; every finished row is in the JSON at once, so that an interrupt loses none."""
    parser = _parser()
    asked = parser.parse_args()
    if asked.draw and not asked.plot:
        parser.error("--draw needs --plot SVG")
    known = instances(asked.trace)
    if asked.list:
        print("\n".join(f"{item.name:<24} {' '.join(item.groups):<14} {item.says}" for item in known))
        return 0
    if asked.draw:
        asked.plot.write_text(growth_plot(json.loads(asked.draw.read_text(encoding="utf-8"))["rows"]), encoding="utf-8")
        return 0
    chosen = _chosen(known, asked.only, asked.short)
    if not chosen:
        sys.stderr.write(f"no instance is called {' or '.join(asked.only)}; --list names them\n")
        return 2
    asked.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with nullcontext(asked.keep) if asked.keep else tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), _limits(asked))
        for instance in chosen:
            rows.append(bench.run(instance))
            sys.stderr.write(f"{progress(rows[-1])}\n")
            _write(asked.output, rows)
    print(table(rows))
    print(f"The same as JSON: {_shown(asked.output / 'results.json')}")
    if asked.plot:
        asked.plot.write_text(growth_plot([asdict(row) for row in rows]), encoding="utf-8")
    return 0


def _limits(asked: argparse.Namespace) -> Limits:
    return Limits(asked.time_limit, asked.verify_limit, asked.naive_limit, asked.karpenter_limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="names or groups, * and ? allowed")
    parser.add_argument("--short", action="store_true", help="a small set of a few minutes, instead of all")
    parser.add_argument("--list", action="store_true", help="name the instances and do nothing")
    parser.add_argument("--trace", metavar="FILE", help="the trace's list of pods; else $KINEMA_TRACE, or a download")
    parser.add_argument(
        "--time-limit",
        type=lambda text: text if text == "goal" else float(text),
        metavar="SECONDS|goal",
        help="pass this to kinema plan, or the goal's seconds; without it the planner's default counts",
    )
    parser.add_argument("--verify-limit", type=float, default=60.0, metavar="SECONDS", help="of kinema verify (60)")
    parser.add_argument("--naive-limit", type=float, default=60.0, metavar="SECONDS", help="of the naive MIP (60)")
    parser.add_argument(
        "--karpenter-limit",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="of Karpenter's scheduler, and again of all narrower NodePools together (300)",
    )
    parser.add_argument("--output", type=Path, default=_OUTPUT, metavar="DIR", help="for table.md and results.json")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep dumps, plans and messages here")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw how the time grows with the pods")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="run nothing: draw --plot from earlier results")
    return parser


def _chosen(known: tuple[Instance, ...], patterns: list[str], short: bool) -> list[Instance]:
    """Return the instances by name or group, each with the one that it continues; without patterns all."""
    if short:
        patterns = [*patterns, "short"]
    if not patterns:
        return [item for item in known if "short" not in item.groups]
    wanted = {item.name for item in known for text in patterns if fnmatch(item.name, text) or text in item.groups}
    wanted |= {item.after for item in known if item.name in wanted and item.after}
    return [item for item in known if item.name in wanted]


def _write(folder: Path, rows: list[Row]) -> None:
    (folder / "table.md").write_text(table(rows), encoding="utf-8")
    body = {"about": _about(), "rows": [asdict(row) for row in rows]}
    (folder / "results.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _about() -> dict[str, object]:
    """Say on what and when the figures were measured."""
    asking = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, check=False)
    packages = ("cvxpy", "highspy", "cvxopt", "numpy", "scipy")
    return {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "revision": revision.stdout.strip(),
        "cores_used": min(CORES, os.cpu_count() or 1),
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
