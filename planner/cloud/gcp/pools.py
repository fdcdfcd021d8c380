"""A cluster's node pools: what a fresh node of each looks like, and how many there may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from planner.cloud.gcp.groups import Group, group_of
from planner.cloud.gcp.machines import NodeSystem
from planner.model.cluster import ARCH, INSTANCE_TYPE, NODE_POOL, ZONE, CapacityType
from planner.model.scheduling import Taint

_EFFECTS = {"NO_SCHEDULE": "NoSchedule", "PREFER_NO_SCHEDULE": "PreferNoSchedule", "NO_EXECUTE": "NoExecute"}
_UNDER_WAY = ("PROVISIONING", "RECONCILING", "STOPPING", "ERROR")
_TARGET = re.compile(r"/clusters/(?P<cluster>[^/]+)(?:/nodePools/(?P<pool>[^/]+))?")
_DEFAULT_MAX_PODS = 110
_DEFAULT_BOOT_DISK_GIB = 100


@dataclass(frozen=True, slots=True)
class NodePool:
    """A node pool as the Container API describes it (`message` is its google.container.v1.NodePool)."""

    name: str
    machine_type: str
    status: str
    groups: tuple[Group, ...]
    message: Any

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(sorted({group.zone for group in self.groups}))

    @property
    def capacity_type(self) -> CapacityType:
        """Preemptible machines are spot machines that also end after a day; they cost the same."""
        return "spot" if self.message.config.spot or self.message.config.preemptible else "on-demand"

    @property
    def image(self) -> Literal["cos", "ubuntu"]:
        return "ubuntu" if self.message.config.image_type.upper().startswith("UBUNTU") else "cos"

    @property
    def max_pods(self) -> int:
        return int(self.message.max_pods_constraint.max_pods_per_node) or _DEFAULT_MAX_PODS

    @property
    def boot_disk_gib(self) -> int:
        config = self.message.config
        return int(config.boot_disk.size_gb or config.disk_size_gb) or _DEFAULT_BOOT_DISK_GIB

    @property
    def gpus(self) -> int:
        """GPUs of each machine as the pool lists them, whether or not they belong to the machine type."""
        return sum(int(entry.accelerator_count) for entry in self.message.config.accelerators)

    @property
    def taints(self) -> tuple[Taint, ...]:
        return tuple(
            Taint(taint.key, taint.value, _EFFECTS.get(_name(taint.effect), "NoSchedule"))
            for taint in self.message.config.taints
        )

    def system(self, defaults: NodeSystem) -> NodeSystem:
        """Return what runs below the pods; processor architecture and shared cores are the machine type's."""
        return NodeSystem(self.image, defaults.arch, self.max_pods, self.boot_disk_gib, defaults.shared_core)

    def labels(self, zone: str, arch: str) -> dict[str, str]:
        """Return the labels of a fresh node in the zone: kubelet's, the cloud's, GKE's and the pool's own.

        GKE adds a few labels later, once an add-on is ready on the node (`cloud.google.com/gke-netd-ready`); they
        are not among these.
        """
        config, region = self.message.config, zone.rsplit("-", 1)[0]
        labels = {
            ARCH: arch,
            "kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            INSTANCE_TYPE: self.machine_type,
            "beta.kubernetes.io/instance-type": self.machine_type,
            ZONE: zone,
            "topology.kubernetes.io/region": region,
            "failure-domain.beta.kubernetes.io/zone": zone,
            "failure-domain.beta.kubernetes.io/region": region,
            "topology.gke.io/zone": zone,
            "cloud.google.com/machine-family": self.machine_type.split("-")[0],
            "cloud.google.com/gke-os-distribution": self.image,
        }
        if disk := config.boot_disk.disk_type or config.disk_type:
            labels["cloud.google.com/gke-boot-disk"] = disk
        if config.spot:
            labels["cloud.google.com/gke-spot"] = "true"
        if config.preemptible:
            labels["cloud.google.com/gke-preemptible"] = "true"
        if config.accelerators:
            labels["cloud.google.com/gke-accelerator"] = config.accelerators[0].accelerator_type
        if config.ephemeral_storage_local_ssd_config.local_ssd_count:
            labels["cloud.google.com/gke-ephemeral-storage-local-ssd"] = "true"
        return labels | dict(config.labels) | {NODE_POOL: self.name}

    def limits(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, int | None]]:
        """Return (minimum, maximum) of each zone; `sizes` are the machines that each zone has now.

        Without autoscaling there is no limit. The pool's limits are per zone, or in total over its zones. Totals are
        shared out around the present sizes, so that what is there stays allowed and no choice of sizes within
        the zones' limits breaks a total: with n zones and the present total s, each zone may grow by
        floor((total maximum - s) / n) and shrink by floor((s - total minimum) / n).
        """
        scaling = self.message.autoscaling
        if not scaling.enabled:
            return dict.fromkeys(self.zones, (0, None))
        if not (scaling.total_min_node_count or scaling.total_max_node_count):
            return dict.fromkeys(self.zones, (scaling.min_node_count, scaling.max_node_count))
        present = sum(sizes.get(zone, 0) for zone in self.zones)
        growth = (scaling.total_max_node_count - present) // len(self.zones)
        shrinkage = (present - scaling.total_min_node_count) // len(self.zones)
        return {
            zone: (max(0, sizes.get(zone, 0) - shrinkage), max(0, sizes.get(zone, 0) + growth)) for zone in self.zones
        }

    def needs_sizes(self) -> bool:
        """Say whether the limits depend on the present sizes."""
        scaling = self.message.autoscaling
        return bool(scaling.enabled and (scaling.total_min_node_count or scaling.total_max_node_count))

    def under_way(self) -> str:
        """Say in a sentence what happens to the pool, "" for nothing.

        RUNNING_WITH_ERROR is the lasting state of a pool that could not get a machine: nothing is under way then.
        """
        return f"node pool {self.name} is {self.status}" if self.status in _UNDER_WAY else ""


