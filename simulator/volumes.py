"""The volumes of a pod: from which nodes they can be reached, and whether another pod still has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from planner.model.scheduling import NodeSelectorTerm
from planner.ports import CLAIMS, PODS, VOLUMES
from simulator.constraints import node_terms_of
from simulator.store import Json, Key, Store

_STABLE: Final = "topology.kubernetes.io/"
_ZONE_LABELS: Final = tuple(
    prefix + name for prefix in (_STABLE, "failure-domain.beta.kubernetes.io/") for name in ("zone", "region")
)
_OF_MANY_NODES: Final = frozenset({"ReadWriteMany", "ReadOnlyMany"})
_OF_ONE_POD: Final = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class Volumes:
    """From which nodes a pod's volumes can be reached; `missing` says why from none."""

    affinities: tuple[tuple[NodeSelectorTerm, ...], ...] = ()
    zones: tuple[tuple[str, frozenset[str]], ...] = ()
    missing: str = ""

    @classmethod
    def of(cls, store: Store, pod: Json, standing: Iterable[Json]) -> Volumes:
        """Follow the pod's claims to their volumes; `standing` are the pods that have a node."""
        affinities, zones = [], []
        for key in claims_of(pod):
            claim = store.get(CLAIMS, key)
            if claim is None:
                return cls(missing=f'persistentvolumeclaim "{key[1]}" not found')
            if _OF_ONE_POD in _modes(claim.body) and any(key in claims_of(other) for other in standing):
                return cls(
                    missing="node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
                    "already in-use by another pod"
                )
            found = store.get(VOLUMES, ("", claim.body["spec"].get("volumeName") or ""))
            if found is None:
                return cls(missing="pod has unbound immediate PersistentVolumeClaims")
            required = (found.body["spec"].get("nodeAffinity") or {}).get("required")
            if required is not None:
                affinities.append(node_terms_of(required))
            # A volume of several zones has all of them in its label.
            labels = found.body["metadata"].get("labels") or {}
            zones += [(key, frozenset(labels[key].split("__"))) for key in _ZONE_LABELS if key in labels]
        return cls(tuple(affinities), tuple(zones))

    def refusal(self, node: Json) -> str:
        """Return why the volumes cannot be used on a node, in the scheduler's words; "" if they can."""
        if self.missing:
            return self.missing
        labels, name = node["metadata"].get("labels") or {}, node["metadata"]["name"]
        if not all(any(term.matches(labels, name) for term in terms) for terms in self.affinities):
            return "node(s) had volume node affinity conflict"
        if any(key in labels for key in _ZONE_LABELS):
            for key, values in self.zones:
                if labels.get(key, labels.get(_STABLE + key.rpartition("/")[2])) not in values:
                    return "node(s) had no available volume zone"
        return ""


def claims_of(pod: Json) -> tuple[Key, ...]:
    """Return namespace and name of the claims that a pod uses."""
    return tuple(
        (pod["metadata"]["namespace"], source["claimName"])
        for volume in pod["spec"].get("volumes") or ()
        if (source := volume.get("persistentVolumeClaim"))
    )


def waits_for_volume(store: Store, pod: Json) -> bool:
    """Tell whether a volume that only one node can have is still with a pod that runs on another node."""
    claims = set(_of_one_node(store, pod))
    return bool(claims) and any(
        other["spec"].get("nodeName") != pod["spec"]["nodeName"]
        and other["status"].get("phase") == "Running"
        and not claims.isdisjoint(claims_of(other))
        for other in store.bodies(PODS)
    )


def _of_one_node(store: Store, pod: Json) -> Iterator[Key]:
    for key in claims_of(pod):
        claim = store.get(CLAIMS, key)
        volume = store.get(VOLUMES, ("", claim.body["spec"].get("volumeName") or "")) if claim else None
        if volume is not None and _OF_MANY_NODES.isdisjoint(_modes(volume.body)):
            yield key


def _modes(body: Json) -> Iterable[str]:
    modes: Iterable[str] = body["spec"].get("accessModes") or ()
    return modes
