"""An administrator of a cluster: requests, kubectl, nodes and namespaces, and waiting for what controllers do."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.controlplane.build import Binaries
from tests.controlplane.kwok import FakeNode
from tests.controlplane.processes import ControlPlaneError

Json = dict[str, Any]
_T = TypeVar("_T")

WAIT_TIMEOUT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05

_SYSTEM_NAMESPACES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_WORKLOADS: Final = (
    ("apps/v1", "deployments"),
    ("apps/v1", "replicasets"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    ("batch/v1", "jobs"),
    ("policy/v1", "poddisruptionbudgets"),
)


class ApiError(RuntimeError):
    """The API server refused a request of the test itself; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Admin:
    """Sends requests to an API server, straight and by kubectl, with the token and kubeconfig of an administrator."""

    def __init__(self, binaries: Binaries, folder: Path, server: str, token: str) -> None:
        """Administer the API server at the URL; `folder` has its certificate and the kubeconfig."""
        self._binaries = binaries
        self.folder = folder
        self.server = server
        self._token = token
        self.certificate_authority = folder / "certificates" / "apiserver.crt"
        self.admin_kubeconfig = folder / "admin.kubeconfig"

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Send one request as the admin and return the answer's JSON.

        Raises:
            ApiError: the answer's status is 400 or more.
        """
        host, _, port = self.server.removeprefix("https://").partition(":")
        context = ssl.create_default_context(cafile=str(self.certificate_authority))
        connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
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


def _usable(node: Json) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    taints = node["spec"].get("taints", [])
    return ready and not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)
