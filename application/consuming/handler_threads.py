"""Plain handlers, many at once: each on a thread."""

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from logging import ERROR, Logger
from types import TracebackType

from ...ports import Delivery, Release, Settlement
from ..failures.handler_errors import try_to_log
from .handler_runner import HandlerRunner
from .in_flight import InFlight


class HandlerThreads(HandlerRunner):
    """Runs jobs on up to ``concurrency`` threads, which are started as they are needed.

    Args:
        in_flight: Where the jobs come from, and where their settlements go.
        execute: Runs one.
        concurrency: How many run at once.
        name: What the threads are called.
        logger: Where faults of ours are told.
    """

    def __init__(
        self,
        in_flight: InFlight,
        execute: Callable[[Delivery], Settlement],
        concurrency: int,
        name: str,
        logger: Logger,
    ) -> None:
        self._in_flight = in_flight
        self._execute = execute
        self._concurrency = concurrency
        self._name = name
        self._logger = logger
        self._ready = threading.Condition()
        self._started: deque[Delivery] = deque()
        """Jobs that somebody else has started, and that are to be run."""
        self._threads = 0
        self._idle = 0
        self._ended = True
        self._context = Context()

    def __enter__(self) -> None:
        self._ended = False
        self._context = copy_context()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        with self._ready:
            self._ended = True
            self._ready.notify_all()

    def wake(self) -> None:
        """Start queued jobs at the places that are free."""
        with self._ready:
            wanted = self._in_flight.queued + len(self._started)
            self._ready.notify(wanted)
            for _ in range(min(wanted - self._idle, self._concurrency - self._threads)):
                self._start_thread()

    def run(self, delivery: Delivery) -> None:
        """Run a job that the caller has started."""
        with self._ready:
            self._started.append(delivery)
        self.wake()

    def _start_thread(self) -> None:
        self._threads += 1
        name = f"{self._name}-{self._threads}"
        threading.Thread(target=self._context.copy().run, args=(self._work,), name=name, daemon=True).start()

    def _work(self) -> None:
        in_flight, execute = self._in_flight, self._execute
        try:
            for delivery in iter(self._next, None):
                try:
                    settlement = execute(delivery)
                except BaseException:  # a fault of ours; the job would stay with this consumer for ever
                    try_to_log(self._logger, ERROR, "job %s is released", delivery.id, traceback=True)
                    settlement = Release(delivery.receipt)
                in_flight.finish(settlement)
        finally:
            with self._ready:
                self._threads -= 1

    def _next_started(self) -> Delivery | None:
        """Take one that somebody else has started and nobody has released since, with the lock held."""
        while self._started:
            if self._in_flight.begin(delivery := self._started.popleft()):
                return delivery
        return None

    def _next(self) -> Delivery | None:
        """Wait for a job to run; None once there is none any more."""
        while not self._ended:
            delivery = self._in_flight.start_next_beside_others()
            if delivery is not None:
                return delivery
            with self._ready:
                delivery = self._next_started()
                if delivery is not None:
                    return delivery
                if not (self._in_flight.has_startable or self._ended):
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
        return None
