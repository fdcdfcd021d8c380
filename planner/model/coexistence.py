"""Which pods may stand together: host ports, required pod (anti-)affinity and hard topology spread.

What is decided on each node by itself becomes a share of the node (`Resources.shares`), a resource like any other:

- a host port: the whole share;
- anti-affinity by host name: a pod that carries the term takes the whole share, one that is only matched takes one
  part of it, so that matched pods share a node among themselves and never with one that carries the term. Pods that
  carry it and are not matched themselves are one side and matched pods the other, of which a node has one;
- spread by host name: 1 / maxSkew for each matching pod. The emptiest node is taken to be empty, since a new node
  may always come (Karpenter counts in the same way), so that no node may hold more than maxSkew.

What is decided over several nodes (a zone, a rack) is kept by keeping each pod in the domain where it is: the numbers
of pods by domain then stay what they are, and every rule that holds goes on to hold, whatever else it is about. A pod
without a node is given a domain first (`planner.model.domains`).

Required affinity by host name is a matter of which pods move together (`planner.model.companions`).

What none of it covers is named in `Pod.unmodelled`. Source of the rules: kube-scheduler's plugins NodePorts,
InterPodAffinity and PodTopologySpread.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.model.cluster import HOSTNAME, Node, Pod
from planner.model.resources import BEARER, TARGET, WHOLE_NODE, Resources, other_side
from planner.model.scheduling import LabelSelector, NodeConstraints, PodRules, PodTerm, Spread

_FINEST_SKEW = 848
"""Up to this maximum skew a share is exact (see WHOLE_NODE)."""

MOST_SIDED = 31
"""Of so many terms the two sides are told apart (two bits of 64 each); of further ones each pod that carries the term
gets a node without any that it matches or that carries it."""


def interpreted(
    nodes: Sequence[Node], pods: Sequence[Pod], templates: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Pod, ...]:
    """Return the pods with their shares of a node, the domains that they keep, and what of their rules is not modelled.

    Where the present state breaks a rule (a label was changed later, or even the emptiest node holds some), the pods
    that break it stay where they are. So does a pod of which a rule would think otherwise once it is made anew, with
    the labels of its workload's template; `templates` has those by workload.
    """
    if all(pod.rules == PodRules() for pod in pods if not pod.finished):
        return tuple(pods)
    kinds = kinds_of(pods)
    by_name, views = {node.name: node for node in nodes}, Views(nodes)
    clipped: dict[int, dict[str, int]] = defaultdict(dict)
    for exclusion in _exclusions(kinds):
        _add_shares(exclusion, kinds, by_name.keys(), clipped)
    for kind in kinds:
        _keep_domains(kind, kinds)
        _hold_where_skewed(kind, kinds, by_name, views)
        _hold_where_broken(kind, kinds, by_name)
    found: dict[int, Pod] = {}
    asked = asked_keys(pods) - _GIVEN_BY_CONTROLLERS
    # Pods of one size with the same shares have one value of requests: grouping them is a matter of identity.
    sharing: dict[tuple[Resources, tuple[tuple[str, int], ...]], Resources] = {}
    for kind in kinds:
        keeps, own_shares = tuple(sorted(kind.keeps)), port_shares(kind.rules) | kind.shares
        for pod in kind.pods:
            shares = own_shares | clipped[id(pod)] if id(pod) in clipped else own_shares
            reasons = [*kind.reasons, *kind.reasons_on.get(pod.node or "", ())]
            node = by_name.get(pod.node or "")
            own = (templates or {}).get(pod.workload) if node else None
            if own is not None and any(pod.labels.get(key) != own.get(key) for key in asked):
                reasons += [
                    f"its label {key}, for which a rule asks, is not that of its workload's template"
                    for key in sorted(asked)
                    if pod.labels.get(key) != own.get(key)
                ]
            reasons += [
                f"a rule over {key}, a label that its node lacks" for key in keeps if node and key not in node.labels
            ]
            if not (shares or keeps or reasons):
                continue
            taken = tuple(sorted((n, s) for n, s in shares.items() if s))
            found[id(pod)] = replace(
                pod,
                requests=sharing.setdefault((pod.requests, taken), pod.requests.with_shares(taken)),
                keeps=keeps,
                unmodelled=(*pod.unmodelled, *dict.fromkeys(reasons)),
            )
    return tuple(found.get(id(pod), pod) for pod in pods)


_GIVEN_BY_CONTROLLERS = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    }
)
"""Labels of pods that no template has."""


@dataclass(slots=True, eq=False)
class Kind:
    """Pods that no rule tells apart: equal namespace, rules, and labels as far as any selector asks for them.

    `on` counts them by node. `reasons` says what is not modelled of them, `reasons_on` what holds those on a node.
    """

    namespace: str
    labels: Mapping[str, str]
    rules: PodRules
    pods: list[Pod] = field(default_factory=list)
    on: Counter[str] = field(default_factory=Counter)
    shares: dict[str, int] = field(default_factory=dict)
    keeps: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    reasons_on: dict[str, list[str]] = field(default_factory=dict)

    def matched_by(self, term: PodTerm) -> bool:
        return term.matches(self.namespace, self.labels)

    def sought_by(self, rules: PodRules) -> bool:
        return rules.seeks(self.namespace, self.labels)

    def counts_for(self, spread: Spread, namespace: str) -> bool:
        return self.namespace == namespace and spread.selector.matches(self.labels)

    def hold(self, node: str, reason: str) -> None:
        self.reasons_on.setdefault(node, []).append(reason)


def port_shares(rules: PodRules) -> dict[str, int]:
    """Return the shares of a node that the host ports take."""
    return {f"host port {port}/{protocol}": WHOLE_NODE for protocol, port in rules.host_ports}


def kinds_of(pods: Iterable[Pod]) -> list[Kind]:
    """Sort the pods that are not finished into kinds."""
    standing = [pod for pod in pods if not pod.finished]
    # A StatefulSet's pods each have a label of their own, which hardly any rule asks for.
    asked = sorted(asked_keys(standing))
    found: dict[tuple[str, tuple[str | None, ...], int], Kind] = {}
    # Pods of one reading share equal rules, so that few are really compared.
    numbers: dict[PodRules, int] = {}
    number_of = {
        key: numbers.setdefault(rules, len(numbers)) for key, rules in {id(p.rules): p.rules for p in standing}.items()
    }
    for pod in standing:
        values = tuple(map(pod.labels.get, asked))
        key = (pod.namespace, values, number_of[id(pod.rules)])
        kind = found.get(key)
        if kind is None:
            labels = {name: value for name, value in zip(asked, values, strict=True) if value is not None}
            kind = found[key] = Kind(pod.namespace, labels, pod.rules)
        kind.pods.append(pod)
        if pod.node is not None:
            kind.on[pod.node] += 1
    return list(found.values())


def asked_keys(pods: Iterable[Pod]) -> set[str]:
    """Name the labels for which any rule of these pods asks, finished ones left out."""
    found: set[str] = set()
    # Pods of one reading share equal rules, so that few are really compared.
    for rules in set({id(pod.rules): pod.rules for pod in pods if not pod.finished}.values()):
        selectors = [term.selector for term in (*rules.affinity, *rules.anti_affinity)]
        for selector in (*selectors, *(spread.selector for spread in rules.spreads)):
            found.update(requirement.key for requirement in (selector.requirements if selector else ()))
    return found


@dataclass(frozen=True, slots=True)
class _Exclusion:
    """One rule by host name: the name of its share, and how much of it a pod of each kind takes."""

    name: str
    weights: tuple[tuple[Kind, int], ...]


def _exclusions(kinds: Sequence[Kind]) -> Iterator[_Exclusion]:
    terms: dict[PodTerm, list[Kind]] = defaultdict(list)
    spreads: dict[tuple[str, LabelSelector, int], None] = {}
    for kind in kinds:
        for term in dict.fromkeys(kind.rules.anti_affinity):
            if term.topology_key == HOSTNAME:
                terms[term].append(kind)
        for spread in kind.rules.spreads:
            if not kind.counts_for(spread, kind.namespace):
                kind.reasons.append("a topology spread whose selector does not match the pod itself")
            elif spread.topology_key == HOSTNAME and spread.max_skew > _FINEST_SKEW:
                kind.reasons.append(f"a topology spread with a maxSkew above {_FINEST_SKEW}")
            elif spread.topology_key == HOSTNAME:
                spreads[(kind.namespace, spread.selector, spread.max_skew)] = None
    sided = 0
    for term, carriers in terms.items():
        where = "all namespaces" if term.namespaces is None else ", ".join(sorted(term.namespaces))
        name = f"anti-affinity to {text_of(term.selector)} in {where}"
        matched = [kind for kind in kinds if kind.matched_by(term)]
        paired, alone = carriers, [kind for kind in carriers if kind not in matched]
        if alone and sided < MOST_SIDED:
            sided += 1
            yield _Exclusion(name + BEARER, tuple((kind, 1) for kind in alone))
            yield _Exclusion(name + TARGET, tuple((kind, 1) for kind in matched))
            paired = [kind for kind in carriers if kind in matched]
        if paired:
            others = [kind for kind in matched if kind not in paired]
            yield _Exclusion(name, (*((kind, WHOLE_NODE) for kind in paired), *((kind, 1) for kind in others)))
    for namespace, selector, skew in spreads:
        counted = (kind for kind in kinds if kind.namespace == namespace and selector.matches(kind.labels))
        name = f"spread of {text_of(selector)} in {namespace} with maxSkew {skew}"
        yield _Exclusion(name, tuple((kind, WHOLE_NODE // skew) for kind in counted))


def text_of(selector: LabelSelector | None) -> str:
    """Write a selector down for a person; different selectors have different texts."""
    if selector is None or not selector.requirements:
        return "every pod"
    parts = (f"{r.key} {r.operator}" + (f" ({', '.join(r.values)})" if r.values else "") for r in selector.requirements)
    return " and ".join(parts)


def _add_shares(
    rule: _Exclusion, kinds: Sequence[Kind], nodes: Iterable[str], clipped: dict[int, dict[str, int]]
) -> None:
    """Give each kind its share; where pods of one node take more than it has, they stay there and take just that."""
    load: Counter[str] = Counter()
    for kind, weight in rule.weights:
        kind.shares[rule.name] = weight
        for node, count in kind.on.items():
            load[node] += weight * count
    if (other := other_side(rule.name)) is not None:
        _hold_beside(rule, [kind for kind in kinds if other in kind.shares])
        return
    left = {node: WHOLE_NODE for node in nodes if load[node] > WHOLE_NODE}
    if not left:
        return
    for kind, _ in rule.weights:
        for node in left.keys() & kind.on.keys():
            kind.hold(node, f"{rule.name}, which does not hold on its node")
    # What is being deleted leaves its share to those that stay.
    for deleting in (False, True):
        for kind, weight in rule.weights:
            for pod in kind.pods:
                if pod.node in left and pod.deleting == deleting:
                    clipped[id(pod)][rule.name] = min(weight, left[pod.node])
                    left[pod.node] -= min(weight, left[pod.node])


def _hold_beside(rule: _Exclusion, others: Sequence[Kind]) -> None:
    """Hold the pods of both sides on each node that has both; their marks keep further ones of either away."""
    own = [kind for kind, _ in rule.weights]
    both = {node for kind in own for node in kind.on} & {node for kind in others for node in kind.on}
    for kind in (*own, *others):
        for node in both & kind.on.keys():
            kind.hold(node, f"{rule.name}, which does not hold on its node")


def _keep_domains(kind: Kind, kinds: Sequence[Kind]) -> None:
    """Let the pods of a kind, and those that its rules are about, keep their domains."""
    for terms, sought in ((kind.rules.affinity, True), (kind.rules.anti_affinity, False)):
        for term in terms:
            if term.topology_key != HOSTNAME:
                for other in kinds:
                    if other is kind or (other.sought_by(kind.rules) if sought else other.matched_by(term)):
                        other.keeps.add(term.topology_key)
    for spread in kind.rules.spreads:
        if spread.topology_key != HOSTNAME:
            for other in kinds:
                if other.counts_for(spread, kind.namespace):
                    other.keeps.add(spread.topology_key)


def _hold_where_skewed(kind: Kind, kinds: Sequence[Kind], nodes: Mapping[str, Node], views: Views) -> None:
    """Hold the pods whose spread over domains would not admit them where they are, were they made anew."""
    for spread in kind.rules.spreads:
        if spread.topology_key == HOSTNAME or not kind.on:
            continue
        counts = domain_counts(spread, kind.pods[0], views, counted_on(spread, kind.namespace, kinds))
        for name in kind.on.keys() & nodes.keys():
            domain = nodes[name].labels.get(spread.topology_key)
            if domain in counts and excess(spread, counts, domain) > 0:
                kind.hold(name, f"its spread over {spread.topology_key}, which does not hold in {domain}")


def _hold_where_broken(kind: Kind, kinds: Sequence[Kind], nodes: Mapping[str, Node]) -> None:
    """Hold the pods whose affinity or anti-affinity over domains would not admit them where they are, made anew."""
    if not kind.on:
        return
    sought = [other for other in kinds if other.sought_by(kind.rules)]
    alone = kind in sought and sum(other.on.total() for other in sought) == 1
    for term in dict.fromkeys(kind.rules.affinity if not alone else ()):
        if term.topology_key != HOSTNAME:
            _hold_where(kind, term, sought, nodes, near=True)
    for term in dict.fromkeys(kind.rules.anti_affinity):
        if term.topology_key != HOSTNAME:
            _hold_where(kind, term, [other for other in kinds if other.matched_by(term)], nodes, near=False)


def _hold_where(kind: Kind, term: PodTerm, matched: Sequence[Kind], nodes: Mapping[str, Node], near: bool) -> None:
    """Hold all that the term is about in the domains where it does not hold: others must be there, or not (`near`)."""
    counts = sum((_by_domain(other, term.topology_key, nodes) for other in matched), Counter[str]())
    for domain in _by_domain(kind, term.topology_key, nodes):
        if (counts[domain] - (kind in matched) > 0) == near:
            continue
        rule = "podAffinity" if near else "podAntiAffinity"
        for other in (kind, *matched):
            for name in other.on.keys() & nodes.keys():
                if nodes[name].labels.get(term.topology_key) == domain:
                    other.hold(name, f"a required {rule} to {text_of(term.selector)} in {domain}, which does not hold")


def _by_domain(kind: Kind, key: str, nodes: Mapping[str, Node]) -> Counter[str]:
    """Count the pods of a kind by domain."""
    found: Counter[str] = Counter()
    for name, count in kind.on.items():
        domain = nodes[name].labels.get(key) if name in nodes else None
        if domain is not None:
            found[domain] += count
    return found


def counted_on(spread: Spread, namespace: str, kinds: Iterable[Kind]) -> Counter[str]:
    """Count the live pods that the spread is about, by node."""
    return Counter(
        pod.node
        for kind in kinds
        if kind.counts_for(spread, namespace)
        for pod in kind.pods
        if pod.node is not None and not pod.deleting
    )


class Views:
    """Which nodes count for a spread, each with its domain; the pods of many workloads see the same ones."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._seen: dict[Hashable, dict[str, str]] = {}

    def domains(self, spread: Spread, constraints: NodeConstraints) -> Mapping[str, str]:
        """Return the domain of each node, by name, that counts for a pod of these constraints."""
        view = spread.view(constraints)
        if view not in self._seen:
            self._seen[view] = {
                node.name: node.labels[spread.topology_key]
                for node in self._nodes
                if spread.topology_key in node.labels
                and spread.regards(constraints, node.labels, node.name, node.taints)
            }
        return self._seen[view]


