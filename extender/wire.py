"""The messages of a scheduler, extender/v1, and our answers; the only JSON of the requests.

Go writes the keys in capitals and reads them in any case; keys that start in lower case are read here too.
An answer takes the form of its request: names for names, whole nodes for whole nodes. Candidates are decoded
only when a rule looks at them, since most answers need one name or send everything back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from extender.objects import PodObject
from extender.steering import EXPIRING_REFUSAL, HIGHEST_SCORE, Knowledge, Verdict

NAMED_LIMIT: Final = 100
"""Refused nodes that get a reason, and nodes whose scores are written although all are equal. The event that
shows reasons only counts equal ones, and 5,000 of either would cost more than the rest of the answer."""

_SEARCHES: Final = 8
"""Names that are searched for before all are decoded: with thousands of nodes a decoding costs about five searches."""

_MANY_BYTES: Final = 1 << 20
"""Of whole nodes; one takes 2 to 20 KB."""

_BEGINS_AS_NAMES: Final = re.compile(rb'\[\s*["\]]')
"""Names that are only sent back are looked at no further than this."""

_LOOKED_AT: Final = 2 * NAMED_LIMIT
"""Offered nodes among which the refused ones with a reason are looked for."""

_NAME_BYTES: Final = 64
"""Room for a name in the bytes that are searched for the first ones; GKE's take about 50."""

_PLAIN_NAME: Final = re.compile(rb'"([^"]*)"')

_NEXT: Final = ',{"Host":"'
_SCORED: Final = tuple(f'","Score":{score}}}{_NEXT}' for score in range(HIGHEST_SCORE + 1))
"""What follows a host's name up to the next one: joining these is four times faster than encoding structs."""

_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BadRequest(ValueError):
    """The body is no extender/v1 message; the text says why."""


_ABSENT: Final = msgspec.Raw()


class _Arguments(msgspec.Struct):
    pod: PodObject | None = msgspec.field(default=None, name="Pod")
    nodes: msgspec.Raw = msgspec.field(default=_ABSENT, name="Nodes")
    node_names: msgspec.Raw = msgspec.field(default=_ABSENT, name="NodeNames")
    lower_pod: PodObject | None = msgspec.field(default=None, name="pod")
    lower_nodes: msgspec.Raw = msgspec.field(default=_ABSENT, name="nodes")
    lower_node_names: msgspec.Raw = msgspec.field(default=_ABSENT, name="nodeNames")
    lowest_node_names: msgspec.Raw = msgspec.field(default=_ABSENT, name="nodenames")


class _ItemMetadata(msgspec.Struct):
    name: str


class _Item(msgspec.Struct):
    metadata: _ItemMetadata


