"""A real control plane on loopback: etcd, apiserver, controller manager, schedulers, and kwok as every kubelet."""

from __future__ import annotations

import base64
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.controlplane.admin import Admin
from tests.controlplane.build import Binaries
from tests.controlplane.kwok import FAKE_NODE, write_stages
from tests.controlplane.processes import LOOPBACK, ControlPlaneError, Process, answers_200, free_port, spawn

Json = dict[str, Any]

START_TIMEOUT_SECONDS: Final = 90.0
"""Everything is healthy after five seconds on idle cores; a loaded machine gets much longer."""

TOKEN_LIFETIME_SECONDS: Final = 24 * 3600
"""Longer than any test, and than a person's look at a cluster that was left up."""

CONTROLLERS: Final = (
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
)


class ControlPlane(Admin):
    """A context manager: a healthy cluster without nodes and without a scheduler inside, nothing left after.

    Start it from a thread that outlives it: on Linux the programs die with the thread that started them, so
    that a killed test run leaves nothing behind.
    """

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        """Prepare a control plane that keeps data, keys and logs in `folder` (created if missing)."""
        self._tokens = {
            user: secrets.token_hex(16) for user in ("admin", "system:kube-scheduler", "system:kube-controller-manager")
        }
        super().__init__(binaries, folder, f"https://{LOOPBACK}:{free_port()}", self._tokens["admin"])
        self.logs = folder / "logs"
        self._processes: list[Process] = []
        self._schedulers: list[Process] = []
        self._arguments_of: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        """Start everything but schedulers and return once all of it is healthy."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every program, whatever happened inside."""
        self.stop()

    def stop(self) -> None:
        """Kill every program at once: their data goes with the folder, so nobody needs a graceful end."""
        started = (*self._schedulers, *reversed(self._processes))
        for process in started:
            if process.running():
                os.killpg(process.popen.pid, signal.SIGKILL)
        for process in started:
            process.popen.wait()

    def stop_controllers(self) -> None:
        """End the controller manager and kwok: from now on only schedulers and the caller change objects."""
        controllers = [process for process in self._processes if process.name in ("kube-controller-manager", "kwok")]
        for process in controllers:
            process.stop()
            self._processes.remove(process)

    @contextmanager
    def without_apiserver(self) -> Iterator[None]:
        """Kill the API server, and start it again on its port and with its data at the end."""
        (gone,) = (process for process in self._processes if process.name == "kube-apiserver")
        self._processes.remove(gone)
        os.killpg(gone.popen.pid, signal.SIGKILL)
        gone.popen.wait()
        yield
        again = self._launch(gone.name, *self._arguments_of[gone.name])
        self._healthy(again, f"{self.server}/readyz", token=self._tokens["admin"])

    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of all programs that run."""
        started = (*self._processes, *self._schedulers)
        return tuple(process.popen.pid for process in started if process.running())

    # Schedulers

    def start_scheduler(
        self,
        configuration: Mapping[str, Any] | Path | None = None,
        *,
        extender_url: str | None = None,
        kubeconfig: Path | None = None,
    ) -> Process:
        """Start a kube-scheduler and return once it is ready; several with different scheduler names may run.

        `configuration` is a KubeSchedulerConfiguration, as values or as a file; None is the default scheduler.
        Its client connection is pointed at this control plane, and its extenders at `extender_url` where that
        is given. Leader election is off unless the configuration asks for it. `kubeconfig` is the scheduler's
        identity (see `kubeconfig_for`), by default system:kube-scheduler.
        """
        if isinstance(configuration, Path):
            wanted: Mapping[str, Any] = yaml.safe_load(configuration.read_text())
        else:
            wanted = configuration or {}
        config: Json = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            **wanted,
        }
        if extender_url is not None:
            if not config.get("extenders"):
                raise ValueError("the configuration has no extender that could be at the URL")
            config["extenders"] = [{**item, "urlPrefix": extender_url} for item in config["extenders"]]
        identity = kubeconfig or self._static_kubeconfig("system:kube-scheduler")
        config["clientConnection"] = {
            "qps": 500,
            "burst": 1000,
            **config.get("clientConnection", {}),
            "kubeconfig": str(identity),
        }
        profiles = config.get("profiles") or [{}]
        name = self._unused_name(f"scheduler-{profiles[0].get('schedulerName', 'default-scheduler')}")
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        port = free_port()
        process = self._spawn(
            name,
            "kube-scheduler",
            f"--config={path}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
        )
        self._schedulers.append(process)
        self._healthy(process, f"https://{LOOPBACK}:{port}/readyz")
        return process

    # Identities

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """Return a kubeconfig with a real token of a ServiceAccount, so that its own RBAC holds.

        Raises:
            ApiError: the ServiceAccount does not exist (404).
        """
        answer = self.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": TOKEN_LIFETIME_SECONDS},
            },
        )
        path = self.folder / f"{namespace}.{service_account}.kubeconfig"
        return self._write_kubeconfig(path, answer["status"]["token"])

    # Starting

    def _start(self) -> None:
        for folder in (self.folder, self.logs, self.folder / "certificates"):
            folder.mkdir(parents=True, exist_ok=True)
        etcd = self._start_etcd()
        apiserver = self._start_apiserver(etcd)
        self._healthy(apiserver, f"{self.server}/readyz", token=self._tokens["admin"])
        self._write_kubeconfig(self.admin_kubeconfig, self._tokens["admin"])
        manager_port, kwok_port = free_port(), free_port()
        manager = self._launch(
            "kube-controller-manager",
            f"--kubeconfig={self._static_kubeconfig('system:kube-controller-manager')}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={manager_port}",
            f"--controllers={','.join(CONTROLLERS)}",
            # Without accounts of their own the controllers lack rights under RBAC and do nothing, silently.
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            # A machine that stalls for a minute must not look like nodes that died: kwok never makes pods Ready again.
            "--node-monitor-grace-period=600s",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
        kwok = self._launch(
            "kwok",
            f"--kubeconfig={self.admin_kubeconfig}",
            f"--server-address={LOOPBACK}:{kwok_port}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={'='.join(FAKE_NODE)}",
            *(f"--config={stage}" for stage in write_stages(self._binaries, self.folder)),
        )
        self._healthy(manager, f"https://{LOOPBACK}:{manager_port}/healthz")
        self._healthy(kwok, f"http://{LOOPBACK}:{kwok_port}/healthz")

    def _start_etcd(self) -> str:
        client, peer = f"http://{LOOPBACK}:{free_port()}", f"http://{LOOPBACK}:{free_port()}"
        self._launch(
            "etcd",
            "--name=test",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
        )
        return client

    def _start_apiserver(self, etcd: str) -> Process:
        key = self._write_secret("service-account.key", _signing_key())
        users = {
            "admin": "system:masters",
            "system:kube-scheduler": "",
            "system:kube-controller-manager": "",
        }
        tokens = "".join(f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in users.items())
        return self._launch(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self.server.rpartition(':')[2]}",
            f"--cert-dir={self.certificate_authority.parent}",
            f"--token-auth-file={self._write_secret('tokens.csv', tokens)}",
            "--anonymous-auth=false",
            # Claims and volumes go at once when they are deleted: no controller here would lift their protection.
            "--disable-admission-plugins=StorageObjectInUseProtection",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
        )

    def _launch(self, program: str, *arguments: str) -> Process:
        process = self._spawn(program, program, *arguments)
        self._processes.append(process)
        self._arguments_of[program] = arguments
        return process

    def _spawn(self, name: str, program: str, *arguments: str) -> Process:
        command = [str(self._binaries.path(program)), *arguments]
        return spawn(name, command, self.folder, self.logs / f"{name}.log")

    def _healthy(self, process: Process, url: str, token: str | None = None) -> None:
        """Wait until the URL answers 200, and fail early where the program, or one it needs, has ended."""

        def answer() -> bool:
            for started in (*self._processes, process):
                if not started.running():
                    raise ControlPlaneError(f"{started.name} ended:\n{started.log_tail()}")
            return answers_200(url, token)

        try:
            self.eventually(answer, f"{process.name} to be healthy", START_TIMEOUT_SECONDS)
        except ControlPlaneError as error:
            raise ControlPlaneError(f"{error}\n{process.log_tail()}") from None

    def _unused_name(self, name: str) -> str:
        taken = {process.name for process in self._schedulers}
        numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
        return next(candidate for candidate in (name, *numbered) if candidate not in taken)

    def _static_kubeconfig(self, user: str) -> Path:
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        return self._write_kubeconfig(path, self._tokens[user])

    def _write_kubeconfig(self, path: Path, token: str) -> Path:
        certificate = base64.b64encode(self.certificate_authority.read_bytes()).decode()
        cluster = {"server": self.server, "certificate-authority-data": certificate}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        return self._write_secret(path.name, yaml.safe_dump(config))

    def _write_secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def _signing_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
