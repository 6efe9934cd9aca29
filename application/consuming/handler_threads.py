"""Plain handlers, many at once: each on a thread."""

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from logging import ERROR, Logger
from types import TracebackType

from ...ports import Delivery, Release, Settlement
from ...ports.signal_safe_event import SignalSafeEvent
from ..failures.handler_errors import try_to_log
from ..process.thread_start import start_thread
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
        self._lock = threading.Lock()
        self._started: deque[Delivery] = deque()
        """Jobs that somebody else has started, and that are to be run."""
        self._threads = 0
        self._idle: dict[SignalSafeEvent, None] = {}
        """The threads that have no job, by what wakes them."""
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
        self.tell_to_end()

    def tell_to_end(self) -> None:
        """Have the threads end that have no job, and the others after theirs."""
        self._ended = True
        with self._lock:
            for woken in self._idle:
                woken.set()

    def wake(self) -> None:
        """Start queued jobs at the places that are free."""
        with self._lock:
            wanted = self._in_flight.queued + len(self._started)
            for woken in self._resting()[:wanted]:
                woken.set()
            for _ in range(min(wanted - len(self._idle), self._concurrency - self._threads)):
                self._start_thread()

    def _resting(self) -> list[SignalSafeEvent]:
        """Return what wakes the threads that have no job and weren't woken, with the lock held."""
        return [woken for woken in self._idle if not woken.is_set()]

    def run(self, delivery: Delivery) -> None:
        """Run a job that the caller has started."""
        with self._lock:
            self._started.append(delivery)
        self.wake()

    def _start_thread(self) -> None:
        self._threads += 1
        name = f"{self._name}-{self._threads}"
        target = self._context.copy().run
        start_thread(threading.Thread(target=target, args=(self._work,), name=name, daemon=True))

    def _work(self) -> None:
        in_flight, execute = self._in_flight, self._execute
        next_job = partial(self._next, SignalSafeEvent())
        try:
            for delivery in iter(next_job, None):
                try:
                    settlement = execute(delivery)
                except BaseException:  # a fault of ours; the job would stay with this consumer for ever
                    try_to_log(self._logger, ERROR, "job %s is released", delivery.id, traceback=True)
                    settlement = Release(delivery.receipt)
                in_flight.finish(settlement)
        finally:
            with self._lock:
                self._threads -= 1

    def _next_started(self) -> Delivery | None:
        """Take one that somebody else has started and nobody has released since, with the lock held."""
        while self._started:
            if self._in_flight.begin(delivery := self._started.popleft()):
                return delivery
        return None

    def _next(self, woken: SignalSafeEvent) -> Delivery | None:
        """Wait for a job to run; None once there is none any more.

        Args:
            woken: The thread's own, by which it is woken.
        """
        while not self._ended:
            delivery = self._in_flight.start_next_beside_others()
            if delivery is not None:
                return delivery
            with self._lock:
                delivery = self._next_started()
                if delivery is not None:
                    return delivery
                if self._in_flight.has_startable or self._ended:
                    continue
                woken.clear()
                self._idle[woken] = None
            woken.wait()
            with self._lock:
                del self._idle[woken]
        return None
