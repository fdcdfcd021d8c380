"""The user's tables of machine types and pools, and each fault of them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.cloud.tables import Pool, catalogue, read_machines, read_pools, with_rules
from planner.errors import BadInput
from planner.model.machines import Catalogue, MachineType, SpotRule, TotalLimits
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, Requirement, Taint
from planner.settings import LimitsSettings, Settings, SpotSettings
from tests.building import node, snapshot

HEADER = "machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour"
OPTIONAL = "spot_price_usd_per_hour,zones,arch,ephemeral_storage_bytes,extended_resources"


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "machines.csv"
    path.write_text(text)
    return str(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(BadInput) as caught:
        read_machines(table(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path}/machines.csv: ")
    return message.removeprefix(f"{tmp_path}/machines.csv: ")


def test_the_required_columns_are_enough_in_any_order(tmp_path: Path) -> None:
    text = (
        "\ufeffprice_usd_per_hour, max_pods,memory_bytes,cpu_millicores,machine_type,note\n0.134,110,1000,3920,m4,x\n\n"
    )
    # 0.134 USD = 134,000,000 nanodollars
    assert read_machines(table(tmp_path, text)) == {"m4": MachineType("m4", Resources(3920, 1000, 110), 134_000_000)}


def test_every_optional_column_is_read(tmp_path: Path) -> None:
    text = f"{HEADER},{OPTIONAL}\ng4,4000,1000,64,1.000000001,0.3,a b a,arm64,77,nvidia.com/gpu=2 example.com/x=0\n"
    assert read_machines(table(tmp_path, text))["g4"] == MachineType(
        name="g4",
        allocatable=Resources(4000, 1000, 64, 77, (("nvidia.com/gpu", 2),)),
        price_nanousd_per_hour=1_000_000_001,
        spot_price_nanousd_per_hour=300_000_000,
        zones=("a", "b"),
        arch="arm64",
    )


def test_a_machine_may_be_sold_as_spot_only(tmp_path: Path) -> None:
    text = f"{HEADER},spot_price_usd_per_hour\nm4,1,1,1,,0.1\nm8,1,1,1,0.2,\n"
    found = read_machines(table(tmp_path, text))
    assert [(m.price("on-demand"), m.price("spot")) for m in found.values()] == [
        (None, 100_000_000),
        (200_000_000, None),
    ]


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ("-0.1", "an amount between 0 and 1000000 USD, not '-0.1'"),
        ("NaN", "an amount between 0 and 1000000 USD, not 'NaN'"),
        ("inf", "an amount between 0 and 1000000 USD, not 'inf'"),
        ("1e99", "an amount between 0 and 1000000 USD, not '1e99'"),
        ("cheap", "an amount such as 0.134, not 'cheap'"),
        ("0.1$", "an amount such as 0.134, not '0.1$'"),
        ("1_0", "an amount such as 0.134, not '1_0'"),
        ("0.1234567891", "an amount with at most 9 decimals, not '0.1234567891'"),
        ("", "an amount such as 0.134 (drop the line if the machine is not sold), not empty"),
    ],
)
def test_a_bad_price_names_line_column_and_value(tmp_path: Path, price: str, says: str) -> None:
    text = f"{HEADER}\nm4,1,1,1,0.1\nm8,1,1,1,{price}\n"
    assert refusal(tmp_path, text) == f"line 3: price_usd_per_hour must be {says}"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            "m4,x,1,1,1",
            "line 2: cpu_millicores must be a whole number of 1 or more, at most 9223372036854775807, not 'x'",
        ),
        (
            "m4,1.5,1,1,1",
            "line 2: cpu_millicores must be a whole number of 1 or more, at most 9223372036854775807, not '1.5'",
        ),
        (
            "m4,1,16Gi,1,1",
            "line 2: memory_bytes must be a whole number of 1 or more, at most 9223372036854775807, not '16Gi'",
        ),
        ("m4,1,1,0,1", "line 2: max_pods must be a whole number of 1 or more, at most 9223372036854775807, not '0'"),
        (
            "m4,9223372036854775808,1,1,1",
            "line 2: cpu_millicores must be a whole number of 1 or more, at most 9223372036854775807, "
            "not '9223372036854775808'",
        ),
        ("m4,1,1,,1", "line 2: max_pods must be a whole number of 1 or more, at most 9223372036854775807, not empty"),
        (",1,1,1,1", "line 2: machine_type must be a name such as e2-standard-4, not empty"),
        ("m4,1,1,1", "line 2: has not as many values as there are columns"),
        ("m4,1,1,1,1,1", "line 2: has not as many values as there are columns"),
        ("m4,1,1,1,1\nm4,1,1,1,1", "line 3: machine_type must be a type that no earlier line has, not 'm4'"),
    ],
)
def test_a_bad_row_names_line_column_and_value(tmp_path: Path, row: str, says: str) -> None:
    assert refusal(tmp_path, f"{HEADER}\n{row}\n") == says


def test_a_number_of_more_digits_than_python_reads_is_refused(tmp_path: Path) -> None:
    assert "cpu_millicores must be a whole number" in refusal(tmp_path, f"{HEADER}\nm4,{'9' * 5000},1,1,1\n")


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("gpu:1", "pairs such as nvidia.com/gpu=1"),
        ("gpu=-1", "pairs such as nvidia.com/gpu=1"),
        ("gpu=1 gpu=2", "resources that have no column of their own, each once"),
        ("memory_bytes=1", "resources that have no column of their own, each once"),
        ("cpu=1", "resources that have no column of their own, each once"),
    ],
)
def test_bad_extended_resources_are_named(tmp_path: Path, value: str, right: str) -> None:
    text = f"{HEADER},extended_resources\nm4,1,1,1,1,{value}\n"
    assert refusal(tmp_path, text) == f"line 2: extended_resources must be {right}, not {value!r}"


def test_a_missing_or_doubled_column_is_named(tmp_path: Path) -> None:
    missing = "line 1: the column price_usd_per_hour is missing; needed are "
    assert refusal(tmp_path, "machine_type,cpu_millicores,memory_bytes,max_pods\n").startswith(missing)
    assert refusal(tmp_path, "").startswith("line 1: the column machine_type is missing; needed are ")
    assert refusal(tmp_path, f"{HEADER},max_pods\n").startswith("line 1: a column is there twice: ")


def test_a_table_without_machines_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, f"{HEADER}\n").startswith("holds no machine type")


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/absent: cannot be read: "):
        read_machines(str(tmp_path / "absent"))
    with pytest.raises(BadInput, match=rf"^{tmp_path}: cannot be read: Is a directory$"):
        read_machines(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"m\xff")
    with pytest.raises(BadInput, match=r"/binary: cannot be read: is no text in UTF-8 \(byte 1\)$"):
        read_machines(str(tmp_path / "binary"))


M4 = MachineType("m4", Resources(4000, 100, 110), 200, 80)
M8 = MachineType("m8", Resources(8000, 200, 110), 400, zones=("zone-b", "zone-c"))
SPOT_ONLY = MachineType("s4", Resources(4000, 100, 110), None, 90)
MACHINES = {m.name: m for m in (M4, M8, SPOT_ONLY)}


def pools(tmp_path: Path, text: str) -> tuple[Pool, ...]:
    path = tmp_path / "pools.yaml"
    path.write_text(text)
    return read_pools(str(path), MACHINES)


def test_pools_are_read_from_a_list_or_under_their_name(tmp_path: Path) -> None:
    text = """
