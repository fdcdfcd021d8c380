"""The planner's HTTP face, asked through Flask's test client."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from planner.errors import KubernetesError
from planner.settings import Settings
from planner.web.app import create_app
from tests.web.cluster import MemoryCluster
from tests.web.plans import NOW, record_of

APPLY = Settings(mode="apply")


def client_of(cluster: MemoryCluster, settings: Settings = APPLY) -> FlaskClient:
    return create_app(settings, cluster, now=lambda: NOW).test_client()


def request_of(**fields: Any) -> dict[str, Any]:
    plain = {"uid": "7f6c", "pool": "a", "zone": "z1", "present": 2, "least": 0, "greatest": 10}
    return {"request": plain | fields}


def samples(client: FlaskClient) -> dict[str, float]:
    """Return every sample of /metrics as name{label=value,…}: value, without creation times."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return {name: value for name, value in found.items() if "_created" not in name}


def test_review_answers_with_the_uid_of_the_request_and_the_size_of_the_plan() -> None:
    client = client_of(MemoryCluster(record_of(keep=2, boot=3), {("a", "z1"): 2}))

    answer = client.post("/v1/nodepools/review", json=request_of())

    assert answer.status_code == 200
    assert answer.get_json() == {
        "apiVersion": "kinema.io/v1alpha1",
        "kind": "NodePoolReview",
        "response": {"uid": "7f6c", "size": 5, "reason": "the plan wants 5", "iteration": "it-1", "advice": 5},
    }


def test_review_counts_the_nodes_that_exist_in_the_pools_own_zone() -> None:
    cluster = MemoryCluster(record_of(keep=1, remove=3), {("a", "z1"): 4, ("a", "z2"): 9})

    answer = client_of(cluster).post("/v1/nodepools/review", json=request_of(present=3)).get_json()

    assert answer["response"]["size"] == 4


def test_content_type_of_a_review_does_not_matter() -> None:
    client = client_of(MemoryCluster(record_of(keep=2)))

    answer = client.post("/v1/nodepools/review", data=json.dumps(request_of()), content_type="text/plain")

    assert answer.get_json()["response"]["size"] == 2


def test_wrong_request_is_refused_with_what_would_be_right() -> None:
    answer = client_of(MemoryCluster()).post("/v1/nodepools/review", json=request_of(present="4"))

    assert answer.status_code == 400
    assert answer.get_json()["error"] == 'request.present must be a whole number of nodes, 0 or more, not "4"'


def test_body_beyond_the_limit_is_refused() -> None:
    assert client_of(MemoryCluster()).post("/v1/nodepools/review", data=b" " * 70_000).status_code == 413


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/v1/nodepools/review", "GET", 405)])
def test_wrong_path_or_method_is_refused_as_json(path: str, method: str, status: int) -> None:
    answer = client_of(MemoryCluster()).open(path, method=method)

    assert answer.status_code == status
    assert answer.get_json()["error"]


def test_size_stays_and_the_face_is_not_ready_while_the_api_server_is_away() -> None:
    cluster = MemoryCluster(record_of(keep=9))
    cluster.error = KubernetesError("no connection")
    client = client_of(cluster)

    answer = client.post("/v1/nodepools/review", json=request_of(present=2)).get_json()["response"]

    assert (answer["size"], answer["advice"]) == (2, None)
    assert answer["reason"] == "the cluster cannot be read: no connection"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200  # the process is well: starting it anew would not help
    assert samples(client)["kinema_cluster_readable"] == 0


def test_face_is_ready_where_the_cluster_can_be_read_with_or_without_a_plan() -> None:
    assert client_of(MemoryCluster(None)).get("/readyz").status_code == 200
    assert client_of(MemoryCluster(record_of(keep=1))).get("/readyz").status_code == 200


def test_metrics_show_the_plan_and_the_reviews() -> None:
    client = client_of(MemoryCluster(record_of(keep=2, boot=1, remove=4), {("a", "z1"): 6}))
    client.post("/v1/nodepools/review", json=request_of(present=6))
    client.post("/v1/nodepools/review", json={})

    assert samples(client) == pytest.approx(
        {
            "kinema_cluster_readable": 1,
            "kinema_plan_value_usd_per_hour": 0.3,  # 3 nodes of 0.1
            "kinema_plan_lower_bound_usd_per_hour": 0.225,  # 3 x 0.075
            "kinema_plan_gap_ratio": 0.25,  # (0.3 - 0.225) / 0.3
            "kinema_plan_age_seconds": 60,
            "kinema_cost_usd_per_hour{when=before}": 0.6,  # 2 kept + 4 removed
            "kinema_cost_usd_per_hour{when=after}": 0.3,
            "kinema_plan_nodes{state=keep}": 2,
            "kinema_plan_nodes{state=boot}": 1,
            "kinema_plan_nodes{state=remove}": 4,
            "kinema_nodepool_reviews_total{outcome=held}": 1,
            "kinema_nodepool_reviews_total{outcome=bad_request}": 1,
        }
    )


def test_metrics_without_a_plan_say_only_that_the_cluster_is_readable() -> None:
    assert samples(client_of(MemoryCluster())) == {"kinema_cluster_readable": 1}


def test_names_of_metrics_follow_the_convention() -> None:
    text = client_of(MemoryCluster(record_of(keep=1))).get("/metrics").text

    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) > 5
    assert all(re.fullmatch(r"kinema_[a-z_]+", name) for name in names)


def test_two_applications_count_apart() -> None:
    first, second = client_of(MemoryCluster()), client_of(MemoryCluster())
    first.post("/v1/nodepools/review", json=request_of())

    assert samples(first)["kinema_nodepool_reviews_total{outcome=no_plan}"] == 1
    assert "kinema_nodepool_reviews_total{outcome=no_plan}" not in samples(second)


def test_bug_answers_500_without_its_insides(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cluster = MemoryCluster()
    monkeypatch.setattr(cluster, "list", lambda *_: 1 / 0)

    answer = client_of(cluster).post("/v1/nodepools/review", json=request_of())

    assert (answer.status_code, answer.get_json()["error"]) == (500, "internal error")
    assert "ZeroDivisionError" in caplog.text
