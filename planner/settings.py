"""Every knob: meaning, unit, default and why, and what is right for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from planner.quantities import MILLI, parse_quantity
from planner.selectors import parse_selector
from planner.windows import parse_window


@dataclass(frozen=True, slots=True)
class StabilitySettings:
    """When the observer lets an iteration begin."""

    pending_grace_seconds: float = 300.0
    """How long pods that nothing can hold block an iteration. 5 min: another autoscaler may be at work; after
    that the plan places them itself."""

    autoscaler_threshold: float = 1.1
    """An autoscaler whose metric is above this multiple of its target blocks. 1.1 is the tolerance of the
    HorizontalPodAutoscaler itself: above it, it is about to scale."""

    def __post_init__(self) -> None:
        _check(self.pending_grace_seconds >= 0, "stability.pending_grace_seconds", "0 or more")
        _check(self.autoscaler_threshold > 0, "stability.autoscaler_threshold", "above 0")


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """Whether and how requests follow the measured usage."""

    kind: Literal["none", "regression"] = "none"
    """"none" plans with the requests as they are: the safe start. "regression" fits a line to the usage."""

    prometheus_url: str = ""
    """The base URL of Prometheus' HTTP API, such as http://prometheus.monitoring:9090; needed by "regression"."""

    window_seconds: float = 86400.0
    """How much history is read. A day holds one daily cycle, so the line is not a slope of the morning."""

    step_seconds: float = 300.0
    """Resolution of the history. 5 min: 288 samples a day, far below Prometheus' limit of 11,000 a series."""

    horizon_seconds: float = 3600.0
    """How far ahead the requests must hold. 1 h is longer than an iteration with boots and roll-outs."""

    margin: float = 0.15
    """Share added to the forecast. 0.15 is what the VPA recommender adds (its default safety margin)."""

    adjustment_threshold: float = 0.1
    """Requests change only by more than this share: each change rolls the workload."""

    def __post_init__(self) -> None:
        _check(self.kind == "none" or bool(self.prometheus_url), "predictor.prometheus_url", "set, for regression")
        for name in ("window_seconds", "step_seconds", "horizon_seconds"):
            _check(getattr(self, name) > 0, f"predictor.{name}", "above 0")
        _check(self.step_seconds <= self.window_seconds, "predictor.step_seconds", "at most window_seconds")
        _check(0 <= self.margin <= 10, "predictor.margin", "between 0 and 10")
        _check(0 <= self.adjustment_threshold < 1, "predictor.adjustment_threshold", "between 0 and 1")


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """One of the times at which nodes' predicted CPU utilisation is kept under a cap."""

    name: str
    """What plans and messages call it."""

    when: str
    """Days, times and an IANA time zone, such as "Mon-Fri 06:30-20:30 Europe/Berlin", by that zone's clock. An end that
    is not after the start is on the next day; a whole day is 00:00-24:00."""

    cpu_utilization_cap: float
    """The largest share of its allocatable CPU that all pods of a node together may be predicted to use, with at most
    three decimals. 0.7 leaves room for the bursts that a line through the usage does not see."""

    def __post_init__(self) -> None:
        _check(bool(self.name) and self.name != "cost", "name", "a name other than cost")
        try:
            parse_window(self.when)
        except ValueError as error:
            raise ValueError(f'when must be such as "Mon-Fri 06:30-20:30 Europe/Berlin" ({error})') from None
        right = "above 0, at most 1, with at most three decimals"
        _check(self.cpu_utilization_cap > 0 and _in_permille(self.cpu_utilization_cap), "cpu_utilization_cap", right)

    @property
    def cap_permille(self) -> int:
        return round(self.cpu_utilization_cap * 1000)


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """What is minimised when: the cost, always with the price of change, within windows under a cap on CPU."""

    windows: tuple[WindowSettings, ...] = ()
    """When nodes' predicted CPU utilisation is kept under a cap; of windows that overlap the first counts. Outside of
    all the objective is cost alone. The variable holds the list as YAML. What is predicted comes from
    `predictor.prometheus_url`, whatever the predictor's kind; where that is empty CPU requests count as usage."""

    def __post_init__(self) -> None:
        names = [window.name for window in self.windows]
        for index, name in enumerate(names):
            _check(name not in names[:index], f"objective.windows[{index}].name", "one that no earlier window has")

    def window_at(self, seconds: float) -> WindowSettings | None:
        """Return the first window that covers this moment, in seconds since the epoch."""
        return next((window for window in self.windows if parse_window(window.when).covers(seconds)), None)


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """With what effort the optimizer looks for a plan, and what change costs."""

    solver: str = "HIGHS"
    """A mixed-integer solver of cvxpy: HIGHS (default, the fastest free one) or GLPK_MI; others if installed."""

    time_limit_seconds: float = 60.0
    """When the best plan so far is taken. A minute is little beside the boots that follow."""

    memory_limit_bytes: int = 2 * 1024**3
    """Address space of the solver's process beyond what its libraries map; a runaway solve must not end the planner."""

    target_gap: float = 0.0005
    """The solve ends when (value - bound) / value is below this. 0.0005: half a dollar in a thousand."""

    payback_hours: int = 24
    """Over how many hours a move must pay for itself: clusters change daily."""

    move_cost_usd: float = 0.001
    """What recreating one pod costs, once. Small: it breaks ties towards standing still."""

    boot_overlap_seconds: float = 900.0
    """How long a removed node still runs beside its replacement, for the price of change. 15 min: boot, roll, drain."""

    preference_usd_per_hour: float = 0.00001
    """What it costs in a plan that a pod is wholly displeased: on a node with a taint of the effect PreferNoSchedule
    that it does not tolerate, and that matches none of its preferred node affinity. 0.00001 is a quarter of the price
    of a move, so that no pod moves for it; 0: preferences are ignored."""

    preference_ceiling_usd_per_hour: float = 0.001
    """What all pods together may cost by that: where they are many, each counts less. A plan that is dearer by more
    never wins by what pods prefer. 0.001 is less than a dollar a month; who would pay for preferences raises both."""

    def __post_init__(self) -> None:
        _check(self.solver.isidentifier(), "optimizer.solver", "a solver's name such as HIGHS or GLPK_MI")
        _check(self.time_limit_seconds > 0, "optimizer.time_limit_seconds", "above 0")
        _check(self.memory_limit_bytes >= 2**28, "optimizer.memory_limit_bytes", "at least 268435456 (256 MiB)")
        _check(0 <= self.target_gap < 1, "optimizer.target_gap", "between 0 and 1")
        _check(self.payback_hours >= 1, "optimizer.payback_hours", "1 or more")
        _check(0 <= self.move_cost_usd <= 1000, "optimizer.move_cost_usd", "between 0 and 1000")
        _check(0 <= self.boot_overlap_seconds <= 86400, "optimizer.boot_overlap_seconds", "between 0 and one day")
        _check(0 <= self.preference_usd_per_hour <= 1000, "optimizer.preference_usd_per_hour", "between 0 and 1000")
        ceiling = self.preference_ceiling_usd_per_hour
        _check(0 <= ceiling <= 10**6, "optimizer.preference_ceiling_usd_per_hour", "between 0 and 1000000")

    @property
    def move_cost_nanousd(self) -> int:
        return round(self.move_cost_usd * 10**9)

    @property
    def preference_nanousd_per_hour(self) -> int:
        return round(self.preference_usd_per_hour * 10**9)

    @property
    def preference_ceiling_nanousd_per_hour(self) -> int:
        return round(self.preference_ceiling_usd_per_hour * 10**9)

    @property
    def boot_overlap_minutes(self) -> int:
        return round(self.boot_overlap_seconds / 60)


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    """When a plan is worth carrying out."""

    churn_limit: float = 0.1
    """A plan is dropped when this share of pods and nodes changed while it was made: it is for another cluster."""

    saving_threshold: float = 0.1
    """A plan must save more than this share of the present cost: a move is work and risk for every workload."""

    relief_threshold: float = 0.05
    """A plan that relieves a node which is above the cap by more than this share of the cap needs no saving. 0.05:
    nodes are filled to the cap, and usage that wavers a little must not move pods at every iteration."""

    def __post_init__(self) -> None:
        _check(0 < self.churn_limit <= 1, "processor.churn_limit", "above 0, at most 1")
        _check(0 <= self.saving_threshold < 1, "processor.saving_threshold", "between 0 and 1")
        _check(0 <= self.relief_threshold <= 10, "processor.relief_threshold", "between 0 and 10")


