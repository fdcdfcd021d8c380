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
    expected = ExtenderSettings(
        bind="[::1]:9000",
        api_server="http://127.0.0.1:8001",
        reservation_seconds=5.0,
        stale_seconds=7.5,
        body_limit_bytes=1000,
    )
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


TLS = {"EXTENDER_TLS_CERTIFICATE": "/tls.crt", "EXTENDER_TLS_KEY": "/tls.key", "EXTENDER_TLS_CLIENT_CA": "/ca.crt"}


def test_tls_and_the_names_of_clients_are_read() -> None:
    environment = {**TLS, "EXTENDER_ALLOWED_CLIENTS": "a, b", "EXTENDER_BIND": "0.0.0.0:1"}
    settings = ExtenderSettings.from_environment(environment)
    assert (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) == ("/tls.crt", "/tls.key", "/ca.crt")
    assert settings.allowed_clients == ("a", "b")


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "extender:1"])
def test_beyond_loopback_it_serves_nobody_unknown_unless_told_so(bind: str) -> None:
    plain = {"EXTENDER_BIND": bind}
    own = {key: value for key, value in TLS.items() if "CLIENT" not in key}
    for environment in (plain, {**plain, **own}, {**plain, "EXTENDER_SERVE_ANYONE": "no"}):
        with pytest.raises(SettingsError, match=r"EXTENDER_BIND=.* is not loopback"):
            ExtenderSettings.from_environment(environment)
    for environment in ({**plain, **TLS}, {**plain, "EXTENDER_SERVE_ANYONE": "yes"}):
        assert ExtenderSettings.from_environment(environment).bind == bind


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback_needs_no_certificates(bind: str) -> None:
    assert ExtenderSettings.from_environment({"EXTENDER_BIND": bind}).bind == bind


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"EXTENDER_TLS_KEY": "/k"}, "belong together"),
        ({"EXTENDER_TLS_CERTIFICATE": "/c"}, "belong together"),
        ({"EXTENDER_TLS_CLIENT_CA": "/ca"}, "EXTENDER_TLS_CLIENT_CA needs EXTENDER_TLS_CERTIFICATE"),
        ({"EXTENDER_ALLOWED_CLIENTS": "a"}, "EXTENDER_ALLOWED_CLIENTS needs EXTENDER_TLS_CLIENT_CA"),
        ({**TLS, "EXTENDER_ALLOWED_CLIENTS": "a,,b"}, "names separated by commas, not 'a,,b'"),
        ({"EXTENDER_SERVE_ANYONE": "true"}, "EXTENDER_SERVE_ANYONE must be yes or no, not 'true'"),
    ],
)
def test_half_of_a_configuration_is_refused(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        ExtenderSettings.from_environment(environment)
