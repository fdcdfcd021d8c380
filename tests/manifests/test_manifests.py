"""The manifests: accepted by a real API server, one in themselves, and with exactly the rights that are needed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from extender.settings import ExtenderSettings
from planner import labels, ports
from planner.cloud.gcp.machines import builtin_machines
from planner.cloud.tables import read_machines
from planner.configuration import load_settings
from planner.events import Recorder
from planner.kube import record
from planner.loop import iterate
from tests.controlplane.admin import ApiError
from tests.controlplane.build import KUBERNETES_VERSION, Binaries
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.controlplane.processes import ControlPlaneError, Process
from tests.extender.serving import serve
from tests.iterating import APPLY, badly_placed, edges_of

pytestmark = pytest.mark.controlplane

Manifest = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "manifests"
BASE: Final = MANIFESTS / "base"
OVERLAYS: Final = ("base", "overlays/gke", "overlays/recommend-only")
NAMESPACE: Final = "kube-system"
NODE: Final = FakeNode(name="node-1")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource, on every object or on the one of that name."""

    verb: str
    group: str
    resource: str
    name: str = ""


def rights(verbs: str, group: str, resources: str, name: str = "") -> set[Right]:
    return {Right(verb, group, resource, name) for verb in verbs.split() for resource in resources.split()}


EXTENDER_RIGHTS: Final = rights("list watch", "", "nodes pods") | rights("list watch", "apps", "replicasets")

WEB_RIGHTS: Final = rights("list", "", "nodes")
WEB_RIGHTS_IN_KUBE_SYSTEM: Final = rights("get", "", "configmaps", record.NAME)

PLANNER_READS: Final = (
    rights("list", "", "nodes pods persistentvolumeclaims persistentvolumes")
    | rights("list", "apps", "deployments replicasets statefulsets daemonsets")
    | rights("list", "batch", "jobs")
    | rights("list", "autoscaling", "horizontalpodautoscalers")
    | rights("list", "policy", "poddisruptionbudgets")
)
PLANNER_WRITES: Final = (
    rights("get patch delete", "", "nodes")
    | rights("get patch", "apps", "deployments")
    | rights("create", "", "pods/eviction")
)
PLANNER_RIGHTS_IN_KUBE_SYSTEM: Final = (
    rights("create", "coordination.k8s.io", "leases")
    | rights("get update", "coordination.k8s.io", "leases", "kinema-planner")
    | rights("create", "", "configmaps")
    | rights("get update", "", "configmaps", record.NAME)
    | rights("create patch", "", "events")
)


