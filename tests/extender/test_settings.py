"""Settings come from the environment and nonsense is refused by name."""

from __future__ import annotations

import pytest

from extender.settings import ExtenderSettings, SettingsError


def test_without_variables_the_defaults_hold() -> None:
    assert ExtenderSettings.from_environment({}) == ExtenderSettings()
    assert ExtenderSettings().bind == "127.0.0.1:8888"


def test_every_variable_is_read() -> None:
    environment = {
        "EXTENDER_BIND": "[::1]:9000",
        "EXTENDER_API_SERVER": "http://127.0.0.1:8001/",
        "EXTENDER_RESERVATION_SECONDS": "5",
        "EXTENDER_STALE_SECONDS": "7.5",
        "EXTENDER_BODY_LIMIT_BYTES": "1000",
    }
    expected = ExtenderSettings("[::1]:9000", "", "http://127.0.0.1:8001", 5.0, 7.5, 1000)
    assert ExtenderSettings.from_environment(environment) == expected
    assert ExtenderSettings.from_environment({"EXTENDER_KUBECONFIG": "/k"}).kubeconfig == "/k"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EXTENDER_BIND", "8888"),
        ("EXTENDER_BIND", "127.0.0.1:http"),
        ("EXTENDER_BIND", "127.0.0.1:70000"),
        ("EXTENDER_API_SERVER", "http://10.0.0.1:8001"),
        ("EXTENDER_API_SERVER", "https://127.0.0.1:8001"),
        ("EXTENDER_API_SERVER", "http://localhost"),
        ("EXTENDER_API_SERVER", "http://127.0.0.1"),
        ("EXTENDER_API_SERVER", "http://127.0.0.1:99999"),
        ("EXTENDER_RESERVATION_SECONDS", "0"),
        ("EXTENDER_RESERVATION_SECONDS", "-1"),
        ("EXTENDER_STALE_SECONDS", "nan"),
        ("EXTENDER_STALE_SECONDS", "soon"),
        ("EXTENDER_BODY_LIMIT_BYTES", "inf"),
    ],
)
def test_nonsense_is_refused_with_the_variable_and_the_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        ExtenderSettings.from_environment({variable: value})
    assert variable in str(refusal.value)
    assert value.removeprefix("-") in str(refusal.value)


def test_two_sources_of_the_cluster_are_one_too_many() -> None:
    with pytest.raises(SettingsError, match="EXTENDER_API_SERVER and EXTENDER_KUBECONFIG"):
        ExtenderSettings(api_server="http://127.0.0.1:1", kubeconfig="/k")
