"""Settings from a file and the environment, and each fault of them in one line."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from planner.configuration import describe, load_settings
from planner.errors import BadSettings
from planner.settings import Settings


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return str(path)


def refusal(tmp_path: Path, text: str) -> str:
    path = written(tmp_path, text)
    with pytest.raises(BadSettings) as caught:
        load_settings(path, {})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def window(*changes: str) -> str:
    """Return settings with a window for each change of a right one; the names differ where no change says one."""
    windows = []
    for index, change in enumerate(changes):
        right = {"name": f"w{index}", "when": "Mon-Fri 06:30-20:30 Europe/Berlin", "cpu_utilization_cap": 0.7}
        windows.append(right | yaml.safe_load(change))
    return yaml.safe_dump({"objective": {"windows": windows}})


def test_without_file_and_environment_the_defaults_hold_and_nothing_acts() -> None:
    found = load_settings(None, {"HOME": "/x"})
    assert found == Settings()
    assert (found.mode, found.cloud.provider, found.cloud.pools) == ("recommend", "none", ())


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, ""), {}) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "mode: apply\noptimizer: {solver: GLPK_MI, payback_hours: 48}\n")
    found = load_settings(path, {"KINEMA_OPTIMIZER_SOLVER": "HIGHS", "KINEMA_CLOUD_POOLS": " a, b,,"})
    assert found.mode == "apply"
    assert (found.optimizer.solver, found.optimizer.payback_hours) == ("HIGHS", 48)
    assert found.cloud.pools == ("a", "b")


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("KINEMA_OPTIMISER_SOLVER", "did you mean KINEMA_OPTIMIZER_SOLVER?"),
        ("KINEMA_MODUS", "did you mean KINEMA_MODE?"),
        ("KINEMA_XYZ", "`kinema settings` prints all settings, and optimizer.solver is KINEMA_OPTIMIZER_SOLVER"),
        ("KINEMA_WEB_PORT", "did you mean "),  # of a Service only where KINEMA_WEB_SERVICE_HOST stands beside it
    ],
)
def test_a_variable_that_is_no_setting_is_named(variable: str, says: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings(None, {variable: "1", "KINEMA_MODE": "apply"})
    assert str(caught.value).startswith(f"the environment: unknown variable {variable}; {says}")


def test_variables_of_other_programs_and_of_services_are_no_settings() -> None:
    # What the kubelet sets in each pod of a namespace with the Service kinema-web.
    service = {
        "KINEMA_WEB_SERVICE_HOST": "10.96.0.7",
        "KINEMA_WEB_SERVICE_PORT": "8080",
        "KINEMA_WEB_SERVICE_PORT_HTTP": "8080",
        "KINEMA_WEB_PORT": "tcp://10.96.0.7:8080",
        "KINEMA_WEB_PORT_8080_TCP": "tcp://10.96.0.7:8080",
        "KINEMA_WEB_PORT_8080_TCP_PROTO": "tcp",
        "KINEMA_WEB_PORT_8080_TCP_PORT": "8080",
        "KINEMA_WEB_PORT_8080_TCP_ADDR": "10.96.0.7",
    }
    others = {"KINEMA_SETTINGS": "/x.yaml", "KINEMA_CACHE": "/x", "KINEMA_TRACE": "/x.csv", "EXTENDER_BIND": "x"}
    assert load_settings(None, service | others) == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25), ("'90'", 90.0), ("7", 7.0)]
)
def test_durations_are_seconds_or_text_with_units(tmp_path: Path, text: str, seconds: float) -> None:
    path = written(tmp_path, f"interval_seconds: {text}")
    assert load_settings(path, {}).interval_seconds == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "must be a mapping of settings, not list"),
        ("a: [", "is no YAML: "),
        ("modus: apply", "unknown setting modus; known: "),
        ("optimizer: {solvr: HIGHS}", "unknown setting optimizer.solvr; known: "),
        ("optimizer: fast", "optimizer must be a mapping, not 'fast'"),
        ("mode: maybe", "mode must be one of recommend, apply, not 'maybe'"),
        ("optimizer: {payback_hours: 1.5}", "optimizer.payback_hours must be a whole number, not 1.5"),
        ("predictor: {margin: much}", "predictor.margin must be a number, not 'much'"),
        ("move: {pin_local_storage: maybe}", "move.pin_local_storage must be true or false, not 'maybe'"),
        ("cloud: {pools: [1]}", "cloud.pools must be a list of texts, not [1]"),
        ("interval_seconds: soon", "interval_seconds must be seconds or a duration such as 15m, not 'soon'"),
        ("interval_seconds: 5 m", "interval_seconds must be seconds or a duration such as 15m, not '5 m'"),
        ("interval_seconds: .nan", "interval_seconds must be a finite number, not nan"),
        ("interval_seconds: 'inf'", "interval_seconds must be a finite number, not 'inf'"),
        ("interval_seconds: 0", "interval_seconds must be above 0, not 0"),
        ("metrics_port: 70000", "metrics_port must be between 0 and 65535"),
        ("optimizer: {move_cost_usd: .nan}", "optimizer.move_cost_usd must be a finite number, not nan"),
        ("optimizer: {move_cost_usd: -1}", "optimizer.move_cost_usd must be between 0 and 1000"),
        ("processor: {churn_limit: 0}", "processor.churn_limit must be above 0, at most 1"),
        ("move: {unavailability_ceiling: 1.5}", "move.unavailability_ceiling must be above 0, at most 1"),
        ("move: {max_nodes_changed: -1}", "move.max_nodes_changed must be 0 or more, not -1"),
        ("limits: {nodes: -1}", "limits.nodes must be 0 or more, not -1"),
        ("limits: {cpu: much}", "limits.cpu must be a quantity above 0 such as 100 or 64000m, not 'much'"),
        ("limits: {memory: 0}", "limits.memory must be a quantity above 0 such as 400Gi, not '0'"),
        ("spot: {workloads: a b}", "spot.workloads must be a label selector such as \"tier in (batch)\", not 'a b'"),
        (
            "spot: {max_share: 0.0001}",
            "spot.max_share must be between 0 and 1, with at most three decimals, not 0.0001",
        ),
        ("predictor: {kind: regression}", "predictor.prometheus_url must be set, for regression"),
        ("cloud: {provider: gcp, project: p, location: z}", "cloud.cluster must be set, for provider gcp"),
        ("web: {bind: nowhere}", "web.bind must be host:port"),
        ("processor: {relief_threshold: -1}", "processor.relief_threshold must be between 0 and 10, not -1"),
        ("objective: {windows: 3}", "objective.windows must be a list of mappings, each with name, when, cpu_"),
        ("objective: {windows: [office]}", "objective.windows must be a list of mappings, each with name, when, cpu_"),
        ("objective: {windows: [{name: a}]}", "objective.windows[0].when must be set"),
        (window("{size: 1}"), "unknown setting objective.windows[0].size; known: name, when, cpu_utilization_cap"),
        (window("{name: cost}"), "objective.windows[0].name must be a name other than cost, not 'cost'"),
        (window("{name: 7}"), "objective.windows[0].name must be a text, not 7"),
        (
            window("{name: later}", "{name: later}"),
            "objective.windows[1].name must be one that no earlier window has, ",
        ),
        (
            window("{name: later}", "{when: Mon-Fri 06:30-20:30}"),
            'objective.windows[1].when must be such as "Mon-Fri 06:30-20:30 Europe/Berlin" (it is not of this shape), '
            "not 'Mon-Fri 06:30-20:30'",
        ),
        (window("{cpu_utilization_cap: 70%}"), "objective.windows[0].cpu_utilization_cap must be a number, not '70%'"),
        (
            window("{cpu_utilization_cap: 70}"),
            "objective.windows[0].cpu_utilization_cap must be above 0, at most 1, with at most three decimals, not 70",
        ),
        (window("{cpu_utilization_cap: .nan}"), "objective.windows[0].cpu_utilization_cap must be above 0, at most 1"),
        (window("{cpu_utilization_cap: 0}"), "objective.windows[0].cpu_utilization_cap must be above 0, at most 1"),
    ],
)
def test_a_bad_setting_names_file_setting_and_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    assert refusal(tmp_path, text).startswith(says)


def test_a_bad_variable_is_named_as_the_setting_that_it_is() -> None:
    with pytest.raises(BadSettings, match=r"^the environment: interval_seconds must be seconds or a duration"):
        load_settings(None, {"KINEMA_INTERVAL_SECONDS": "soon"})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"/absent: cannot be read: "):
        load_settings(str(tmp_path / "absent"), {})


def test_described_settings_have_the_shape_of_the_file() -> None:
    found = describe(Settings())
    assert list(found) == [field.name for field in dataclasses.fields(Settings)]
    assert found["optimizer"]["solver"] == "HIGHS"


def test_limits_are_quantities_as_kubernetes_writes_them(tmp_path: Path) -> None:
    found = load_settings(written(tmp_path, "limits: {cpu: 100, memory: 1.5Gi}"), {"KINEMA_LIMITS_NODES": "7"}).limits
    assert (found.nodes, found.cpu_millicores, found.memory_bytes) == (7, 100_000, 1_610_612_736)
    assert (Settings().limits.cpu_millicores, Settings().limits.memory_bytes) == (None, None)
    assert load_settings(written(tmp_path, "spot: {max_share: 0.125}"), {}).spot.max_share_permille == 125


def test_of_windows_that_overlap_the_first_counts_and_outside_of_all_the_cost() -> None:
    text = """
    - {name: rush, when: Mon-Fri 08:00-10:00 Europe/Berlin, cpu_utilization_cap: 0.5}
    - {name: day, when: Mon-Fri 06:30-20:30 Europe/Berlin, cpu_utilization_cap: 0.7}
    """
    found = load_settings(None, {"KINEMA_OBJECTIVE_WINDOWS": text}).objective
    monday = datetime.fromisoformat("2026-11-23T00:00+01:00").timestamp()
    names = {hour: found.window_at(monday + 3600 * hour) for hour in (6, 7, 8, 9.99, 10, 20, 21)}
    assert {hour: chosen and (chosen.name, chosen.cap_permille) for hour, chosen in names.items()} == {
        6: None,
        7: ("day", 700),
        8: ("rush", 500),
        9.99: ("rush", 500),
        10: ("day", 700),
        20: ("day", 700),
        21: None,
    }


def test_described_windows_are_settings_again(tmp_path: Path) -> None:
    found = load_settings(written(tmp_path, window("{}", "{cpu_utilization_cap: 0.125}")), {})
    assert [w.cap_permille for w in found.objective.windows] == [700, 125]
    assert load_settings(written(tmp_path, yaml.safe_dump(describe(found))), {}) == found


def test_a_variable_that_is_no_yaml_is_named() -> None:
    with pytest.raises(BadSettings, match=r"^the environment: KINEMA_OBJECTIVE_WINDOWS is no YAML: "):
        load_settings(None, {"KINEMA_OBJECTIVE_WINDOWS": "a: ["})
