"""`make demo-cluster`: the iteration live on a real control plane, which stays up for kubectl until Ctrl-C."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.controlplane.build import build, unavailable
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.site import Site, Watcher, open_site


def main() -> int:
    """Run the demo; returns the exit code."""
    if reason := unavailable():
        sys.stderr.write(f"demo-cluster: {reason}\n")
        return 2
    say("building the control plane (minutes on first use, then it is cached) …")
    binaries = build()
    say("eight n2 nodes, badly packed, on a real API server; the machines are a fake Google Cloud's …")
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="kinema-demo-") as folder,
        ControlPlane(binaries, Path(folder) / "control-plane") as cluster,
        open_site(cluster, Path(folder), "extender") as site,
    ):
        return _show(site, binaries.path("kubectl"))
    return 0


def _show(site: Site, kubectl: Path) -> int:
    say(site.cluster.kubectl("get", "nodes", "--label-columns", "node.kubernetes.io/instance-type"))
    command = f"{kubectl} --kubeconfig {site.cluster.admin_kubeconfig}"
    say(f"look in from another terminal:\n  {command} get nodes,pods -A -o wide\n")
    with Watcher(site) as watcher:
        planner = site.run_planner(stdout=None)
        try:
            code = planner.wait()
        except KeyboardInterrupt:
            planner.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                planner.wait(10)
            raise
    say(site.cluster.kubectl("get", "nodes", "--label-columns", "node.kubernetes.io/instance-type,kinema.io/optimal"))
    say(f"lowest number of ready pods of each workload, sampled {watcher.samples} times: {watcher.lowest}")
    if code:
        return code
    say(f"the cluster stays up until Ctrl-C; kubectl:\n  {command} get nodes,pods -A -o wide")
    threading.Event().wait()
    return 0


def say(text: str) -> None:
    """Print a line for the person who watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