@dataclass(frozen=True, slots=True)
class MoveSettings:
    """How a plan is carried out."""

    steering: Literal["extender", "scheduler", "affinity"] = "scheduler"
    """What puts pods where the plan wants them: "extender" beside the cluster's own scheduler, "scheduler" a
    second kube-scheduler that workloads name (managed control planes), "affinity" preferred node affinity."""

    scheduler_name: str = "kinema-scheduler"
    """The schedulerName of the second kube-scheduler."""

    extender_url: str = ""
    """Where the extender can be asked whether it is ready; while it is not, no pod is moved. Empty: it is not asked."""

    publish_placement: bool = True
    """Whether nodes carry the placement annotation; without it labels alone steer (any planned node will do)."""

    unavailability_ceiling: float = 0.5
    """The largest share of a workload's replicas that may be unavailable at once, rounded down, even where its
    strategy and budgets allow more."""

    pin_local_storage: bool = False
    """Whether pods with emptyDir volumes stay; their data is lost in a move, as in any restart."""

    max_nodes_changed: int = 0
    """How many nodes one iteration may boot and remove, both counted; 0 is no ceiling. Further change waits for the
    next iteration. What the minimums of pools ask for is booted in any case."""

    max_pods_moved: int = 0
    """How many pods one iteration may move, all pods of a roll-out counted; 0 is no ceiling. The moves that save most
    come first, the others wait for the next iteration. Pods that wait for a node are no moves."""

    boot_timeout_seconds: float = 900.0
    """When machines that are not Ready by then are given up, and the plan with them."""

    standstill_timeout_seconds: float = 1800.0
    """When a plan of which nothing moves any more is given up: no pod made, no node joined for so long, be it that each
    eviction is refused. 30 min: longer than a termination grace of 10 min and a slow start after it."""

    iteration_timeout_seconds: float = 7200.0
    """When an iteration that has not ended is given up: marks are taken back, unused machines deleted."""

    poll_seconds: float = 5.0
    """Pause between two looks at the cluster while something is under way."""

    plan_ttl_seconds: float = 86400.0
    """How long after acceptance the placement steers; after it the extender ignores it."""

    def __post_init__(self) -> None:
        _check(0 < self.unavailability_ceiling <= 1, "move.unavailability_ceiling", "above 0, at most 1")
        for name in ("boot", "standstill", "iteration"):
            _check(getattr(self, f"{name}_timeout_seconds") > 0, f"move.{name}_timeout_seconds", "above 0")
        for name in ("poll_seconds", "plan_ttl_seconds"):
            _check(getattr(self, name) > 0, f"move.{name}", "above 0")
        _check(bool(self.scheduler_name), "move.scheduler_name", "not empty")
        for name in ("max_nodes_changed", "max_pods_moved"):
            _check(getattr(self, name) >= 0, f"move.{name}", "0 or more")


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Where the nodes come from."""

    provider: Literal["gcp", "none"] = "none"
    """The cloud's controller; "none" only plans and recommends, from the table that `machines` names."""

    project: str = ""
    """The Google Cloud project's id."""

    location: str = ""
    """The cluster's zone or region."""

    cluster: str = ""
    """The GKE cluster's name."""

    pools: tuple[str, ...] = ()
    """The node pools that Kinema may change. Never all by default: what it was not given it does not touch."""

    machines: str = ""
    """A CSV file of machine types with prices that replaces the built-in catalogue; needed by provider "none"."""

    compute_endpoint: str = ""
    """Another address of the Compute Engine API, such as a private endpoint; http:// means without credentials."""

    container_endpoint: str = ""
    """Another address of the Kubernetes Engine API (host:port, plaintext without credentials)."""

    def __post_init__(self) -> None:
        if self.provider == "gcp":
            for name in ("project", "location", "cluster"):
                _check(bool(getattr(self, name)), f"cloud.{name}", "set, for provider gcp")


