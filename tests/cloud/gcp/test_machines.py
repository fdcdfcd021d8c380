"""What GKE leaves of a machine, and the built-in table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from planner.cloud.gcp.machines import GIB, MIB, NodeSystem, allocatable, builtin_machines
from planner.errors import BadInput


@pytest.mark.parametrize(
    ("vcpus", "millicores"),
    # The values of GKE's page "Plan node sizes".
    [(1, 940), (2, 1930), (4, 3920), (8, 7910), (16, 15890), (32, 31850), (64, 63770), (96, 95690)],
)
def test_cpu_is_what_the_documentation_of_gke_says(vcpus: int, millicores: int) -> None:
    assert allocatable(vcpus, 4.0 * vcpus).cpu_millicores == millicores


def test_shared_core_machines_have_940_millicores() -> None:
    assert allocatable(2, 4.0, NodeSystem(shared_core=True)).cpu_millicores == 940  # 2000 - 1060


def test_more_than_110_pods_cost_400_millicores() -> None:
    many = allocatable(4, 16.0, NodeSystem(max_pods=111))
    assert (many.cpu_millicores, many.pods) == (3520, 111)  # 3920 - 400


def test_memory_of_4_gib() -> None:
    kernel = 64 * MIB + 16 * MIB + 64 * MIB + 8 * MIB + int(0.00175 * 4 * GIB)
    reserved = 1 * GIB  # 25 % of 4 GiB
    assert allocatable(2, 4.0).memory_bytes == 4 * GIB - kernel - reserved - 100 * MIB


def test_memory_of_256_gib() -> None:
    kernel = 4 * GIB + 16 * MIB + 64 * MIB + 248 * MIB  # 256/64; 0.175 % would be 459 MiB
    # 25 % of 4, 20 % of 4, 10 % of 8, 6 % of 112, 2 % of the other 128 GiB, in hundredths of a GiB
    reserved = (100 + 80 + 80 + 672 + 256) * GIB // 100
    assert allocatable(64, 256.0).memory_bytes == pytest.approx(256 * GIB - kernel - reserved - 100 * MIB, abs=5)


def test_memory_below_1_gib_reserves_255_mib() -> None:
    memory = round(0.6 * GIB)
    kernel = memory // 64 + 16 * MIB + 8 * MIB + int(0.00175 * memory)
    assert allocatable(1, 0.6).memory_bytes == memory - kernel - 255 * MIB - 100 * MIB


def test_ubuntu_keeps_4_mib_more_and_arm_a_little_less_than_cos() -> None:
    cos, ubuntu, arm = (
        allocatable(4, 16.0, system).memory_bytes
        for system in (NodeSystem(), NodeSystem(image="ubuntu"), NodeSystem(arch="arm64"))
    )
    assert cos - ubuntu == 4 * MIB
    kernel = 256 * MIB + 16 * MIB + 64 * MIB + int(0.00175 * 16 * GIB)
    assert arm - cos == kernel - round(kernel * 0.9971)


def test_ephemeral_storage_of_100_gib() -> None:
    # The file system: 100 GiB less 1.5635 %, 4.148 GiB and 100 MiB (0.1 % would be 102.4 MiB).
    file_system = 100 * GIB * (1 - 0.015635) - 4.148 * GIB - 100 * MIB
    reserved = 41 * GIB  # min(50 %, 35 % + 6 GiB, 100 GiB)
    expected = 0.9 * file_system - reserved
    assert allocatable(4, 16.0).ephemeral_storage_bytes == pytest.approx(expected, abs=5)


def test_a_tiny_disk_leaves_nothing_and_not_less() -> None:
    assert allocatable(4, 16.0, NodeSystem(boot_disk_gib=5)).ephemeral_storage_bytes == 0


def test_the_table_has_every_machine_type_with_a_price() -> None:
    machines = builtin_machines("us-central1")
    assert len(machines) == 324
    assert all(machine.price_nanousd_per_hour for machine in machines.values())
    assert all(machine.allocatable.memory_bytes > 0 for machine in machines.values())
    assert {name for name, m in machines.items() if m.spot_price_nanousd_per_hour is None} != set()


def test_prices_are_whole_nanodollars() -> None:
    machine = builtin_machines("us-central1")["n4a-standard-4"]
    assert machine.price_nanousd_per_hour == 192_506_000  # 0.192506 $/h
    assert machine.spot_price_nanousd_per_hour == 77_002_000  # 0.077002 $/h


def test_arm_machines_are_arm() -> None:
    machines = builtin_machines("us-central1")
    assert {name.split("-")[0] for name, m in machines.items() if m.arch == "arm64"} == {"n4a"}


@pytest.mark.parametrize(
    ("name", "gpus"), [("a2-highgpu-8g", 8), ("a2-megagpu-16g", 16), ("g2-standard-32", 1), ("g2-standard-96", 8)]
)
def test_gpus_of_a_machine_type_are_an_extended_resource(name: str, gpus: int) -> None:
    assert builtin_machines("us-central1")[name].allocatable.extended == (("nvidia.com/gpu", gpus),)


def test_no_other_machine_type_has_gpus() -> None:
    machines = builtin_machines("us-central1").items()
    assert {name.split("-")[0] for name, m in machines if m.allocatable.extended} == {"a2", "g2"}


def test_shared_cores_are_planned_with_what_they_may_use_all_the_time() -> None:
    machines = builtin_machines("us-central1")
    cpu = {name: machines[name].allocatable.cpu_millicores for name in ("e2-micro", "e2-small", "e2-medium")}
    assert cpu == {"e2-micro": 250, "e2-small": 500, "e2-medium": 940}  # min(share, 940)


def test_the_table_needs_no_client_of_google() -> None:
    code = (
        "import sys; from planner.cloud.gcp.machines import builtin_machines; builtin_machines('us-central1'); "
        "print([name for name in sys.modules if name.split('.')[0] in ('google', 'grpc', 'requests')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_prices_of_another_region_have_to_be_given() -> None:
    with pytest.raises(
        BadInput, match=r"region 'europe-west3': only the prices of us-central1 are built in.*--machines"
    ):
        builtin_machines("europe-west3")
