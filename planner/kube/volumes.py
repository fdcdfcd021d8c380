"""From which nodes the volumes of pods can be reached."""

from __future__ import annotations

from collections import Counter

from planner.kube import specs
from planner.kube.collection import Objects
from planner.kube.objects import ClaimObject, Meta, PodObject, PodSpec, VolumeObject
from planner.model.cluster import REGION, ZONE
from planner.model.scheduling import NodeSelectorTerm, Requirement

_OLD_ZONE_LABELS = ("failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region")
_BETA = ("failure-domain.beta", "topology")


class Volumes:
    """Finds from which nodes a pod's volumes can be reached."""

    def __init__(self, objects: Objects) -> None:
        self._claims = objects.of("PersistentVolumeClaim", ClaimObject)
        self._volumes = objects.of("PersistentVolume", VolumeObject)
        self._users = Counter(
            (item.metadata.namespace, claim)
            for item in objects.of("Pod", PodObject).values()
            if not (item.status and item.status.phase in ("Succeeded", "Failed"))
            for claim in dict.fromkeys(specs.claims(item.spec))
        )

    def of_pod(self, meta: Meta, spec: PodSpec) -> tuple[list[tuple[NodeSelectorTerm, ...]], bool, list[str]]:
        """Return the terms of each volume (one of which must hold), whether one is bound to one node, and what is
        not modelled.
        """
        required: list[tuple[NodeSelectorTerm, ...]] = []
        single = False
        unmodelled = []
        for name in specs.claims(spec):
            claim = self._claims.get((meta.namespace, name))
            volume = self._volumes.get(("", claim.spec.volume_name or "")) if claim else None
            if volume is None:
                unmodelled.append(f"persistentVolumeClaim {name}, of which no bound volume was read")
                continue
            if not set(volume.spec.access_modes or ()) & {"ReadWriteMany", "ReadOnlyMany"}:
                single = True
                if self._users[(meta.namespace, name)] > 1:
                    unmodelled.append(f"persistentVolumeClaim {name}, which several pods share on one node")
            if volume.spec.node_affinity and volume.spec.node_affinity.required:
                required.append(specs.terms(volume.spec.node_affinity.required))
            for key in (ZONE, REGION, *_OLD_ZONE_LABELS):
                if value := (volume.metadata.labels or {}).get(key):
                    # A volume of several zones has all of them in its label.
                    at = Requirement(key.replace(*_BETA), "In", tuple(sorted(value.split("__"))))
                    required.append((NodeSelectorTerm((at,)),))
        return required, single, unmodelled
