"""The thread that serves connections nobody waits for, so that heartbeats go on however long a job takes."""

import logging
import threading

from .leader_follower_loop import LeaderFollowerLoop

_INTERVAL_S = 0.2
"""Far below any heartbeat of the protocol."""
_TURNS = 4


class HeartbeatThread:
    """Polls the event loops of one client's connections.

    Args:
        logger: Where a fault of ours is told.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._loops: set[LeaderFollowerLoop] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-rabbitmq", daemon=True)
        self._thread.start()

    def register(self, loop: LeaderFollowerLoop) -> None:
        """Begin to poll a loop."""
        with self._lock:
            self._loops.add(loop)

    def unregister(self, loop: LeaderFollowerLoop) -> None:
        """Stop polling a loop."""
        with self._lock:
            self._loops.discard(loop)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL_S):
            with self._lock:
                loops = list(self._loops)
            for loop in loops:
                try:
                    loop.poll(_TURNS)
                except Exception:  # a fault of ours must not stop the other connections' heartbeats
                    self._logger.exception("a connection to RabbitMQ couldn't be served")
