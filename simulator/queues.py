"""The shape of every simulated controller: changes put keys in a queue, each key is reconciled a little later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from simulator.api import ApiServer
from simulator.store import Change, Key

REACTION_SECONDS: Final = 0.02
"""From a change to a controller's answer; a real one needs about as long (50 pods roll in 1.3 s on kwok)."""


class Controller(ABC):
    """Reconciles keys, each once for all the changes that came before its turn."""

    def __init__(self, server: ApiServer) -> None:
        """Listen to the server's changes."""
        self.server: Final = server
        self.store: Final = server.store
        self.clock: Final = server.clock
        self._queued: set[Key] = set()
        server.store.subscribe(self.observe)

    @abstractmethod
    def observe(self, change: Change) -> None:
        """Put the keys in the queue that the change concerns."""

    @abstractmethod
    def reconcile(self, key: Key) -> None:
        """Bring the world one step nearer to what the object of this key asks for."""

    def enqueue(self, key: Key, seconds: float = REACTION_SECONDS) -> None:
        """Reconcile the key after so many seconds, unless its turn comes anyway."""
        if key in self._queued:
            return
        self._queued.add(key)
        self.clock.call_after(seconds, lambda: self._turn(key))

    def enqueue_again(self, key: Key, seconds: float) -> None:
        """Reconcile the key once more at a later time, whatever happens before."""
        self.clock.call_after(seconds, lambda: self.enqueue(key, 0.0))

    def _turn(self, key: Key) -> None:
        self._queued.discard(key)
        self.reconcile(key)
