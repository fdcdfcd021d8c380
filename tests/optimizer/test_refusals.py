"""What a person reads of a pod that fits nowhere: the one demand that nothing meets, and what there is instead."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from planner.display import show_plan
from planner.model.cluster import Workload
from planner.model.machines import Catalogue
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement, Taint, Toleration
from tests.building import GIB, catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.plans import planned

GPU = "nvidia.com/gpu"
ACCELERATOR = "cloud.google.com/gke-accelerator"
ZONE = "topology.kubernetes.io/zone"

PLAIN = catalogue(offering("m4"), offering("m8", 0.38, 8000, 32, zone="zone-b"))
WITH_GPUS = catalogue(
    offering("m4"),
    offering(
        "g2",
        1.0,
        allocatable=Resources(8000, 32 * GIB, 110, extended=((GPU, 2),)),
        labels={ACCELERATOR: "nvidia-l4"},
    ),
)
DEDICATED = catalogue(offering(labels={"for": "db"}, taints=(Taint("dedicated", "db", "NoSchedule"),)))
APART = catalogue(offering("m4", labels={"disk": "ssd"}), offering("m8", labels={"net": "fast"}))


def asking(gpus: int = 0, **labels: str) -> Workload:
    """Return a Deployment of two pods with 1 CPU that ask for GPUs and labels."""
    requests = Resources(1000, GIB, 1, extended=((GPU, gpus),) if gpus else ())
    return deployment("web", 2, requests=requests, constraints=NodeConstraints(tuple(sorted(labels.items()))))


def near(*terms: tuple[Requirement, ...], **labels: str) -> Workload:
    """Return such a Deployment with required node affinity."""
    affinity = tuple(NodeSelectorTerm(term) for term in terms)
    return deployment("web", 2, constraints=NodeConstraints(tuple(sorted(labels.items())), affinity))


@pytest.mark.parametrize(
    ("offers", "web", "reason"),
    [
        (
            WITH_GPUS,
            asking(4, **{ACCELERATOR: "nvidia-l4"}),
            f"requests 4 {GPU} on a node with {ACCELERATOR}=nvidia-l4; "
            "the largest offering that admits it, g2, has 2 free",
        ),
        (WITH_GPUS, asking(4), f"requests 4 {GPU}; the largest offering that admits it, g2, has 2 free"),
        (PLAIN, asking(1), f"requests 1 {GPU}; no offering that admits it has any of that"),
        (
            PLAIN,
            deployment("web", 2, 9000, constraints=NodeConstraints(((ZONE, "zone-b"),))),
            f"requests 9 CPU on a node with {ZONE}=zone-b; the largest offering that admits it, m8, has 8 free",
        ),
        (
            catalogue(offering("narrow", 0.2, 8000, 8), offering("deep", 0.2, 2000, 64)),
            deployment("web", 2, 7000, 30),
            "requests 7 CPU and 30 GiB of memory; no offering that admits it has all of that free",
        ),
        (
            PLAIN,
            asking(**{ZONE: "zone-q"}),
            f"no offering has the label {ZONE}=zone-q of its nodeSelector; they have zone-a, zone-b",
        ),
        (
            PLAIN,
            asking(disk="ssd"),
            "no offering has the label disk=ssd of its nodeSelector; none has that label at all",
        ),
        (
            APART,
            asking(disk="ssd", net="fast"),
            "no offering has all labels of its nodeSelector together: disk=ssd, net=fast",
        ),
        (
            APART,
            near((Requirement(ZONE, "NotIn", ("zone-a",)),), (Requirement("gpu", "Exists"),), disk="ssd"),
            f"no offering with disk=ssd satisfies its node affinity: {ZONE} NotIn (zone-a) or gpu Exists",
        ),
        (PLAIN, near(), "no offering satisfies its node affinity: a term that no node matches"),
        (DEDICATED, asking(), "every offering has a taint that it does not tolerate: dedicated=db:NoSchedule"),
        (
            DEDICATED,
            deployment(
                "web",
                2,
                constraints=NodeConstraints((("for", "db"),), tolerations=(Toleration("dedicated", value="web"),)),
            ),
            "every offering that its labels select has a taint that it does not tolerate: dedicated=db:NoSchedule",
        ),
        (Catalogue({}, ()), asking(), "nothing is on offer, and no existing node can hold it"),
    ],
)
def test_a_pod_that_fits_nowhere_is_told_with_what_stands_against_it(
    offers: Catalogue, web: Workload, reason: str
) -> None:
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=2)), offers))
    assert plan.unplaced[web.key].count == 2
    assert plan.unplaced[web.key].reason == reason


def test_a_pod_that_only_full_nodes_could_hold_says_so() -> None:
    web = deployment("web", 3, cpu=2000)
    plan = planned(inputs(snapshot([node("a")], [web], pods_of(web, {"a": 2}, pending=1)), Catalogue({}, ())))
    assert plan.unplaced[web.key].reason == "only existing nodes could hold it, and they have no room left"


def test_the_table_names_limits_that_cannot_be_met() -> None:
    # Of a pool that must have three nodes and may have two.
    web = deployment("web", 1)
    given = inputs(snapshot([], [web], pods_of(web, pending=1)), catalogue(offering(pool="a", minimum=3, maximum=2)))
    out = io.StringIO()
    show_plan(planned(given), given, Console(file=out, width=160))
    assert "pool-minimum a/zone-a: 3 nodes, but at most 2 may be had" in out.getvalue()
