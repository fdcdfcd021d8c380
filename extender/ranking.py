"""Open places of one kind by node, kept in the order in which they are given away."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator


class Ranking:
    """Nodes with open places: iteration gives the one with the most places first, equals by name.

    A change costs two binary searches, so that a request reads the best node without looking at the others.
    """

    __slots__ = ("_order", "_places")

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._order: list[tuple[int, str]] = []

    @classmethod
    def sum_of(cls, rankings: Iterable[Ranking]) -> Ranking:
        """Return the places of several kinds together."""
        total = cls()
        for ranking in rankings:
            for name, places in ranking._places.items():
                total._places[name] = total._places.get(name, 0) + places
        total._order = sorted((-places, name) for name, places in total._places.items())
        return total

    def add(self, name: str, places: int) -> None:
        """Change how many places a node has by an amount that may be negative; at 0 the node leaves."""
        before = self._places.pop(name, 0)
        if before:
            del self._order[bisect_left(self._order, (-before, name))]
        if before + places > 0:
            self._places[name] = before + places
            insort(self._order, (-before - places, name))

    def __contains__(self, name: object, /) -> bool:
        """Tell whether the node has an open place."""
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        """Yield the nodes, the one with the most places first."""
        return (name for _, name in self._order)

    def __len__(self) -> int:
        """Return how many nodes have open places."""
        return len(self._places)
