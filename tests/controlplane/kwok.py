"""What kwok plays: nodes as a cloud would register them, and the stages of their lives and their pods'."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.controlplane.build import Binaries

Json = dict[str, Any]

FAKE_NODE: Final = ("kwok.x-k8s.io/node", "fake")
"""Annotation of the nodes that kwok plays; it leaves all others alone."""

DELETION_MILLISECONDS: Final = 300
"""How long a deleted pod of kwok's takes to go."""

RUNS_ON: Final = "tests.kinema.io/runs-on"
"""Annotation of pods of Jobs that never complete; those without it complete at once."""

STARTS_SLOWLY: Final = "tests.kinema.io/starts-slowly"
"""Annotation of nodes that become Ready some time after they joined, as real ones do; the others are so at once."""

START_MILLISECONDS: Final = 1500
"""How long such a node takes. Real ones take ten and more seconds, and are looked at every five."""

_NOT_READY: Final = """
conditions:
- lastTransitionTime: {{ $now | Quote }}
  status: "False"
  type: Ready
  reason: PodCompleted
"""
"""What a kubelet says of a pod that has completed; else it would count as healthy in a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNode:
    """A node as GKE would register it, e2-standard-4 unless told otherwise, played by kwok.

    `allocatable` is written as Kubernetes quantities; the default is what GKE leaves of 4 vCPU and 16 GiB.
    """

    name: str
    machine_type: str = "e2-standard-4"
    pool: str = "default-pool"
    zone: str = "europe-west3-a"
    project: str = "kinema-test"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    allocatable: Mapping[str, str] = field(default_factory=lambda: {"cpu": "3920m", "memory": "13256Mi", "pods": "110"})

    def manifest(self) -> Json:
        """Return the Node object, with GKE's labels and provider id."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": self.machine_type,
            "topology.kubernetes.io/zone": self.zone,
            "topology.kubernetes.io/region": self.zone.rpartition("-")[0],
            "topology.gke.io/zone": self.zone,
            "cloud.google.com/gke-nodepool": self.pool,
            "cloud.google.com/machine-family": self.machine_type.partition("-")[0],
        }
        key, value = FAKE_NODE
        amounts = dict(self.allocatable)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {**labels, **self.labels},
                "annotations": {key: value, **self.annotations},
            },
            "spec": {
                "providerID": f"gce://{self.project}/{self.zone}/{self.name}",
                "taints": [dict(taint) for taint in self.taints],
            },
            "status": {"allocatable": amounts, "capacity": amounts},
        }


def write_stages(binaries: Binaries, folder: Path) -> list[Path]:
    """Write kwok's stages, with a grace for pods that are deleted, and what `RUNS_ON` and `STARTS_SLOWLY` say.

    A StatefulSet's pod that is gone and back under its name before the disruption controller looked counts as
    still being disrupted for two minutes, and its budget then allows nothing. No real kubelet is that fast.
    """
    found = []
    for path in binaries.stages():
        stage = yaml.safe_load(path.read_text())
        variants = [stage]
        match stage["metadata"]["name"]:
            case "pod-delete":
                stage["spec"]["delay"] = {"durationMilliseconds": DELETION_MILLISECONDS}
            case "pod-complete":
                _restrict(stage, RUNS_ON, "DoesNotExist")
                stage["spec"]["next"]["statusTemplate"] += _NOT_READY
            case "node-initialize":
                slow = copy.deepcopy(stage)
                slow["metadata"]["name"] += "-slowly"
                slow["spec"]["delay"] = {"durationMilliseconds": START_MILLISECONDS}
                _restrict(slow, STARTS_SLOWLY, "Exists")
                _restrict(stage, STARTS_SLOWLY, "DoesNotExist")
                variants.append(slow)
        found.append(folder / path.name)
        found[-1].write_text(yaml.safe_dump_all(variants))
    return found


def _restrict(stage: Json, annotation: str, operator: str) -> None:
    """Let a stage of kwok's concern only objects that have the annotation, or only those that have not."""
    condition = {"key": f'.metadata.annotations["{annotation}"]', "operator": operator}
    stage["spec"]["selector"]["matchExpressions"].append(condition)
