"""Which of several planners acts: leader election by a Lease, and the check before each destructive write.

The `kubernetes` package has an election of its own, but it ends in callbacks of a blocking loop and cannot be
asked again before a write; this one speaks through the ports, so that the simulator has it too.
Source: client-go's leaderelection (a Lease is taken over only after it was seen unchanged for its duration on
this planner's own clock, so that clocks need not agree).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from planner.errors import Conflict, KubernetesError, NotFound
from planner.ports import LEASES, Clock, Kubernetes
from planner.settings import LeaderSettings


@dataclass(slots=True)
class Leadership:
    """One planner's claim on the Lease. Safe to ask from one thread while another one renews."""

    kubernetes: Kubernetes
    clock: Clock
    settings: LeaderSettings
    identity: str
    _seen: tuple[str, str] = ("", "")
    _seen_at: float = 0.0
    _held_until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self) -> bool:
        """Acquire or renew the Lease; return whether this planner leads now.

        While the API is away a leader stays one until its Lease runs out.
        """
        with self._lock:
            return self._ensure()

    def _ensure(self) -> bool:
        now = self.clock.now()
        try:
            lease = self._read()
            if lease is None:
                body: dict[str, Any] = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self.settings.lease_name, "namespace": self.settings.namespace},
                    "spec": self._spec(now, now, 0),
                }
                self.kubernetes.create(LEASES, self.settings.namespace, body)
            else:
                spec = lease.get("spec") or {}
                holder = spec.get("holderIdentity") or ""
                seen = (holder, str(spec.get("renewTime")))
                if seen != self._seen:
                    self._seen, self._seen_at = seen, now
                expires = self._seen_at + float(spec.get("leaseDurationSeconds") or self.settings.duration_seconds)
                if holder not in ("", self.identity) and now < expires:
                    self._held_until = 0.0
                    return False
                mine = holder == self.identity
                acquired = spec.get("acquireTime") if mine else None
                transitions = int(spec.get("leaseTransitions") or 0) + (not mine)
                lease["spec"] = self._spec(acquired or now, now, transitions)
                self.kubernetes.replace(LEASES, self.settings.namespace, self.settings.lease_name, lease)
        except Conflict:
            return False
        except KubernetesError:
            return now < self._held_until
        self._held_until = now + self.settings.duration_seconds
        return True

    def confirm(self) -> bool:
        """Read the Lease again; return whether it still names this planner and has not run out here."""
        try:
            lease = self._read()
        except KubernetesError:
            return False
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
        return holder == self.identity and self.clock.now() < self._held_until

    def release(self) -> None:
        """Give the Lease up, so that a successor need not wait; a failure only costs the successor time."""
        try:
            lease = self._read()
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"]["holderIdentity"] = ""
                self.kubernetes.replace(LEASES, self.settings.namespace, self.settings.lease_name, lease)
        except KubernetesError:
            pass
        self._held_until = 0.0

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.kubernetes.get(LEASES, self.settings.namespace, self.settings.lease_name))
        except NotFound:
            return None
        return found if isinstance(found, dict) else None

    def _spec(self, acquired: float | str, renewed: float, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.settings.duration_seconds),
            "acquireTime": acquired if isinstance(acquired, str) else _micro_time(acquired),
            "renewTime": _micro_time(renewed),
            "leaseTransitions": transitions,
        }


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