- name: web
  machineType: m4
- name: batch
  machineType: m4
  capacityType: spot
  zones: [zone-a, zone-b, zone-a]
  min: 1
  max: 5
  labels: {team: data}
  taints: [{key: batch, value: "yes", effect: NoSchedule}, {key: x, effect: NoExecute}]
"""
    found = pools(tmp_path, text)
    assert found == (
        Pool("web", "m4"),
        Pool(
            "batch",
            "m4",
            "spot",
            ("zone-a", "zone-b"),
            1,
            5,
            {"team": "data"},
            (Taint("batch", "yes", "NoSchedule"), Taint("x", "", "NoExecute")),
        ),
    )
    assert pools(tmp_path, "pools:" + text) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a list of node pools"),
        ("[]", "must be a list of node pools"),
        ("{a: 1}", "must be a list of node pools"),
        ("[{name: a", "line 1, column 10: is no YAML: expected ',' or '}', but got '<stream end>'"),
        ("[3]", "pools[0]: it is 3: expected `object`, got `int`"),
        ("[{machineType: m4}]", "pools[0]: the field name is missing"),
        ("[{name: ''}]", "pools[0]: the field machineType is missing"),
        ("[{name: '', machineType: m4}]", "pools[0]: name must not be empty"),
        ("[{name: web}]", "pool 'web': the field machineType is missing"),
        (
            "[{name: web, machineType: m5}]",
            "pool 'web': machineType must be one of the machine types (m4, m8, s4), not 'm5'",
        ),
        ("[{name: web, machineType: m4, min: -1}]", "pool 'web': min must be 0 or more, not -1"),
        ("[{name: web, machineType: m4, min: 3, max: 2}]", "pool 'web': max must be at least min (3), not 2"),
        ("[{name: web, machineType: m4, max: many}]", "pool 'web': max is \"many\": expected `int | null`, got `str`"),
        ("[{name: web, machineType: m4, maximum: 2}]", "pool 'web': it is "),
        (
            "[{name: web, machineType: m4, capacityType: cheap}]",
            "pool 'web': capacityType must be one of on-demand, spot, not \"cheap\"",
        ),
        ("[{name: web, machineType: m4, 2024-01-01: x}]", "pool 'web': it is {"),
        ("[{name: web, machineType: m4, max: 100001}]", "pool 'web': max must be at most 100000, not 100001"),
        ("[{name: web, machineType: m4, labels: {a: true}}]", "pool 'web': labels.a is true: expected `str`"),
        (
            "[{name: web, machineType: m4, taints: [{key: a, effect: no}]}]",
            "pool 'web': taints[0].effect must be one of NoExecute, NoSchedule, PreferNoSchedule, not false",
        ),
        ("[{name: a, machineType: m4}, {name: a, machineType: m4}]", "pool 'a': name must be one that no earlier pool"),
    ],
)
def test_a_bad_pool_names_file_pool_field_and_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        pools(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/pools.yaml: {says}")
    assert "\n" not in str(caught.value)


def test_without_pools_every_machine_type_is_offered_in_every_zone_without_limit() -> None:
    cluster = snapshot([node("a", zone="zone-a"), node("b", zone="zone-b")])
    found = catalogue(MACHINES, None, cluster)
    assert [(o.pool, o.machine_type, o.zone, o.capacity_type, o.price_nanousd_per_hour) for o in found.offerings] == [
        ("m4", "m4", "zone-a", "on-demand", 200),
        ("m4", "m4", "zone-b", "on-demand", 200),
        ("m8", "m8", "zone-b", "on-demand", 400),  # its own zones, not the cluster's
        ("m8", "m8", "zone-c", "on-demand", 400),
    ]
    assert all((o.minimum, o.maximum) == (0, None) for o in found.offerings)
    assert found.managed_pools is None
    assert found.price(node("a", "m8")) == 400


def test_a_fresh_nodes_labels_follow_from_what_is_known() -> None:
    region = {"topology.kubernetes.io/region": "somewhere"}
    cluster = snapshot([node("a", zone="odd", labels=region), node("b", zone="europe-west3-a")])
    found = {o.zone: o for o in catalogue({"m4": M4}, None, cluster).offerings}
    assert found["odd"].labels["topology.kubernetes.io/region"] == "somewhere"
    assert found["europe-west3-a"].labels == {
        "node.kubernetes.io/instance-type": "m4",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": "europe-west3-a",
        "topology.kubernetes.io/region": "europe-west3",
    }


def test_without_any_zone_there_is_one_offering_in_the_zone_without_a_name() -> None:
    (found,) = catalogue({"m4": M4}, None, snapshot()).offerings
    assert found.zone == ""
    assert "topology.kubernetes.io/zone" not in found.labels


def test_pools_bound_what_is_offered_and_name_what_is_managed() -> None:
    given = (
        Pool("spot", "m4", "spot", ("zone-a",), 1, 5, {"team": "data"}, (Taint("t", "", "NoSchedule"),)),
        Pool("unpriced", "m8", "spot", ("zone-b",)),
    )
    found = catalogue(MACHINES, given, snapshot())
    (offered,) = found.offerings
    assert (offered.pool, offered.capacity_type, offered.price_nanousd_per_hour) == ("spot", "spot", 80)
    assert (offered.minimum, offered.maximum, offered.taints) == (1, 5, (Taint("t", "", "NoSchedule"),))
    assert offered.labels["cloud.google.com/gke-nodepool"] == "spot"
    assert offered.labels["cloud.google.com/gke-spot"] == "true"
    assert offered.labels["team"] == "data"
    assert found.managed_pools == {"spot", "unpriced"}


WEB = "pools: [{name: web, machineType: m4}]\n"


def rules(tmp_path: Path, text: str, settings: Settings | None = None) -> Catalogue:
    path = tmp_path / "pools.yaml"
    path.write_text(text)
    read_pools(str(path), MACHINES)
    return with_rules(Catalogue({}, ()), settings or Settings(), str(path))


def test_limits_and_spot_stand_beside_the_pools(tmp_path: Path) -> None:
    text = f"{WEB}limits: {{nodes: 5, cpu: 100, memory: 1.5Gi}}\nspot: {{workloads: tier in (batch), maxShare: 0.3}}"
    found = rules(tmp_path, text)
    # 100 CPU are 100,000 millicores, 1.5 Gi are 1,610,612,736 bytes.
    assert found.total == TotalLimits(5, 100_000, 1_610_612_736)
    assert found.spot == SpotRule(LabelSelector((Requirement("tier", "In", ("batch",)),)), 300)


def test_a_list_of_pools_has_no_limits_of_its_own(tmp_path: Path) -> None:
    found = rules(tmp_path, "[{name: web, machineType: m4}]")
    assert (found.total, found.spot) == (TotalLimits(), SpotRule())


def test_limits_of_the_pools_win_over_those_of_the_settings_key_by_key(tmp_path: Path) -> None:
    settings = Settings(limits=LimitsSettings(nodes=9, cpu="7"), spot=SpotSettings("tier=batch", 0.5))
    assert with_rules(Catalogue({}, ()), settings).total == TotalLimits(9, 7000, None)
    found = rules(tmp_path, f"{WEB}limits: {{nodes: 5}}\nspot: {{maxShare: 0}}", settings)
    assert found.total == TotalLimits(5, 7000, None)
    assert found.spot == SpotRule(LabelSelector((Requirement("tier", "In", ("batch",)),)), 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limit: {nodes: 5}", "limit is unknown; a mapping has pools, limits, spot"),
        ("limits: 5", "limits: it is 5: expected `object`, got `int`"),
        ("limits: {node: 5}", "limits: it is "),
        ("limits: {nodes: 0}", "limits.nodes must be 1 or more, not 0"),
        ("limits: {nodes: many}", 'limits: nodes is "many": expected `int | null`, got `str`'),
        ("limits: {cpu: much}", "limits.cpu must be a quantity above 0 such as 100 or 64000m, not 'much'"),
        ("limits: {memory: 0}", "limits.memory must be a quantity above 0 such as 400Gi, not 0"),
        ("spot: {workloads: tier is batch}", "spot.workloads must be a label selector such as "),
        ("spot: {maxShare: 1.5}", "spot.maxShare must be between 0 and 1, with at most three decimals, not 1.5"),
        ("spot: {maxShare: 0.0005}", "spot.maxShare must be between 0 and 1, with at most three decimals, not 0.0005"),
        ("spot: {maxShare: .nan}", "spot.maxShare must be between 0 and 1, with at most three decimals, not nan"),
    ],
)
def test_a_bad_rule_names_file_field_and_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        rules(tmp_path, WEB + text)
    assert str(caught.value).startswith(f"{tmp_path}/pools.yaml: {says}")
    assert "\n" not in str(caught.value)