def domain_counts(spread: Spread, pod: Pod, views: Views, on: Mapping[str, int]) -> dict[str, int]:
    """Return how many of the pods stand in each domain of the spread that is open to this pod; `on` counts by node."""
    domains = views.domains(spread, pod.constraints)
    found = dict.fromkeys(domains.values(), 0)
    for node in on.keys() & domains.keys():
        found[domains[node]] += on[node]
    return found


def excess(spread: Spread, counts: Mapping[str, int], domain: str) -> int:
    """Return by how much a pod of this domain exceeds the maximum skew if it is made anew there; up to 0 it holds.

    n - min(fewest pods of any other domain, n - 1) - maxSkew, with n pods in the domain now; the fewest are 0 where
    there are fewer than minDomains domains.
    """
    here = counts[domain]
    others = [count for other, count in counts.items() if other != domain]
    fewest = min([here - 1, *others]) if len(counts) >= spread.min_domains else 0
    return here - fewest - spread.max_skew


def surge_hindrances(nodes: Sequence[Node], pods: Sequence[Pod]) -> dict[str, str]:
    """Return for each workload whose new pods could not stand beside its old ones, in their own domains, the reason.

    A spread holds on the way of a roll-out if there is always a domain with an open target that admits a new pod:
    max(n + w) - min n <= maxSkew over its domains, with n counted pods in each, w of them the workload's own; the
    fewest are 0 where there are fewer than minDomains domains.
    """
    found: dict[str, str] = {}
    kinds, views = kinds_of(pods), Views(nodes)
    asking = [kind for kind in kinds if kind.rules != PodRules()]
    for kind in asking:
        sample = kind.pods[0]
        why = "a volume of its pods can be attached to one node only" if kind.rules.holds_volume else ""
        for term in kind.rules.anti_affinity:
            if term.topology_key != HOSTNAME and kind.matched_by(term):
                why = f"its pods must stand apart by {term.topology_key}"
        for spread in kind.rules.spreads:
            if spread.topology_key == HOSTNAME:
                continue
            counted = domain_counts(spread, sample, views, counted_on(spread, kind.namespace, kinds))
            own = domain_counts(spread, sample, views, Counter(p.node for p in kind.pods if p.node and p.live))
            if not counted:
                continue
            fewest = min(counted.values()) if len(counted) >= spread.min_domains else 0
            if max(counted[d] + own[d] for d in counted) - fewest > spread.max_skew:
                why = f"its spread over {spread.topology_key} does not hold beside its old pods"
        if why:
            found.update(dict.fromkeys((pod.workload for pod in kind.pods), why))
    return found
