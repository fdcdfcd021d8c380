"""A real control plane on loopback: etcd, apiserver, controller manager, schedulers, and kwok as every kubelet."""

from __future__ import annotations

import base64
import contextlib
import copy
import ctypes
import http.client
import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, TypeVar

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.controlplane.build import Binaries

Json = dict[str, Any]
_T = TypeVar("_T")

LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_SECONDS: Final = 90.0
"""Everything is healthy after five seconds on idle cores; a loaded machine gets much longer."""

WAIT_TIMEOUT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05

TOKEN_LIFETIME_SECONDS: Final = 24 * 3600
"""Longer than any test, and than a person's look at a cluster that was left up."""

FAKE_NODE: Final = ("kwok.x-k8s.io/node", "fake")
"""Annotation of the nodes that kwok plays; it leaves all others alone."""

DELETION_MILLISECONDS: Final = 300
"""How long a deleted pod of kwok's takes to go."""

RUNS_ON: Final = "tests.kinema.io/runs-on"
"""Annotation of pods of Jobs that never complete; those without it complete at once."""

STARTS_SLOWLY: Final = "tests.kinema.io/starts-slowly"
"""Annotation of nodes that become Ready some time after they joined, as real ones do; the others are so at once."""

_NOT_READY: Final = """
conditions:
- lastTransitionTime: {{ $now | Quote }}
  status: "False"
  type: Ready
  reason: PodCompleted
"""
"""What a kubelet says of a pod that has completed; else it would count as healthy in a budget."""

START_MILLISECONDS: Final = 1500
"""How long such a node takes. Real ones take ten and more seconds, and are looked at every five."""

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

_SYSTEM_NAMESPACES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_WORKLOADS: Final = (
    ("apps/v1", "deployments"),
    ("apps/v1", "replicasets"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    ("batch/v1", "jobs"),
    ("policy/v1", "poddisruptionbudgets"),
)
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class ControlPlaneError(RuntimeError):
    """A part of the control plane did not start or a wait ended without its condition; says which."""


class ApiError(RuntimeError):
    """The API server refused a request of the test itself; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNode:
    """A node as GKE would register it, e2-standard-4 unless told otherwise, played by kwok.

    `allocatable` is written as Kubernetes quantities; the default is what GKE leaves of 4 vCPU and 16 GiB.
    """

    name: str
    machine_type: str = "e2-standard-4"
    pool: str = "default-pool"
    zone: str = "europe-west3-a"
    project: str = "kinema-test"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    allocatable: Mapping[str, str] = field(default_factory=lambda: {"cpu": "3920m", "memory": "13256Mi", "pods": "110"})

    def manifest(self) -> Json:
        """Return the Node object, with GKE's labels and provider id."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": self.machine_type,
            "topology.kubernetes.io/zone": self.zone,
            "topology.kubernetes.io/region": self.zone.rpartition("-")[0],
            "topology.gke.io/zone": self.zone,
            "cloud.google.com/gke-nodepool": self.pool,
            "cloud.google.com/machine-family": self.machine_type.partition("-")[0],
        }
        key, value = FAKE_NODE
        amounts = dict(self.allocatable)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {**labels, **self.labels},
                "annotations": {key: value, **self.annotations},
            },
            "spec": {
                "providerID": f"gce://{self.project}/{self.zone}/{self.name}",
                "taints": [dict(taint) for taint in self.taints],
            },
            "status": {"allocatable": amounts, "capacity": amounts},
        }


