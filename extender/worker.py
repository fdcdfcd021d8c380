"""gunicorn's threaded worker, which loses no call when it is told to go."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from types import FrameType
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

STILL_ACCEPTING_SECONDS: Final = 1.0
"""How long a leaving worker serves as before: about what its successor needs to listen, when there is one."""

IDLE_SECONDS: Final = 1.0
"""How long it then keeps connections that are idle; each may still bring one call."""


_RECEIVE_TIMEOUT: Final = struct.pack("@ll", 2, 0)
"""Two seconds, as a struct timeval: a scheduler sends a request in one go, and is gone by then if it could not."""

STAYS_MILLISECONDS: Final = 20
"""How long a thread waits for the next call on its connection before it gives the connection back to the poller."""


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """A worker that serves on for a moment, then answers whoever is connected or in its queue, and refuses others.

    gunicorn's own stops accepting at once, while the kernel goes on filling the listener's queue: those calls
    wait for as long as it drains, and are reset at its end.
    """

    alive: bool
    _leaves_at: float | None = None

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """Begin to leave."""
        if self.alive and self._leaves_at is None:
            self._leaves_at = time.monotonic() + STILL_ACCEPTING_SECONDS
            self.method_queue.defer(lambda: None)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Serve, and notice when the time has come to leave."""
        if self.alive and self._leaves_at is not None:
            left = self._leaves_at - time.monotonic()
            if left <= 0:
                self._stop_listening()
                return
            timeout = min(timeout, left)
        super().wait_for_and_dispatch_events(timeout)

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to a thread, which will not wait for ever for the rest of a request."""
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        super().enqueue_req(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(min(deadline, time.monotonic() + IDLE_SECONDS))

    def handle(self, conn: Any) -> Any:
        """Serve a connection, and stay with it while its next call comes soon.

        A scheduler sends one call after the other; through the poller each would cost two more changes of thread.
        """
        answer = super().handle(conn)
        while answer is True and self.alive and _has_more(conn):
            answer = super().handle(conn)
        return answer

    def _stop_listening(self) -> None:
        """Take whoever came so far and refuse others, while every answer still keeps its connection.

        The first answer that closes its connection makes a caller connect anew, in the very moment between the last
        look into the queue and the end of the listener, at which the kernel resets whoever is in it.
        """
        self.set_accept_enabled(False)
        for listener in self.sockets:
            self._take_all(listener)
            listener.close()
        self.alive = False

    def _take_all(self, listener: Any) -> None:
        while select.select([listener], [], [], 0)[0]:
            self.accept(listener)


def _has_more(conn: Any) -> bool:
    """Tell whether the connection's next call is here, or comes within the time that it is waited for."""
    if conn.is_http2 or conn.parser.unreader.buf.getvalue():
        return False  # gunicorn knows what to do with either
    if isinstance(conn.sock, ssl.SSLSocket) and conn.sock.pending():
        return True
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(STAYS_MILLISECONDS))