@pytest.fixture
def applied(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with manifests/base really applied, without nodes or scheduler."""
    control_plane.apply(BASE)
    return control_plane


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, control_plane_binaries: Binaries) -> list[Manifest]:
    """Every object of each kustomization in turn."""
    return render(control_plane_binaries, request.param)


@pytest.fixture
def base(control_plane_binaries: Binaries) -> list[Manifest]:
    """Every object of manifests/base."""
    return render(control_plane_binaries, "base")


def render(binaries: Binaries, folder: str) -> list[Manifest]:
    command = [str(binaries.path("kubectl")), "kustomize", str(MANIFESTS / folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return list(yaml.safe_load_all(text))


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    found = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def pod_templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = {m["metadata"]["name"]: m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"}
    assert set(found) == {"kinema-planner", "kinema-web", "kinema-scheduler"}
    return found


def containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    templates = pod_templates(manifests).values()
    found = {item["name"]: item for template in templates for item in template["spec"]["containers"]}
    assert set(found) == {"planner", "web", "scheduler", "extender"}
    return found


def effective_rights(control_plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """Return what the API server itself says that an account may do in a namespace."""
    kubeconfig = control_plane.kubeconfig_for(NAMESPACE, account)
    answer = control_plane.kubectl(
        "create",
        "--raw",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        "-f",
        "-",
        kubeconfig=kubeconfig,
        standard_input=json.dumps({"spec": {"namespace": namespace}}),
    )
    status = json.loads(answer)["status"]
    assert not status["incomplete"]
    return {
        Right(verb, group, resource, name)
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }


def given_rights(control_plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """Return the rights of an account without those that every ServiceAccount of Kubernetes has."""
    everybody = effective_rights(control_plane, "default", namespace)
    return effective_rights(control_plane, account, namespace) - everybody


# What the API server says


def test_every_kustomization_is_accepted_by_the_api_server(control_plane: ControlPlane) -> None:
    for folder in OVERLAYS:
        lines = control_plane.apply(MANIFESTS / folder, dry_run=True).splitlines()
        assert len(lines) > 25
        assert all(line.endswith("serverside-applied (server dry run)") for line in lines)


def test_all_pods_run_where_the_manifests_are_applied(applied: ControlPlane, default_scheduler: Process) -> None:
    applied.add_node(NODE, FakeNode(name="node-2"))

    def running() -> list[str]:
        pods = applied.items(f"/api/v1/namespaces/{NAMESPACE}/pods")
        return sorted(pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running")

    # 2 planners + 2 web workers + 2 schedulers
    applied.eventually(lambda: len(running()) == 6, "six pods to run")


def test_every_pod_passes_the_restricted_pod_security_standard(
    control_plane: ControlPlane, base: list[Manifest]
) -> None:
    namespace = control_plane.create_namespace("restricted")
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    control_plane.request("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": level}})

    def admit(name: str, spec: Manifest) -> None:
        body = {"metadata": {"name": name}, "spec": {**spec, "serviceAccountName": "default"}}
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)

    for name, template in pod_templates(base).items():
        admit(name, template["spec"])
    with pytest.raises(ApiError, match="violates PodSecurity"):
        admit("careless", {"containers": [{"name": "main", "image": "app"}]})


@pytest.mark.parametrize("namespace", [NAMESPACE, "default"])
def test_the_extender_may_only_read_nodes_pods_and_replicasets(applied: ControlPlane, namespace: str) -> None:
    assert given_rights(applied, "kinema-extender", namespace) == EXTENDER_RIGHTS


def test_the_web_face_may_only_read_nodes_and_the_plan(applied: ControlPlane) -> None:
    assert given_rights(applied, "kinema-web", "default") == WEB_RIGHTS
    assert given_rights(applied, "kinema-web", NAMESPACE) == WEB_RIGHTS | WEB_RIGHTS_IN_KUBE_SYSTEM


def test_the_planner_has_exactly_the_rights_of_its_work(applied: ControlPlane) -> None:
    everywhere = PLANNER_READS | PLANNER_WRITES
    assert given_rights(applied, "kinema-planner", "default") == everywhere
    assert given_rights(applied, "kinema-planner", NAMESPACE) == everywhere | PLANNER_RIGHTS_IN_KUBE_SYSTEM


def test_the_planner_may_write_nothing_of_others_where_it_only_recommends(
    new_control_plane: ControlPlane,
) -> None:
    new_control_plane.apply(MANIFESTS / "overlays/recommend-only")
    assert given_rights(new_control_plane, "kinema-planner", "default") == PLANNER_READS
    here = given_rights(new_control_plane, "kinema-planner", NAMESPACE)
    assert here == PLANNER_READS | PLANNER_RIGHTS_IN_KUBE_SYSTEM


class Noted:
    """An API server that notes which right each call needs."""

    def __init__(self, kubernetes: ports.Kubernetes) -> None:
        self.rights: set[Right] = set()
        self._kubernetes = kubernetes

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if verb == "evict":
                self.rights.add(Right("create", "", "pods/eviction"))
            else:
                resource, place = arguments[0], arguments[1:3]
                name = place[1] if place[1:] in ((record.NAME,), ("kinema-planner",)) else ""
                self.rights.add(Right({"replace": "update"}.get(verb, verb), resource.group, resource.plural, name))
            return getattr(self._kubernetes, verb)(*arguments, **options)

        return call


def test_carrying_a_plan_out_takes_every_right_of_the_planner_and_no_other() -> None:
    world = badly_placed()
    noted = Noted(world.kubernetes)
    # An iteration that moves a Deployment and a StatefulSet and removes nodes, twice nothing to do (the second time
    # is only counted), and the end of the planner.
    edges = edges_of(world, Recorder(noted, world.clock, NAMESPACE, "planner"), kubernetes=noted)
    assert [iterate(edges, APPLY) for _ in range(3)] == ["carried-out", "dropped", "dropped"]
    edges.leadership.release()
    assert noted.rights == PLANNER_READS | PLANNER_WRITES | PLANNER_RIGHTS_IN_KUBE_SYSTEM


def test_the_second_scheduler_has_the_rights_of_kubernetes_own_and_its_lease(applied: ControlPlane) -> None:
    roles = ("system:kube-scheduler", "system:volume-scheduler")
    own = {
        Right(verb, group, resource, name)
        for role in roles
        for rule in applied.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}")["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    everywhere = given_rights(applied, "kinema-scheduler", "default")
    assert everywhere == own - effective_rights(applied, "default", "default")
    # The extender beside it runs under the same account.
    assert everywhere >= EXTENDER_RIGHTS
    here = given_rights(applied, "kinema-scheduler", NAMESPACE) - everywhere
    assert here == rights("get update", "coordination.k8s.io", "leases", "kinema-scheduler") | rights(
        "get list watch", "", "configmaps", "extension-apiserver-authentication"
    )


def test_only_the_planner_may_write_the_keys_of_the_contract(applied: ControlPlane) -> None:
    applied.add_node(NODE)
    placement = labels.encode_placement(labels.Placement("i-1", 0.0, (), {}))
    marks = {
        "metadata": {
            "labels": {labels.OPTIMAL: "i-1", labels.EXPIRING: "i-1"},
            "annotations": {labels.PLACEMENT: placement},
        },
        "spec": {"taints": [{"key": labels.EXPIRING, "value": "i-1", "effect": "PreferNoSchedule"}]},
    }
    roll_out = {"spec": {"template": {"metadata": {"annotations": {labels.ITERATION: "i-1"}}}}}

    def patch(account: str, target: tuple[str, ...], change: Manifest) -> Manifest:
        kubeconfig = applied.kubeconfig_for(NAMESPACE, account)
        arguments = ("patch", *target, "-o", "json", "-p", json.dumps(change))
        answer: Manifest = json.loads(applied.kubectl(*arguments, kubeconfig=kubeconfig))
        return answer

    workload = ("-n", NAMESPACE, "deployment", "kinema-web")
    node = patch("kinema-planner", ("node", NODE.name), marks)
    assert node["metadata"]["annotations"][labels.PLACEMENT] == placement
    assert patch("kinema-planner", workload, roll_out)["metadata"]["name"] == "kinema-web"
    for account in ("kinema-web", "kinema-extender"):
        for target, change in ((("node", NODE.name), marks), (workload, roll_out)):
            with pytest.raises(ControlPlaneError, match="Forbidden"):
                patch(account, target, change)


def start_second_scheduler(control_plane: ControlPlane, extender_url: str) -> Process:
    """Start the scheduler of the manifests under its own account, asking the extender at the URL."""
    return control_plane.start_scheduler(
        BASE / "scheduler-configuration.yaml",
        extender_url=extender_url,
        kubeconfig=control_plane.kubeconfig_for(NAMESPACE, "kinema-scheduler"),
    )


STEERED: Final = {
    "schedulerName": "kinema-scheduler",
    "containers": [{"name": "main", "image": "registry.example/app:1"}],
}


def create_deployment(
    control_plane: ControlPlane, namespace: str, replicas: int, spec: Manifest | None = None
) -> Manifest:
    selector = {"app": "web"}
    body = {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": selector}, "spec": spec or STEERED},
        },
    }
    return control_plane.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)


def hosts_of_running_pods(control_plane: ControlPlane, namespace: str, count: int) -> Counter[str]:
    """Wait until so many pods run and return how many are on which node."""

    def hosts() -> list[str]:
        pods = control_plane.items(f"/api/v1/namespaces/{namespace}/pods")
        return [pod["spec"]["nodeName"] for pod in pods if pod["status"].get("phase") == "Running"]

    control_plane.eventually(lambda: len(hosts()) == count, f"{count} pods to run in {namespace}")
    return Counter(hosts())


def is_complete(control_plane: ControlPlane, namespace: str) -> bool:
    """Say whether the Deployment's own status has every replica ready, as the planner waits for."""
    found = control_plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/web")
    return bool(found["status"].get("readyReplicas") == found["spec"]["replicas"])


def test_the_second_scheduler_places_pods_also_without_its_extender(applied: ControlPlane) -> None:
    applied.add_node(NODE)
    # Nobody listens there: the extender is ignorable.
    scheduler = start_second_scheduler(applied, "http://127.0.0.1:9")
    try:
        namespace = applied.create_namespace("unsteered")
        create_deployment(applied, namespace, replicas=3)
        assert hosts_of_running_pods(applied, namespace, 3) == {NODE.name: 3}
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kinema-scheduler"
        assert applied.request("GET", lease)["spec"]["holderIdentity"]
    finally:
        scheduler.stop()


@pytest.fixture
def extender_url(applied: ControlPlane) -> Iterator[str]:
    """The extender as its container runs it, with the extender's own account: it is ready, so that suffices."""
    kubeconfig = applied.kubeconfig_for(NAMESPACE, "kinema-extender")
    with serve({"EXTENDER_KUBECONFIG": str(kubeconfig)}) as served:
        yield f"http://127.0.0.1:{served.port}"


def test_the_scheduler_and_the_extender_of_the_manifests_put_pods_where_the_plan_wants_them(
    applied: ControlPlane, extender_url: str
) -> None:
    nodes = [FakeNode(name=f"node-{number}", labels={labels.OPTIMAL: "i-1"}) for number in range(4)]
    applied.add_node(*nodes)
    namespace = applied.create_namespace("steered")
    workload = create_deployment(applied, namespace, replicas=0)
    wanted = {"node-1": 1, "node-3": 5}
    for node in nodes:
        key, uid = f"{namespace}/Deployment/web", workload["metadata"]["uid"]
        target = labels.Target(key, uid, wanted.get(node.name, 0), "all")
        placement = labels.Placement("i-1", time.time() + 600, (target,) if target.want else (), {})
        annotations = {labels.PLACEMENT: labels.encode_placement(placement)}
        applied.request("PATCH", f"/api/v1/nodes/{node.name}", {"metadata": {"annotations": annotations}})
    scheduler = start_second_scheduler(applied, extender_url)
    try:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
        applied.request("PATCH", path, {"spec": {"replicas": 6}})
        # The default plugins alone would spread 6 pods over 4 nodes as 2, 2, 1, 1.
        assert hosts_of_running_pods(applied, namespace, 6) == wanted
    finally:
        scheduler.stop()


# What the files say to each other


def test_no_rule_has_a_wildcard_or_touches_secrets(rendered: list[Manifest]) -> None:
    rules = [rule for item in rendered if item["kind"] in ("Role", "ClusterRole") for rule in item["rules"]]
    assert len(rules) >= 10
    for rule in rules:
        words = [word for key in ("verbs", "resources", "apiGroups") for word in rule[key]]
        assert not [word for word in words if "*" in word or word == "secrets"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_every_namespaced_object_is_in_kube_system(rendered: list[Manifest]) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding"}
    namespaces = {item["metadata"].get("namespace") for item in rendered if item["kind"] not in cluster_wide}
    assert namespaces == {NAMESPACE}


def test_every_image_is_of_the_released_version(rendered: list[Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {name: container["image"] for name, container in containers(rendered).items()}
    assert images.pop("scheduler") == f"registry.k8s.io/kube-scheduler:{KUBERNETES_VERSION}"
    assert set(images.values()) == {f"ghcr.io/kinema/kinema:{version}"}


def test_every_key_of_ours_is_one_of_the_contract() -> None:
    ours = {labels.OPTIMAL, labels.EXPIRING, labels.PLACEMENT, labels.ITERATION, labels.DO_NOT_DISRUPT}
    pattern = re.compile(rf"\b{re.escape(labels.GROUP)}/[a-z0-9-]+")
    assert pattern.findall(f"a: {labels.DO_NOT_DISRUPT}: x") == [labels.DO_NOT_DISRUPT]
    files = sorted(MANIFESTS.rglob("*.yaml"))
    assert len(files) >= 10
    for path in files:
        assert set(pattern.findall(path.read_text())) <= ours, path


@pytest.mark.parametrize("path", [BASE / "settings.yaml", MANIFESTS / "overlays/gke/settings.yaml"])
def test_settings_are_valid_and_agree_with_the_rest(path: Path, base: list[Manifest]) -> None:
    settings = load_settings(str(path), {})
    assert settings.mode == "recommend"
    assert settings.leader.namespace == NAMESPACE
    leases = next(right for right in PLANNER_RIGHTS_IN_KUBE_SYSTEM if right.name and right.resource == "leases")
    assert settings.leader.lease_name == leases.name
    configuration = yaml.safe_load((BASE / "scheduler-configuration.yaml").read_text())
    assert settings.move.scheduler_name == configuration["profiles"][0]["schedulerName"]
    planner = containers(base)["planner"]
    assert {"name": "metrics", "containerPort": settings.metrics_port} in planner["ports"]


@pytest.mark.parametrize("name", ["planner", "web"])
def test_no_variable_can_be_taken_for_a_setting(base: list[Manifest], name: str) -> None:
    load_settings(None, {item["name"]: item.get("value", "") for item in containers(base)[name].get("env", [])})
    # The Service kinema-web would set KINEMA_WEB_PORT and more in every pod beside it.
    assert pod_templates(base)[f"kinema-{name}"]["spec"]["enableServiceLinks"] is False


def test_base_plans_from_a_table_that_is_mounted_and_holds_what_the_project_knows(base: list[Manifest]) -> None:
    settings = load_settings(str(BASE / "settings.yaml"), {})
    assert settings.cloud.provider == "none"
    (mount,) = [m for m in containers(base)["planner"]["volumeMounts"] if m["name"] == "settings"]
    assert settings.cloud.machines == f"{mount['mountPath']}/machines.csv"
    table, known = read_machines(str(BASE / "machines.csv")), builtin_machines("us-central1")
    assert len(table) >= 20
    assert table == {name: known[name] for name in table}


def test_the_planner_of_base_recommends_a_plan_and_changes_nothing(
    new_control_plane: ControlPlane, tmp_path: Path
) -> None:
    cluster = new_control_plane
    cluster.apply(BASE / "rbac.yaml", namespace=NAMESPACE)
    # docs/operations.md: what only recommends needs none of these rights.
    cluster.kubectl("delete", "clusterrolebinding", "kinema-planner-apply")
    cluster.add_node(*(FakeNode(name=f"node-{number}") for number in range(3)))
    namespace = cluster.create_namespace("shop")
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"requests": {"cpu": "1"}}}
    create_deployment(cluster, namespace, 3, {"containers": [container]})
    scheduler = cluster.start_scheduler()
    try:
        assert hosts_of_running_pods(cluster, namespace, 3).total() == 3
        cluster.eventually(lambda: is_complete(cluster, namespace), "the Deployment to see its pods")
        before = cluster.items("/api/v1/nodes")
        # Only where the files lie and the port differ from what runs in the pod.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "KUBECONFIG": str(cluster.kubeconfig_for(NAMESPACE, "kinema-planner")),
            "KINEMA_CLOUD_MACHINES": str(BASE / "machines.csv"),
            "KINEMA_METRICS_PORT": "0",
        }
        command = [sys.executable, "-m", "planner", "run", "--once", "--settings", str(BASE / "settings.yaml")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "iteration ended: recommended" in done.stderr
    finally:
        scheduler.stop()
    kept = cluster.request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{record.NAME}")
    found = record.decode_record(json.dumps(kept).encode())
    assert (found.mode, found.phase) == ("recommend", "done")
    # Three e2-standard-4 at 0.13402 $/h; 3 x 1000m of CPU fit on the cheapest machine with 3 CPUs, e2-highcpu-4.
    assert found.plan.current_cost_nanousd_per_hour == 3 * 134_020_000
    assert found.plan.cost_nanousd_per_hour == 98_940_000
    events = cluster.items(f"/api/v1/namespaces/{NAMESPACE}/events")
    (event,) = [e for e in events if e["source"].get("component") == "kinema-planner"]
    assert (event["type"], event["reason"], event["count"]) == ("Normal", "PlanRecommended", 1)
    listed = cluster.kubectl("events", "-n", NAMESPACE, "--for", f"configmap/{record.NAME}")
    assert "0.40206 -> 0.09894 $/h" in listed
    after = cluster.items("/api/v1/nodes")
    assert [(n["metadata"]["labels"], n["spec"]) for n in after] == [
        (n["metadata"]["labels"], n["spec"]) for n in before
    ]


def test_the_extender_listens_where_the_scheduler_asks(base: list[Manifest]) -> None:
    configuration = yaml.safe_load((BASE / "scheduler-configuration.yaml").read_text())
    (extender,) = configuration["extenders"]
    environment = {item["name"]: item["value"] for item in containers(base)["extender"]["env"]}
    settings = ExtenderSettings.from_environment(environment)
    assert extender["urlPrefix"] == f"http://{settings.bind}" == "http://127.0.0.1:8888"
    assert (extender["filterVerb"], extender["prioritizeVerb"]) == ("filter", "prioritize")
    assert extender["nodeCacheCapable"] is extender["ignorable"] is True
    assert not {"preemptVerb", "bindVerb"} & extender.keys()
    assert configuration["percentageOfNodesToScore"] == 100


def test_the_service_reaches_the_port_that_gunicorn_binds(base: list[Manifest]) -> None:
    web = containers(base)["web"]
    service = named(base, "Service", "kinema-web")
    template = pod_templates(base)["kinema-web"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8080, web["ports"][0]["name"])
    assert web["ports"] == [{"name": "http", "containerPort": 8080}]
    assert load_settings(str(BASE / "settings.yaml"), {}).web.bind == "0.0.0.0:8080"


@pytest.mark.parametrize("name", ["web", "extender"])
def test_gunicorn_finds_the_configuration_that_a_container_names(base: list[Manifest], name: str) -> None:
    program, option, source = containers(base)[name]["command"]
    assert (program, option) == ("gunicorn", "-c")
    module = source.removeprefix("python:")
    assert importlib.util.find_spec(module) is not None
    assert module == {"web": "planner.web.gunicorn_conf", "extender": "extender.gunicorn_conf"}[name]


def test_every_mounted_file_is_in_its_configmap(base: list[Manifest]) -> None:
    for name, template in pod_templates(base).items():
        (volume,) = [v["configMap"] for v in template["spec"]["volumes"] if "configMap" in v]
        files = named(base, "ConfigMap", volume["name"])["data"]
        # A container names its files; settings may name further ones.
        text = json.dumps(template["spec"]["containers"]) + files.get("settings.yaml", "")
        used = set(re.findall(r"/etc/kinema/([\w.-]+)", text))
        assert used == set(files), name


def test_every_budget_and_policy_selects_pods_that_exist(rendered: list[Manifest]) -> None:
    templates = [template["metadata"]["labels"] for template in pod_templates(rendered).values()]
    selectors = {
        f"{item['kind']}/{item['metadata']['name']}": item["spec"].get("podSelector") or item["spec"]["selector"]
        for item in rendered
        if item["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
    }
    assert {"PodDisruptionBudget/kinema-planner", "NetworkPolicy/kinema-default-deny"} <= selectors.keys()
    for name, selector in selectors.items():
        assert any(selector["matchLabels"].items() <= labels_.items() for labels_ in templates), name