@dataclass(frozen=True, slots=True)
class Process:
    """One running program of the control plane, in a process group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Tell whether the program still runs."""
        return self.popen.poll() is None

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End the program and whatever it started: SIGTERM, then SIGKILL after the grace; safe to repeat."""
        if self.running() and grace_seconds > 0:
            os.killpg(self.popen.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace_seconds)
        if self.running():
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of the program's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class ControlPlane:
    """A context manager: a healthy cluster without nodes and without a scheduler inside, nothing left after.

    Start it from a thread that outlives it: on Linux the programs die with the thread that started them, so
    that a killed test run leaves nothing behind.
    """

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        """Prepare a control plane that keeps data, keys and logs in `folder` (created if missing)."""
        self._binaries = binaries
        self.folder = folder
        self.logs = folder / "logs"
        self.server = f"https://{LOOPBACK}:{_free_port()}"
        self.certificate_authority = folder / "certificates" / "apiserver.crt"
        self.admin_kubeconfig = folder / "admin.kubeconfig"
        self._tokens = {
            user: secrets.token_hex(16) for user in ("admin", "system:kube-scheduler", "system:kube-controller-manager")
        }
        self._processes: list[Process] = []
        self._schedulers: list[Process] = []

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
        port = _free_port()
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

    # Talking to the API

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Send one request as the admin and return the answer's JSON.

        Raises:
            ApiError: the answer's status is 400 or more.
        """
        host, _, port = self.server.removeprefix("https://").partition(":")
        context = ssl.create_default_context(cafile=str(self.certificate_authority))
        connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._tokens['admin']}", "Content-Type": kind}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ApiError(response.status, f"{method} {path}: {text.decode(errors='replace')}")
        answer: Json = json.loads(text)
        return answer

    def items(self, path: str) -> list[Json]:
        """Return the objects of a list, for example `/api/v1/nodes`."""
        found: list[Json] = self.request("GET", path)["items"]
        return found

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, standard_input: str = "") -> str:
        """Run kubectl (as the admin unless told otherwise) and return what it prints.

        Raises:
            ControlPlaneError: kubectl failed; the message holds its standard error.
        """
        done = subprocess.run(
            [
                str(self._binaries.path("kubectl")),
                f"--kubeconfig={kubeconfig or self.admin_kubeconfig}",
                f"--cache-dir={self.folder / 'kubectl-cache'}",
                *arguments,
            ],
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, source: Path, *, namespace: str | None = None, dry_run: bool = False) -> str:
        """Apply a manifest, a folder of manifests, or a kustomization; the server checks it either way.

        `namespace` is where objects go that name none, as a kustomization would tell.
        """
        flag = "-k" if (source / "kustomization.yaml").is_file() else "-f"
        options = [f"--namespace={namespace}"] if namespace else []
        options += ["--dry-run=server"] if dry_run else []
        return self.kubectl("apply", "--server-side", *options, flag, str(source))

    def eventually(
        self, check: Callable[[], _T | None], what: str, timeout_seconds: float = WAIT_TIMEOUT_SECONDS
    ) -> _T:
        """Ask until `check` returns something true and return it.

        Raises:
            ControlPlaneError: it did not within the time; the message says what was waited for and the last
                answer.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            answer = check()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"waited {timeout_seconds:.0f} s for {what}; last answer: {answer!r}")
            time.sleep(POLL_SECONDS)

    # Nodes and namespaces

    def add_node(self, *nodes: FakeNode) -> None:
        """Register nodes and return once all are Ready and free of the API server's not-ready taint."""
        for node in nodes:
            self.request("POST", "/api/v1/nodes", node.manifest())
        names = {node.name for node in nodes}

        def usable() -> bool:
            found = [n for n in self.items("/api/v1/nodes") if n["metadata"]["name"] in names]
            return len(found) == len(names) and all(_usable(node) for node in found)

        self.eventually(usable, f"nodes {sorted(names)} to be usable")

    def create_namespace(self, name: str) -> str:
        """Create a namespace and return its name once pods may be created in it.

        A namespace of the same name that `clear` deleted takes five seconds to go; ServiceAccount admission
        refuses pods with 403 until the controller made the `default` account. Both are waited for.
        """

        def created() -> bool:
            try:
                self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            except ApiError as error:
                terminating = self._namespaces().get(name) == "Terminating"
                if error.status == 409 and (terminating or name not in self._namespaces()):
                    return False
                raise
            return True

        def default_account() -> bool:
            accounts = self.items(f"/api/v1/namespaces/{name}/serviceaccounts")
            return any(account["metadata"]["name"] == "default" for account in accounts)

        self.eventually(created, f"an older namespace {name} to be gone")
        self.eventually(default_account, f"the default ServiceAccount of {name}")
        return name

    def clear(self) -> None:
        """Empty the cluster, and delete every namespace but the system's.

        The objects of the namespaces themselves go five seconds later, by their controller.
        """
        self.empty()
        for name, phase in self._namespaces().items():
            if name not in _SYSTEM_NAMESPACES and phase != "Terminating":
                self.request("DELETE", f"/api/v1/namespaces/{name}")

    def empty(self) -> None:
        """Delete every workload, pod, budget, claim, volume and node; the namespaces stay.

        So does what else is in them (ServiceAccounts, roles, ConfigMaps, Leases, Events).
        """
        for namespace in self._namespaces():
            for version, resource in _WORKLOADS:
                self.request("DELETE", f"/apis/{version}/namespaces/{namespace}/{resource}")
        self.eventually(self._delete_pods, "every pod to be gone")
        for namespace in self._namespaces():
            self.request("DELETE", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")
        for resource in ("persistentvolumes", "nodes"):
            self.request("DELETE", f"/api/v1/{resource}")
        gone = ("persistentvolumeclaims", "persistentvolumes", "nodes")
        self.eventually(lambda: not any(self.items(f"/api/v1/{it}") for it in gone), "volumes and nodes to be gone")

    def _namespaces(self) -> dict[str, str]:
        """Return the phase of every namespace by its name."""
        return {item["metadata"]["name"]: item["status"]["phase"] for item in self.items("/api/v1/namespaces")}

    def _delete_pods(self) -> bool:
        """Delete every pod at once, also where its node is gone; True when none was left."""
        pods = self.items("/api/v1/pods")
        for namespace in {pod["metadata"]["namespace"] for pod in pods}:
            body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            self.request("DELETE", f"/api/v1/namespaces/{namespace}/pods", body)
        return not pods

    # Starting

    def _start(self) -> None:
        for folder in (self.folder, self.logs, self.folder / "certificates"):
            folder.mkdir(parents=True, exist_ok=True)
        etcd = self._start_etcd()
        apiserver = self._start_apiserver(etcd)
        self._healthy(apiserver, f"{self.server}/readyz", token=self._tokens["admin"])
        self._write_kubeconfig(self.admin_kubeconfig, self._tokens["admin"])
        manager_port, kwok_port = _free_port(), _free_port()
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
            *(f"--config={stage}" for stage in self._stages()),
        )
        self._healthy(manager, f"https://{LOOPBACK}:{manager_port}/healthz")
        self._healthy(kwok, f"http://{LOOPBACK}:{kwok_port}/healthz")

    def _stages(self) -> list[Path]:
        """Return kwok's stages, with a grace for pods that are deleted, and what `RUNS_ON` and `STARTS_SLOWLY` say.

        A StatefulSet's pod that is gone and back under its name before the disruption controller looked counts as
        still being disrupted for two minutes, and its budget then allows nothing. No real kubelet is that fast.
        """
        found = []
        for path in self._binaries.stages():
            stage = yaml.safe_load(path.read_text())
            variants = [stage]
            match stage["metadata"]["name"]:
                case "pod-delete":
                    stage["spec"]["delay"] = {"durationMilliseconds": DELETION_MILLISECONDS}
                case "pod-complete":
                    _restrict(stage, RUNS_ON, "DoesNotExist")
                    stage["spec"]["next"]["statusTemplate"] += _NOT_READY
                case "node-initialize":
                    slow = copy.deepcopy(stage)
                    slow["metadata"]["name"] += "-slowly"
                    slow["spec"]["delay"] = {"durationMilliseconds": START_MILLISECONDS}
                    _restrict(slow, STARTS_SLOWLY, "Exists")
                    _restrict(stage, STARTS_SLOWLY, "DoesNotExist")
                    variants.append(slow)
            found.append(self.folder / path.name)
            found[-1].write_text(yaml.safe_dump_all(variants))
        return found

    def _start_etcd(self) -> str:
        client, peer = f"http://{LOOPBACK}:{_free_port()}", f"http://{LOOPBACK}:{_free_port()}"
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
        return process

    def _spawn(self, name: str, program: str, *arguments: str) -> Process:
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            return Process(name, self._popen(program, arguments, output), log)

    def _popen(self, program: str, arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._binaries.path(program)), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            # An own group keeps a person's Ctrl-C away from the programs: the context manager ends them.
            process_group=0,
            # The call between fork and exec is one system call and takes no lock that a thread could hold.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )

    def _healthy(self, process: Process, url: str, token: str | None = None) -> None:
        """Wait until the URL answers 200, and fail early where the program, or one it needs, has ended."""

        def answer() -> bool:
            for started in (*self._processes, process):
                if not started.running():
                    raise ControlPlaneError(f"{started.name} ended:\n{started.log_tail()}")
            return _answers_200(url, token)

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


def _restrict(stage: Json, annotation: str, operator: str) -> None:
    """Let a stage of kwok's concern only objects that have the annotation, or only those that have not."""
    condition = {"key": f'.metadata.annotations["{annotation}"]', "operator": operator}
    stage["spec"]["selector"]["matchExpressions"].append(condition)


def _usable(node: Json) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    taints = node["spec"].get("taints", [])
    return ready and not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)


def _answers_200(url: str, token: str | None) -> bool:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    # Health only: schedulers and the controller manager make certificates that nobody can know beforehand.
    context = ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection(host, timeout=5, context=context)
        if scheme == "https"
        else http.client.HTTPConnection(host, timeout=5)
    )
    try:
        connection.request("GET", f"/{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    """Return a free port below the range from which the kernel gives ports to clients and to port 0.

    Between this look and the program's own bind nobody else asks for the port by chance, as would happen
    with a port that the kernel itself had given.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ControlPlaneError("no free port between 20000 and 32000")


def _signing_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
