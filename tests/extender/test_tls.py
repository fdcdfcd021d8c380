"""Mutual TLS, as gunicorn serves it: who may ask, and files that are replaced while it runs."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from extender.settings import ExtenderSettings, SettingsError
from extender.tls import Contexts, client_names
from tests.extender.building import names_only, node, pod
from tests.extender.certificates import Authority
from tests.extender.fake_api import FakeApi
from tests.extender.serving import launch, listening

ALLOWED = "system:kube-scheduler"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "cluster-ca")


@pytest.fixture
def environment(authority: Authority) -> Iterator[dict[str, str]]:
    certificate, key = authority.issue("extender")
    with FakeApi() as api:
        api.put("nodes", node("a"))
        yield {
            "EXTENDER_API_SERVER": api.url,
            "EXTENDER_BIND": "0.0.0.0:0",
            "EXTENDER_TLS_CERTIFICATE": str(certificate),
            "EXTENDER_TLS_KEY": str(key),
            "EXTENDER_TLS_CLIENT_CA": str(authority.path),
            "EXTENDER_ALLOWED_CLIENTS": f"another, {ALLOWED}",
        }


def ask(port: int, trusted: Path, pair: tuple[Path, Path] | None) -> tuple[int, bytes]:
    """Send a filter request over a new connection with the client certificate."""
    context = ssl.create_default_context(cafile=str(trusted))
    if pair is not None:
        context.load_cert_chain(*pair)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("POST", "/filter", names_only(pod("p"), "a"))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_only_clients_that_the_authority_signed_and_a_setting_names_are_answered(
    authority: Authority, environment: dict[str, str], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another-ca").issue(ALLOWED, file="stranger")
    with listening(environment) as port:
        status, body = ask(port, authority.path, authority.issue(ALLOWED))
        assert (status, json.loads(body)) == (200, {"NodeNames": ["a"]})
        assert ask(port, authority.path, authority.issue("spiffe", uri="another"))[0] == 200
        status, body = ask(port, authority.path, authority.issue("system:node:a"))
        assert status == 403
        reason = "kinema: EXTENDER_ALLOWED_CLIENTS does not name this client (system:node:a)"
        assert json.loads(body) == {"Error": reason}
        for refused in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                ask(port, authority.path, refused)
        # Nobody could refuse service to the others by that.
        assert ask(port, authority.path, authority.issue(ALLOWED))[0] == 200


def test_replaced_files_count_for_the_next_connection(
    authority: Authority, environment: dict[str, str], tmp_path: Path
) -> None:
    with listening(environment) as port:
        before = authority.issue(ALLOWED)
        assert ask(port, authority.path, before)[0] == 200
        (tmp_path / "new").mkdir()
        renewed = Authority(tmp_path / "new", "new-ca")
        for path, text in zip(("extender.crt", "extender.key"), renewed.issue("extender"), strict=True):
            text.replace(tmp_path / path)
        Path(environment["EXTENDER_TLS_CLIENT_CA"]).write_bytes(renewed.path.read_bytes())
        # The server shows the new certificate, and asks for one of the new authority.
        assert ask(port, renewed.path, renewed.issue(ALLOWED))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            ask(port, renewed.path, before)


def test_half_replaced_files_leave_the_ones_from_before(
    authority: Authority, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    contexts = Contexts(ExtenderSettings.from_environment(environment))
    first = contexts.current()
    assert contexts.current() is first
    key = Path(environment["EXTENDER_TLS_KEY"])
    whole = key.read_bytes()
    with caplog.at_level(logging.WARNING):
        for broken in (b"", whole[:60]):
            key.write_bytes(broken)
            assert contexts.current() is first
            assert contexts.current() is first
        key.unlink()
        assert contexts.current() is first
    # Said once for each state of the files.
    assert [text.count("stay in use") for text in caplog.messages] == [1, 1, 1]
    authority.issue("extender")
    assert contexts.current() is not first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"EXTENDER_TLS_CERTIFICATE": "/nowhere/tls.crt"}, "EXTENDER_TLS_CERTIFICATE=/nowhere/tls.crt cannot be read"),
        ({"EXTENDER_TLS_KEY": __file__}, f"EXTENDER_TLS_KEY={__file__} must be a certificate chain and its key"),
        ({"EXTENDER_TLS_CLIENT_CA": __file__}, f"EXTENDER_TLS_CLIENT_CA={__file__} must be certificates in PEM"),
    ],
)
def test_files_that_cannot_be_used_end_it_with_2_and_one_line(
    environment: dict[str, str], changes: dict[str, str], reason: str
) -> None:
    process = launch({**environment, **changes})
    said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 2
    assert said.startswith("kinema extender: ")
    assert reason in said
    assert said.count("\n") == 1


def test_a_key_with_a_password_is_refused_instead_of_asking_for_it(
    authority: Authority, environment: dict[str, str]
) -> None:
    secret = Path(environment["EXTENDER_TLS_KEY"])
    loaded = serialization.load_pem_private_key(secret.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    secret.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(SettingsError, match="without a password"):
        Contexts(ExtenderSettings.from_environment(environment))


def test_every_kind_of_name_counts() -> None:
    certificate = {
        "subject": ((("organizationName", "system:masters"),), (("commonName", "cn"),)),
        "subjectAltName": (("DNS", "dns"), ("URI", "uri"), ("IP Address", "10.0.0.1")),
    }
    assert client_names(certificate) == {"cn", "dns", "uri"}
    assert client_names({}) == frozenset()
