"""What a node pool's message says of a fresh node."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import container_v1

from planner.cloud.gcp.machines import NodeSystem
from planner.cloud.gcp.pools import NodePool, node_pool_of, obstacle
from planner.model.scheduling import Taint


def pool(config: dict[str, Any] | None = None, **fields: Any) -> NodePool:
    message = {"name": "general", "config": {"machine_type": "e2-standard-4"} | (config or {})}
    return node_pool_of(container_v1.NodePool(message | fields))


def test_a_fresh_node_carries_the_labels_of_kubelet_the_cloud_gke_and_the_pool() -> None:
    config = {"labels": {"team": "web"}, "image_type": "COS_CONTAINERD", "disk_type": "pd-balanced"}
    assert pool(config).labels("us-central1-a", "amd64") == {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "e2-standard-4",
        "beta.kubernetes.io/os": "linux",
        "cloud.google.com/gke-boot-disk": "pd-balanced",
        "cloud.google.com/gke-nodepool": "general",
        "cloud.google.com/gke-os-distribution": "cos",
        "cloud.google.com/machine-family": "e2",
        "failure-domain.beta.kubernetes.io/region": "us-central1",
        "failure-domain.beta.kubernetes.io/zone": "us-central1-a",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "e2-standard-4",
        "team": "web",
        "topology.gke.io/zone": "us-central1-a",
        "topology.kubernetes.io/region": "us-central1",
        "topology.kubernetes.io/zone": "us-central1-a",
    }


def test_what_is_special_about_a_pool_is_a_label() -> None:
    config = {
        "spot": True,
        "accelerators": [{"accelerator_count": 1, "accelerator_type": "nvidia-l4"}],
        "ephemeral_storage_local_ssd_config": {"local_ssd_count": 1},
    }
    labels = pool(config).labels("us-central1-a", "amd64")
    assert labels["cloud.google.com/gke-spot"] == "true"
    assert labels["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    assert labels["cloud.google.com/gke-ephemeral-storage-local-ssd"] == "true"


def test_preemptible_machines_are_spot() -> None:
    preemptible = pool({"preemptible": True})
    assert preemptible.capacity_type == "spot"
    assert preemptible.labels("us-central1-a", "amd64")["cloud.google.com/gke-preemptible"] == "true"


def test_taints_are_written_as_kubernetes_writes_them() -> None:
    taints = [
        {"key": "a", "value": "1", "effect": "NO_SCHEDULE"},
        {"key": "b", "value": "", "effect": "PREFER_NO_SCHEDULE"},
        {"key": "c", "value": "3", "effect": "NO_EXECUTE"},
    ]
    assert pool({"taints": taints}).taints == (
        Taint("a", "1", "NoSchedule"),
        Taint("b", "", "PreferNoSchedule"),
        Taint("c", "3", "NoExecute"),
    )


def test_the_system_of_a_node_is_the_pools_where_it_says_something() -> None:
    assert pool().system(NodeSystem()) == NodeSystem(image="cos", max_pods=110, boot_disk_gib=100)
    special = pool(
        {"image_type": "UBUNTU_CONTAINERD", "disk_size_gb": 50}, max_pods_constraint={"max_pods_per_node": 32}
    )
    assert special.system(NodeSystem(arch="arm64")) == NodeSystem("ubuntu", "arm64", 32, 50)


@pytest.mark.parametrize("status", ["PROVISIONING", "RECONCILING", "STOPPING", "ERROR"])
def test_a_status_under_way_is_a_sentence(status: str) -> None:
    assert pool(status=status).under_way() == f"node pool general is {status}"


@pytest.mark.parametrize("status", ["RUNNING", "RUNNING_WITH_ERROR"])
def test_a_lasting_status_is_none(status: str) -> None:
    assert pool(status=status).under_way() == ""


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"image_type": "WINDOWS_LTSC_CONTAINERD"}, "Windows"),
        ({"accelerators": [{"accelerator_count": 2}]}, "2 GPUs are attached and 1 are in the machine's price"),
        ({"accelerators": [{"accelerator_count": 1, "gpu_partition_size": "1g.5gb"}]}, "GPUs are divided"),
        (
            {"accelerators": [{"accelerator_count": 1, "gpu_sharing_config": {"max_shared_clients_per_gpu": 4}}]},
            "GPUs are divided",
        ),
        ({"advanced_machine_features": {"threads_per_core": 1}}, "multithreading is off"),
        ({"linux_node_config": {"hugepages": {"hugepage_size2m": 512}}}, "huge pages"),
        ({"flex_start": True}, "queue"),
    ],
)
def test_what_is_not_known_well_enough_is_a_reason(config: dict[str, Any], reason: str) -> None:
    assert reason in obstacle(pool(config), gpus_in_price=1)


def test_an_ordinary_pool_has_no_obstacle() -> None:
    assert obstacle(pool(), gpus_in_price=0) == ""
