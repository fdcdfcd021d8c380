"""The extender's settings, all from environment variables, checked before anything starts."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


class SettingsError(ValueError):
    """A setting cannot be used; the text names the variable, its value and what would be right."""


@dataclass(frozen=True, slots=True)
class ExtenderSettings:
    """How the extender runs."""

    bind: str = "127.0.0.1:8888"
    """EXTENDER_BIND, host:port. Loopback: the scheduler stands beside the extender in the same pod."""

    tls_certificate: str = ""
    """EXTENDER_TLS_CERTIFICATE, path of the certificate chain (PEM) that the extender shows. Empty: plain HTTP.
    All TLS files are read again when they change; connections that stand keep what they began with."""

    tls_key: str = ""
    """EXTENDER_TLS_KEY, path of the certificate's private key (PEM, without a password)."""

    tls_client_ca: str = ""
    """EXTENDER_TLS_CLIENT_CA, path of the authorities (PEM) whose certificates clients must show. Needed where
    it listens beyond loopback: whoever may ask can fill targets with pods that do not exist."""

    allowed_clients: tuple[str, ...] = ()
    """EXTENDER_ALLOWED_CLIENTS, names separated by commas: a client's certificate must bear one of them as its
    common name, DNS or URI name. Empty: whoever the authorities signed."""

    serve_anyone: bool = False
    """EXTENDER_SERVE_ANYONE, "yes" to listen beyond loopback without asking clients for a certificate. Something
    else must then keep strangers away, a NetworkPolicy for example."""

    kubeconfig: str = ""
    """EXTENDER_KUBECONFIG, path of a kubeconfig. Empty: the pod's own ServiceAccount."""

    api_server: str = ""
    """EXTENDER_API_SERVER, http://127.0.0.1:PORT of a simulated API server, without authentication;
    loopback only, so that no cluster is ever read in the clear. Empty: not used."""

    reservation_seconds: float = 60.0
    """EXTENDER_RESERVATION_SECONDS, how long a place stays promised to a pod that is not seen bound. A
    binding is seen within a second; the rest is for pods whose volumes must be provisioned first."""

    stale_seconds: float = 120.0
    """EXTENDER_STALE_SECONDS, how long answers rest on a cache whose watch is broken; then every node
    passes. An API server's restart takes about a minute and changes little meanwhile."""

    body_limit_bytes: int = 64 * 1024 * 1024
    """EXTENDER_BODY_LIMIT_BYTES, greatest request. 5,000 whole nodes are 10 MB on kwok, several times more
    on GKE; names alone are 0.2 MB."""

    def __post_init__(self) -> None:
        _check_address(self.bind)
        self._check_tls()
        if self.api_server:
            _check_loopback(self.api_server)
        if self.api_server and self.kubeconfig:
            raise SettingsError("EXTENDER_API_SERVER and EXTENDER_KUBECONFIG are both set; set one of them")
        for variable, value in (
            ("EXTENDER_RESERVATION_SECONDS", self.reservation_seconds),
            ("EXTENDER_STALE_SECONDS", self.stale_seconds),
            ("EXTENDER_BODY_LIMIT_BYTES", self.body_limit_bytes),
        ):
            if not (math.isfinite(value) and value > 0):
                raise SettingsError(f"{variable} must be a number above 0, not {value}")

    def _check_tls(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsError("EXTENDER_TLS_CERTIFICATE and EXTENDER_TLS_KEY belong together; set both or none")
        if self.tls_client_ca and not self.tls_certificate:
            raise SettingsError("EXTENDER_TLS_CLIENT_CA needs EXTENDER_TLS_CERTIFICATE and EXTENDER_TLS_KEY")
        if self.allowed_clients and not self.tls_client_ca:
            raise SettingsError("EXTENDER_ALLOWED_CLIENTS needs EXTENDER_TLS_CLIENT_CA: nobody else proves a name")
        if not (self.tls_client_ca or self.serve_anyone or _is_loopback(self.bind.rpartition(":")[0])):
            raise SettingsError(
                f"EXTENDER_BIND={self.bind} is not loopback, and no client must prove who it is: set "
                "EXTENDER_TLS_CLIENT_CA, or bind to 127.0.0.1, or say EXTENDER_SERVE_ANYONE=yes"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ExtenderSettings:
        """Read the variables that are set; the defaults hold for the others.

        Raises:
            SettingsError: a value cannot be used.
        """
        plain = cls()
        return cls(
            bind=environment.get("EXTENDER_BIND", plain.bind),
            tls_certificate=environment.get("EXTENDER_TLS_CERTIFICATE", plain.tls_certificate),
            tls_key=environment.get("EXTENDER_TLS_KEY", plain.tls_key),
            tls_client_ca=environment.get("EXTENDER_TLS_CLIENT_CA", plain.tls_client_ca),
            allowed_clients=_names(environment, "EXTENDER_ALLOWED_CLIENTS"),
            serve_anyone=_yes(environment, "EXTENDER_SERVE_ANYONE"),
            kubeconfig=environment.get("EXTENDER_KUBECONFIG", plain.kubeconfig),
            api_server=environment.get("EXTENDER_API_SERVER", plain.api_server).rstrip("/"),
            reservation_seconds=_number(environment, "EXTENDER_RESERVATION_SECONDS", plain.reservation_seconds),
            stale_seconds=_number(environment, "EXTENDER_STALE_SECONDS", plain.stale_seconds),
            body_limit_bytes=int(_number(environment, "EXTENDER_BODY_LIMIT_BYTES", plain.body_limit_bytes)),
        )


def _number(environment: Mapping[str, str], variable: str, default: float) -> float:
    text = environment.get(variable)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingsError(f"{variable} must be a number above 0, not {text!r}")
    return number


def _check_address(bind: str) -> None:
    host, colon, port = bind.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise SettingsError(f"EXTENDER_BIND must be host:port such as 127.0.0.1:8888, not {bind!r}")


def _names(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    text = environment.get(variable, "")
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names):
        raise SettingsError(f"{variable} must be names separated by commas, not {text!r}")
    return tuple(names)


def _yes(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "")
    if text not in ("", "yes", "no"):
        raise SettingsError(f"{variable} must be yes or no, not {text!r}")
    return text == "yes"


def _check_loopback(url: str) -> None:
    parts = urlsplit(url)
    try:
        is_loopback = _is_loopback(parts.hostname or "") and parts.port is not None
    except ValueError:
        is_loopback = False
    if parts.scheme != "http" or not is_loopback or parts.path:
        raise SettingsError(f"EXTENDER_API_SERVER must be http://127.0.0.1:PORT (loopback only), not {url!r}")


def _is_loopback(host: str) -> bool:
    """Tell whether an address, in brackets or not, is loopback; of names only localhost surely is."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
