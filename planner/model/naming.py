"""Names of the nodes that a plan boots."""

from __future__ import annotations

_LIMIT = 63


def node_name(pool: str, iteration: str, index: int) -> str:
    """Return a DNS-1123 label of at most 63 characters: as much of the pool as fits, the iteration, the index."""
    tail = f"-{_label(iteration)}-{index}"
    return _label(pool[:40])[: _LIMIT - len(tail)].strip("-") + tail


def _label(text: str) -> str:
    return "".join(ch if ch.isascii() and ch.isalnum() else "-" for ch in text.lower()).strip("-") or "node"
