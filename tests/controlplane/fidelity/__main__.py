"""Roll-outs on a real control plane, held against the plan from outside: `python -m tests.controlplane.fidelity`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.controlplane.build import build
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.fidelity.beside import PATIENT_TIMEOUT
from tests.controlplane.fidelity.field import Field
from tests.controlplane.fidelity.rollout import Size
from tests.controlplane.fidelity.scenarios import SCENARIOS, played, without_extender


def main() -> int:
    """Play the scenarios; exit code 1 where anything is not as it should be."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m tests.controlplane.fidelity", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200, help="nodes, of which the plan keeps half (default: 200)")
    parser.add_argument("--pods", type=int, default=2000, help="pods of ten Deployments (default: 2000)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SCENARIO", help=", ".join(names))
    parser.add_argument(
        "--http-timeout",
        help=f"how long a scheduler waits for the extender, such as 5s; {PATIENT_TIMEOUT} in the tests (default: as "
        "the manifests say)",
    )
    arguments = parser.parse_args()
    size = Size(arguments.nodes, arguments.pods)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with ControlPlane(build(), folder / "control-plane") as cluster:
            ground = Field(cluster, folder / "field", "extender")
            ground.http_timeout = arguments.http_timeout
            ground.install()
            baseline = without_extender(ground, size)
            _say(f"{size.nodes} nodes, {size.pods} pods\nwithout an extender: {baseline}")
            for scenario in SCENARIOS:
                if scenario.name in arguments.only:
                    report = played(scenario, ground, size, baseline)
                    failed += bool(report.problems)
                    _say(str(report))
    _say(f"{failed} scenarios failed")
    return int(bool(failed))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