@dataclass(frozen=True, slots=True)
class LimitsSettings:
    """How much all managed nodes together may be, as a NodePool's limits do for Karpenter.

    By what the nodes can allocate, those that exist included. A limit restricts growth: a cluster above it stays or
    shrinks. The same keys under `limits` in the file of `--pools` win over these.
    """

    nodes: int = 0
    """How many nodes; 0 is no limit."""

    cpu: str = ""
    """CPU of all of them, such as 100 or 64000m; empty is no limit."""

    memory: str = ""
    """Memory of all of them, such as 400Gi, counted in whole MiB; empty is no limit."""

    def __post_init__(self) -> None:
        _check(self.nodes >= 0, "limits.nodes", "0 or more")
        _check(_is_quantity(self.cpu, MILLI), "limits.cpu", "a quantity above 0 such as 100 or 64000m")
        _check(_is_quantity(self.memory, 1), "limits.memory", "a quantity above 0 such as 400Gi")

    @property
    def cpu_millicores(self) -> int | None:
        return parse_quantity(self.cpu, MILLI) if self.cpu else None

    @property
    def memory_bytes(self) -> int | None:
        return parse_quantity(self.memory) if self.memory else None


@dataclass(frozen=True, slots=True)
class SpotSettings:
    """Who may run on spot nodes, and how much of the cluster they may be.

    `workloads` and `maxShare` under `spot` in the file of `--pools` win over these.
    """

    workloads: str = ""
    """A label selector, such as "tier in (batch)", on the labels of the pods that may come to spot nodes. Empty: every
    pod that its own selectors and tolerations let there. Pods that run on a spot node already may stay there."""

    max_share: float = 1.0
    """The largest share of spot in the CPU of all managed nodes, with at most three decimals; 1 is no ceiling. It
    restricts growth: a cluster above it stays or shrinks its share."""

    def __post_init__(self) -> None:
        _check(_is_selector(self.workloads), "spot.workloads", 'a label selector such as "tier in (batch)"')
        _check(_in_permille(self.max_share), "spot.max_share", "between 0 and 1, with at most three decimals")

    @property
    def max_share_permille(self) -> int:
        return round(self.max_share * 1000)


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """Which of several planners acts."""

    namespace: str = "kube-system"
    """Where the Lease and the plan's ConfigMap are."""

    lease_name: str = "kinema-planner"
    """The Lease's name; RBAC names it too."""

    identity: str = ""
    """Who this planner is; empty: the host's name and a random part."""

    duration_seconds: float = 15.0
    """How long a Lease lasts without renewal. 15 s is what the control plane's own components use."""

    def __post_init__(self) -> None:
        _check(self.duration_seconds >= 1, "leader.duration_seconds", "1 or more")
        _check(bool(self.namespace) and bool(self.lease_name), "leader.namespace and leader.lease_name", "not empty")


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The planner's HTTP face: webhook, health and metrics."""

    bind: str = "0.0.0.0:8080"
    """Address and port that gunicorn listens on. All addresses: probes, Prometheus and the webhook's caller
    come from outside the pod; a NetworkPolicy says who may."""

    cache_seconds: float = 3.0
    """How long a reading of the cluster is answered from. 3 s: far below the 30 s between two reviews of a
    caller, and a burst of reviews, one a pool, makes one reading."""

    def __post_init__(self) -> None:
        host, _, port = self.bind.rpartition(":")
        _check(bool(host) and port.isdecimal() and int(port) <= 65535, "web.bind", "host:port, such as 0.0.0.0:8080")
        _check(0 < self.cache_seconds <= 60, "web.cache_seconds", "above 0, at most 60")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a user can set."""

    mode: Literal["recommend", "apply"] = "recommend"
    """"recommend" plans and reports and changes nothing; "apply" acts. Trust is earned first."""

    interval_seconds: float = 900.0
    """Pause between two iterations. 15 min: an iteration with boots takes about as long."""

    kubeconfig: str = ""
    """Path of a kubeconfig; empty: the Pod's ServiceAccount, else $KUBECONFIG, else ~/.kube/config."""

    metrics_port: int = 9090
    """Port of `kinema run`'s own metrics on all addresses; 0 switches them off."""

    stability: StabilitySettings = field(default_factory=StabilitySettings)
    predictor: PredictorSettings = field(default_factory=PredictorSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    processor: ProcessorSettings = field(default_factory=ProcessorSettings)
    move: MoveSettings = field(default_factory=MoveSettings)
    cloud: CloudSettings = field(default_factory=CloudSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    spot: SpotSettings = field(default_factory=SpotSettings)
    leader: LeaderSettings = field(default_factory=LeaderSettings)
    web: WebSettings = field(default_factory=WebSettings)

    def __post_init__(self) -> None:
        _check(self.interval_seconds > 0, "interval_seconds", "above 0")
        _check(0 <= self.metrics_port <= 65535, "metrics_port", "between 0 and 65535")


def _check(holds: bool, name: str, right: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {right}")


def _is_quantity(text: str, scale: int) -> bool:
    try:
        return not text or parse_quantity(text, scale) > 0
    except ValueError:
        return False


def _in_permille(share: float) -> bool:
    """Say whether a share is between 0 and 1 and has at most three decimals."""
    return 0 <= share <= 1 and abs(share * 1000 - round(share * 1000)) < 1e-9


def _is_selector(text: str) -> bool:
    try:
        parse_selector(text)
    except ValueError:
        return False
    return True
