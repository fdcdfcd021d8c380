"""The objective "cost with every node's predicted CPU utilisation under a cap"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COST = "cost"
"""The objective without a cap, as users call it."""

_WHOLE_PERMILLE = 1000


@dataclass(frozen=True, slots=True)
class CpuCap:
    """The cap in thousandths of a node's allocatable CPU, the `window` that chose it, and what is predicted.

    `usage_millicores` is what one pod of each workload will use, DaemonSets included. `allowed_millicores` names the
    nodes that stay above the cap because their pods have no other place, and what all pods of each may use together.
    """

    permille: int
    window: str
    usage_millicores: Mapping[str, int] = field(default_factory=dict)
    allowed_millicores: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The objective as a plan names it."""
        return f"{COST} under cpu utilization <= {self.permille / _WHOLE_PERMILLE:g}"

    def room_millicores(self, allocatable_millicores: int) -> int:
        """Return what the pods of a node with this CPU may be predicted to use, rounded down."""
        return allocatable_millicores * self.permille // _WHOLE_PERMILLE

    def limit_millicores(self, node: str, allocatable_millicores: int) -> int:
        """Return the same for an existing node, which may be allowed more."""
        return max(self.room_millicores(allocatable_millicores), self.allowed_millicores.get(node, 0))


def objective_name(cap: CpuCap | None) -> str:
    """Return the objective as a plan names it."""
    return COST if cap is None else cap.name
