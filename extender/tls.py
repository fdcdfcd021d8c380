"""Mutual TLS: contexts that follow their files, and the names that a client's certificate bears."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from extender.settings import ExtenderSettings, SettingsError

_log: Final = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change of each file, in nanoseconds."""


class Contexts:
    """The context for the next connection: read again when a file has changed, and kept while it cannot be."""

    def __init__(self, settings: ExtenderSettings) -> None:
        """Read the files of the settings.

        Raises:
            SettingsError: a file is missing or is not what its variable says.
        """
        self._settings = settings
        self._lock = threading.Lock()
        self._stamp = _stamp(settings)
        self._refused: _Stamp | None = None
        self._context = _context(settings)

    def current(self) -> ssl.SSLContext:
        """Return the context of the present files.

        Certificate and key are replaced one after the other: what does not fit together yet is tried again
        at the next connection.
        """
        with self._lock:
            try:
                stamp = _stamp(self._settings)
                if stamp != self._stamp:
                    self._context = _context(self._settings)
                    self._stamp, self._refused = stamp, None
                    _log.info("the TLS files were read again")
            except SettingsError as error:
                self._refuse(error)
            return self._context

    def _refuse(self, error: SettingsError) -> None:
        try:
            stamp = _stamp(self._settings)
        except SettingsError:
            stamp = ()
        if stamp != self._refused:
            self._refused = stamp
            _log.warning("%s; the TLS files from before stay in use", error)


def client_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the common names and the DNS and URI names of a certificate as `ssl.SSLSocket.getpeercert` shows it."""
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = {value for key, value in subject if key == "commonName"}
    others = {value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")}
    return frozenset(common | others)


def _stamp(settings: ExtenderSettings) -> _Stamp:
    found = []
    for variable, path in _files(settings).items():
        try:
            status = Path(path).stat()
        except OSError as error:
            raise SettingsError(f"{variable}={path} cannot be read: {error.strerror}") from error
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _files(settings: ExtenderSettings) -> dict[str, str]:
    named = {
        "EXTENDER_TLS_CERTIFICATE": settings.tls_certificate,
        "EXTENDER_TLS_KEY": settings.tls_key,
        "EXTENDER_TLS_CLIENT_CA": settings.tls_client_ca,
    }
    return {variable: path for variable, path in named.items() if path}


def _context(settings: ExtenderSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # The password is asked for on the terminal where none is given; nobody sits there.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"EXTENDER_TLS_CERTIFICATE={settings.tls_certificate} and EXTENDER_TLS_KEY={settings.tls_key} must be a "
            f"certificate chain and its key in PEM, without a password: {error}"
        ) from error
    if settings.tls_client_ca:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"EXTENDER_TLS_CLIENT_CA={settings.tls_client_ca} must be certificates in PEM: {error}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
