"""Kinema's parts beside a real control plane, each a process of its own with the ServiceAccount of manifests/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import yaml

from planner.kube.record import decode_record
from planner.model.plan import PlanRecord
from tests.controlplane.cluster import ControlPlane
from tests.extender.serving import Served, serve
from tests.googlecloud.fake import FakeGoogleCloud

Json = dict[str, Any]
Steering = Literal["extender", "scheduler", "affinity", "labels"]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "manifests" / "base"
SCHEDULER = "kinema-scheduler"


class Installation:
    """Schedulers, extender and planner; `steering` says how pods are put on their planned nodes."""

    def __init__(self, cluster: ControlPlane, folder: Path, steering: Steering) -> None:
        self.cluster = cluster
        self.folder = folder
        self.steering = steering
        self.extender: Served | None = None
        self._stack = ExitStack()

    @property
    def scheduler_name(self) -> str:
        return SCHEDULER if self.steering == "scheduler" else "default-scheduler"

    def install(self) -> None:
        """Authorize the parts; start the cluster's own scheduler, and the extender beside the one that it steers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cluster.apply(BASE / "rbac.yaml", namespace="kube-system")
        configuration = yaml.safe_load((BASE / "scheduler-configuration.yaml").read_text())
        del configuration["leaderElection"]
        if self.steering in ("scheduler", "affinity"):
            self._stack.callback(self.cluster.start_scheduler().stop)
        if self.steering == "affinity":
            return
        identity = self.cluster.kubeconfig_for("kube-system", "kinema-extender")
        self.extender = self._stack.enter_context(serve({"EXTENDER_KUBECONFIG": str(identity)}))
        configuration["profiles"] = [{"schedulerName": self.scheduler_name}]
        (extender,) = configuration["extenders"]
        extender["urlPrefix"] = f"http://127.0.0.1:{self.extender.port}"
        # On a busy test machine a slow answer must not look like a lost one.
        extender["httpTimeout"] = "5s"
        own = self.cluster.kubeconfig_for("kube-system", "kinema-scheduler") if self.steering == "scheduler" else None
        self._stack.callback(self.cluster.start_scheduler(configuration, kubeconfig=own).stop)

    def stop(self) -> None:
        """End schedulers and extender."""
        self._stack.close()

    def settings(self, cloud: FakeGoogleCloud) -> Json:
        """Return the planner's settings, as the file has them: this cloud, this steering, short pauses."""
        reached = cloud.settings()
        return {
            "mode": "apply",
            "metrics_port": 0,
            "kubeconfig": str(self.cluster.kubeconfig_for("kube-system", "kinema-planner")),
            "interval_seconds": 1,
            "cloud": {
                "provider": "gcp",
                "project": reached.project,
                "location": reached.location,
                "cluster": reached.cluster,
                "pools": list(reached.pools),
                "compute_endpoint": reached.compute_endpoint,
                "container_endpoint": reached.container_endpoint,
            },
            "move": {
                "steering": "extender" if self.steering == "labels" else self.steering,
                "publish_placement": self.steering != "labels",
                "poll_seconds": 0.2,
            },
            "leader": {"duration_seconds": 4},
        }

    def launch(
        self, settings: Json, *arguments: str, stdout: int | None = subprocess.PIPE, once: bool = True
    ) -> subprocess.Popen[str]:
        """Start `kinema run`, with `--once` unless told otherwise, as a process with the planner's ServiceAccount."""
        path = self.folder / "settings.yaml"
        path.write_text(yaml.safe_dump(settings))
        return subprocess.Popen(
            [sys.executable, "-m", "planner", "run", "--settings", str(path), *["--once"] * once, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"},
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def record(self) -> PlanRecord | None:
        """Return the plan that the cluster remembers."""
        found = self.cluster.items("/api/v1/namespaces/kube-system/configmaps")
        for item in found:
            if item["metadata"]["name"] == "kinema-plan":
                return decode_record(json.dumps(item).encode())
        return None

    def events(self) -> list[str]:
        """Return the reasons of the planner's Events, oldest first."""
        found = self.cluster.items("/api/v1/namespaces/kube-system/events")
        own = [event for event in found if event["source"].get("component") == "kinema-planner"]
        return [event["reason"] for event in sorted(own, key=lambda event: str(event["metadata"]["name"]))]


def finish(planner: subprocess.Popen[str], timeout_seconds: float = 180) -> str:
    """Wait for the planner's end and return what it printed; anything but a success is shown."""
    try:
        output, _ = planner.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        planner.kill()
        output, _ = planner.communicate()
        raise AssertionError(f"the planner did not end:\n{output}") from None
    assert planner.returncode == 0, output
    return output