def node_pool_of(message: Any) -> NodePool:
    """Read a node pool's message.

    Raises:
        CloudError: an instance group's URL has an unknown form.
    """
    groups = tuple(group_of(message.name, url) for url in message.instance_group_urls)
    return NodePool(message.name, message.config.machine_type, _name(message.status), groups, message)


def obstacle(pool: NodePool, gpus_in_price: int) -> str:
    """Return why no machine of the pool can be planned with what is known of it, "" where it can."""
    config = pool.message.config
    divided = any(e.gpu_partition_size or e.gpu_sharing_config.max_shared_clients_per_gpu for e in config.accelerators)
    pages = config.linux_node_config.hugepages
    checks = (
        (config.image_type.upper().startswith("WINDOWS"), "its nodes run Windows"),
        (pool.gpus > gpus_in_price, f"{pool.gpus} GPUs are attached and {gpus_in_price} are in the machine's price"),
        (divided, "its GPUs are divided, so that a node has more of them than the machine"),
        (config.advanced_machine_features.threads_per_core == 1, "multithreading is off, which halves the vCPUs"),
        (pages.hugepage_size2m or pages.hugepage_size1g, "huge pages take a part of its memory"),
        (pool.message.queued_provisioning.enabled or config.flex_start, "its machines come through a queue"),
    )
    return next((reason for holds, reason in checks if holds), "")


def operation_under_way(operation: Any, cluster: str, pools: frozenset[str]) -> str:
    """Say in a sentence what an operation of the Container API does.

    It is "" where the operation is over, or concerns neither the cluster as a whole nor one of the pools.
    """
    if _name(operation.status) == "DONE" or (target := _TARGET.search(operation.target_link)) is None:
        return ""
    if target["cluster"] != cluster or (target["pool"] and target["pool"] not in pools):
        return ""
    what = f"node pool {target['pool']}" if target["pool"] else f"cluster {cluster}"
    return f"{_name(operation.operation_type)} of {what} is {_name(operation.status)} ({operation.name})"


def _name(value: Any) -> str:
    """Name a value of an enumeration; one that is newer than the client library comes as a bare number."""
    return str(getattr(value, "name", value))