class _NodeList(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


class _HostPriority(msgspec.Struct):
    host: str = msgspec.field(name="Host")
    score: int = msgspec.field(name="Score")


_arguments = msgspec.json.Decoder(_Arguments)
_name_list = msgspec.json.Decoder(list[str])
_node_list = msgspec.json.Decoder(_NodeList)
_item = msgspec.json.Decoder(_Item)


class NameCandidates:
    """Candidates of a names-only request, as the bytes that came."""

    def __init__(self, raw: bytes) -> None:
        if not _BEGINS_AS_NAMES.match(raw):
            raise BadRequest("NodeNames must be a list of strings")
        self._raw = raw
        self._searches = 0
        # Without a backslash every quoted name in the bytes is a whole string: it can be searched for, and needs
        # no escapes in an answer.
        self.are_plain = b"\\" not in raw
        self._names: tuple[str, ...] | None = None if self.are_plain else self._decode()
        self._offered: frozenset[str] | None = None

    def __contains__(self, name: str, /) -> bool:
        """Search the undecoded bytes, several times faster than decoding thousands of names."""
        if self._names is None and self._searches < _SEARCHES:
            self._searches += 1
            return f'"{name}"'.encode() in self._raw
        if self._offered is None:
            self._offered = frozenset(self.names())
        return name in self._offered

    def names(self) -> Sequence[str]:
        """Return every offered name."""
        if self._names is None:
            self._names = self._decode()
        return self._names

    def are_many(self) -> bool:
        """Tell whether more than `NAMED_LIMIT` nodes are offered, as far as the commas say."""
        return self._raw.count(b",") >= NAMED_LIMIT

    def first(self, limit: int) -> Sequence[str]:
        """Return about the first `limit` names, without decoding the others."""
        if self._names is not None:
            return self._names[:limit]
        found = _PLAIN_NAME.findall(self._raw, 0, limit * _NAME_BYTES)[:limit]
        return b"\n".join(found).decode(errors="replace").split("\n") if found else ()

    def answer(self, allowed: Sequence[str] | None) -> dict[str, object]:
        """Return the part of the answer that names the allowed nodes, all of them for None."""
        return {"NodeNames": msgspec.Raw(self._raw) if allowed is None else allowed}

    def _decode(self) -> tuple[str, ...]:
        try:
            return tuple(_name_list.decode(self._raw))
        except _FAULTS as error:
            raise BadRequest(f"NodeNames must be a list of strings: {error}") from None


class ObjectCandidates:
    """Candidates of a request with whole nodes; they are sent back as the bytes that came."""

    are_plain = False

    def __init__(self, raw: bytes) -> None:
        if not raw.startswith(b"{"):
            raise BadRequest("Nodes must be an object with items")
        self._raw = raw
        self._items: dict[str, msgspec.Raw] | None = None

    def __contains__(self, name: str, /) -> bool:
        """Look the name up among the nodes."""
        return name in self._decoded()

    def names(self) -> Sequence[str]:
        """Return every offered node's name."""
        return tuple(self._decoded())

    def are_many(self) -> bool:
        """Tell whether about `NAMED_LIMIT` nodes or more are offered, as far as their size says."""
        return len(self._raw) > _MANY_BYTES

    def first(self, limit: int) -> Sequence[str]:
        """Return the first `limit` names."""
        return list(itertools.islice(self._decoded(), limit))

    def answer(self, allowed: Sequence[str] | None) -> dict[str, object]:
        """Return the part of the answer that lists the allowed nodes, all of them for None."""
        if allowed is None:
            return {"Nodes": msgspec.Raw(self._raw)}
        items = self._decoded()
        return {"Nodes": {"items": [items[name] for name in allowed]}}

    def _decoded(self) -> dict[str, msgspec.Raw]:
        if self._items is None:
            try:
                items = _node_list.decode(self._raw).items or ()
                self._items = {_item.decode(item).metadata.name: item for item in items}
            except _FAULTS as error:
                raise BadRequest(f"Nodes must be a list of nodes with names: {error}") from None
        return self._items


@dataclass(frozen=True, slots=True)
class Request:
    """A filter or prioritize request: the pod, None where none was sent, and the nodes it may choose from."""

    pod: PodObject | None
    candidates: NameCandidates | ObjectCandidates


def read_request(body: bytes) -> Request:
    """Read the arguments of filter and prioritize.

    Raises:
        BadRequest: the body is no such message.
    """
    try:
        sent = _arguments.decode(body)
    except _FAULTS as error:
        raise BadRequest(f"the body is no extender/v1 ExtenderArgs: {error}") from None
    pod = sent.pod if sent.pod is not None else sent.lower_pod
    names = _given(sent.node_names, sent.lower_node_names, sent.lowest_node_names)
    if names is not None:
        return Request(pod, NameCandidates(names))
    nodes = _given(sent.nodes, sent.lower_nodes)
    if nodes is not None:
        return Request(pod, ObjectCandidates(nodes))
    raise BadRequest("neither Nodes nor NodeNames is set")


def write_everything(request: Request) -> bytes:
    """Answer a filter request with every node that it offered, undecoded."""
    return msgspec.json.encode(request.candidates.answer(None))


def write_verdict(request: Request, verdict: Verdict, known: Knowledge) -> bytes:
    """Answer a filter request with the allowed nodes, and a reason for the refused ones."""
    if verdict.allowed is None:
        return write_everything(request)
    answer = request.candidates.answer(verdict.allowed)
    allowed = set(verdict.allowed)
    refused = [name for name in request.candidates.first(_LOOKED_AT) if name not in allowed][:NAMED_LIMIT]
    reasons = dict.fromkeys(refused, verdict.refusal)
    if known.expiring:
        reasons.update((name, EXPIRING_REFUSAL) for name in refused if name in known.expiring)
    answer["FailedNodes"] = reasons
    return msgspec.json.encode(answer)


def write_scores(request: Request, scores: Sequence[int] | int) -> bytes:
    """Answer a prioritize request: a bare array of hosts and integer scores; one score holds for every node.

    Equal scores of very many nodes are left out. A node that is not named gets nothing added, which orders them
    as well as equal scores do, and neither side has to write or read them.
    """
    candidates = request.candidates
    if isinstance(scores, int):
        if candidates.are_many():
            return b"[]"
        scores = [scores] * len(candidates.names())
    names = candidates.names()
    if len(names) > NAMED_LIMIT and scores.count(scores[0]) == len(scores):
        return b"[]"
    if names and candidates.are_plain:
        pairs = zip(names, map(_SCORED.__getitem__, scores), strict=True)
        return ('[{"Host":"' + "".join(itertools.chain.from_iterable(pairs))[: -len(_NEXT)] + "]").encode()
    return msgspec.json.encode([_HostPriority(*pair) for pair in zip(names, scores, strict=True)])


def write_error(reason: str) -> bytes:
    """Answer a request that cannot be answered; the scheduler shows the text."""
    return msgspec.json.encode({"Error": reason})


def _given(*values: msgspec.Raw) -> bytes | None:
    """Return the first value that is neither absent nor null."""
    return next((raw for value in values if (raw := bytes(value)) not in (b"", b"null")), None)
