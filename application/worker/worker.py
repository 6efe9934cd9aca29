"""One process of a worker: consumers on threads, until told to stop."""

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from logging import ERROR, Logger
from math import inf
from time import monotonic, time

from ...domain.errors import JobsError, NotConnected
from ...domain.wording import quantity
from ..api.batch_consumer import BatchConsumer
from ..api.consumer import Consumer
from ..api.orchestrator import Orchestrator
from ..failures.handler_errors import try_to_log
from ..process.signal_queue import AT_ONCE, OVERDUE, REPLACE, WAKE, SignalQueue
from .connecting import WorkerSettings, connect, make_permits
from .health import HealthFile, LastPolls

_TICK_S = 1.0
_STARTING_S = 0.05
"""How long to wait until the next look whether all consumers have started."""
_CLOSE_S = 5.0
"""How long giving back what is in hand may take, before the process ends without."""

_LEASE_ENDS_S = 1.0
"""Within how long after the end of its lease a job is given out again."""

MakeConsumer = Callable[[], Consumer | Sequence[Consumer]]
"""Makes a consumer, or several."""


class Ending(Enum):
    """How the work ended."""

    FINISHED = "finished"
    """Each consumer of a burst found its queue empty."""
    STOPPED = "stopped"
    """As asked, after the jobs that ran."""
    CUT_SHORT = "cut short"
    """As asked, at the end of the grace period, with a handler still running. Its job was released, with no
    attempt spent. The process must end, and the thread with it."""
    AT_ONCE = "at once"
    """Likewise, before that, by a second signal."""
    REPLACED = "replaced"
    """As asked, after the jobs that ran. The process must end, and another take its place."""
    OVERDUE = "overdue"
    """A handler went on long after its time limit, and its jobs are settled as timed out. The others were
    released, with no attempt spent. The process must end, and another take its place."""
    DIED = "died"
    """A consumer ended that nobody had asked to. The process must end, and another take its place."""


class Worker:
    """Runs the consumers of one process, each on a thread of its own.

    SIGINT, SIGTERM or SIGHUP stops it gracefully, however often it comes: jobs that run are finished, for
    ``grace_s`` at most. SIGQUIT, or the end of that time, gives back at once what is in hand, without an
    attempt spent (SET-4). A consumer that ends for another reason is a death, unless it is a burst's that has
    found its queue empty: the rest is stopped gracefully, so that a new process can take over. A handler that
    goes on long after its time limit ends the work at once, with its own jobs settled as timed out.
    :data:`REPLACE` has the jobs that run finished, however long they take, for another process to go on.

    Args:
        orchestrator: Where to connect them.
        makers: What makes the consumers, in the order that ``strict`` goes by.
        settings: How to work.
        signal_queue: Where signals arrive.
        logger: Where it tells what it does.
        last_polls: Who observes the polls, if a health file is to be kept.
        health: The file to keep.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        makers: Sequence[MakeConsumer],
        settings: WorkerSettings,
        signal_queue: SignalQueue,
        logger: Logger,
        *,
        last_polls: LastPolls | None = None,
        health: HealthFile | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._makers = tuple(makers)
        self._settings = settings
        self._signal_queue = signal_queue
        self._logger = logger
        self._last_polls = last_polls
        self._health = health
        self._consumers: list[Consumer] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[JobsError] = []
        self._died = False
        """Whether a consumer ended that nobody had asked to."""
        self._deadline_s: float | None = None
        self._is_ready = False
        """Whether every consumer may run jobs."""
        self.failed_by_job = False
        """Whether a job may have caused what :meth:`run` raised."""

    @property
    def queues(self) -> list[str]:
        """The queues of the consumers that are connected."""
        return [consumer.queue_name for consumer in self._consumers]

    def run(self) -> Ending:
        """Work until each consumer has ended, or a signal has stopped them.

        Raises:
            JobsError: a consumer can't be made or connected, or its queue was deleted.
            BaseException: a fault. If a job may have caused it, as :attr:`failed_by_job` says, nothing is
                released: end the process at once, and its jobs are charged with a crash (RTY-3).
        """
        try:
            self._connect()
            ending = self._obey_signals(0.0)  # those that came meanwhile: then no job is to start
            if ending is None:
                self._start()
                ending = self._ending(self._attend())
        except BaseException as error:
            self.failed_by_job = bool(self._threads) and not isinstance(error, JobsError)
            if not self.failed_by_job:
                self._close()
            raise
        self._close()
        return ending

    def _ending(self, attended: Ending) -> Ending:
        if self._failures:
            raise self._failures[0]
        return Ending.DIED if self._died else attended

    def _connect(self) -> None:
        permits, weights = make_permits(self._settings), self._settings.weights or (1,) * len(self._makers)
        for make, weight in zip(self._makers, weights, strict=True):
            for consumer in make_consumers(make):
                if permits is not None:
                    consumer.share_permits(permits.share(weight))
                connect(consumer, self._orchestrator, self._settings)
                consumer.end_process_by(partial(self._signal_queue.post, OVERDUE))
                self._consumers.append(consumer)
        if self._last_polls is not None:
            self._last_polls.consumers = len(self._consumers)
        self._tell_ready()

    def _tell_ready(self) -> None:
        """Say once that all is well, as soon as every consumer may run jobs."""
        if not self._is_ready and all(consumer.has_started for consumer in self._consumers):
            self._is_ready = True
            if self._health is not None:
                self._health.write(time())

    def _start(self) -> None:
        if (jobs := self._settings.jobs) is not None:
            self._logger.info(
                "at most %s at once in this process, order: %s",
                quantity(jobs, "handler"),
                self._settings.order,
            )
        for consumer in self._consumers:
            queue = consumer.queue_name
            self._logger.info("working on %s, %s", queue, self._at_once(consumer))
            self._threads.append(
                threading.Thread(target=self._consume, args=(consumer,), name=queue, daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def _at_once(self, consumer: Consumer) -> str:
        """Say how many jobs run at once."""
        if isinstance(consumer, BatchConsumer):
            return f"in batches of {self._settings.batch_size or consumer.batch_size} at most"
        return f"{self._settings.concurrency or consumer.concurrency} at a time"

    def _consume(self, consumer: Consumer) -> None:
        try:
            if self._settings.burst:
                lease_s = self._settings.lease_s + _LEASE_ENDS_S
                consumer.consume_until_empty(
                    in_flight_for_s=lease_s if self._settings.follows_a_death else 0.0
                )
            else:
                consumer.consume()
            if self._deadline_s is None and not self._is_done(consumer):
                self._died = True
                self._logger.error("a consumer of %s ended, and nobody here stopped it", consumer.queue_name)
        except JobsError as error:
            self._failures.append(error)
        except BaseException:  # no handler's: those are failures of their jobs
            self._died = True
            try_to_log(self._logger, ERROR, "a consumer of %s failed", consumer.queue_name, traceback=True)
        finally:
            self._signal_queue.post(WAKE)

    def _is_done(self, consumer: Consumer) -> bool:
        """Whether its queue is empty, in a burst, and it wasn't stopped or closed by its handler."""
        with suppress(NotConnected):
            return self._settings.burst and not consumer.stopped
        return False

    def _attend(self) -> Ending:
        """Wait for the threads, and for signals; return how the wait ended."""
        while any(thread.is_alive() for thread in self._threads):
            wait_s = _TICK_S if self._is_ready else _STARTING_S
            if self._deadline_s is not None:
                wait_s = min(wait_s, self._deadline_s - monotonic())
                if wait_s <= 0:
                    self._logger.warning("still running after the grace period: releasing what runs")
                    return Ending.CUT_SHORT
            if (ending := self._obey_signals(wait_s)) is not None:
                return ending
            if self._failures or self._died:
                self._stop("a consumer ended")
            self._tell_ready()
            self._tell_health()
        if self._deadline_s is None:
            return Ending.FINISHED
        return Ending.REPLACED if self._deadline_s == inf else Ending.STOPPED

    def _obey_signals(self, wait_s: float) -> Ending | None:
        """Wait for signals; return how the work ends by them, if it does so at once."""
        for number in self._signal_queue.wait(wait_s):
            if number == AT_ONCE:
                self._logger.warning("stopping at once")
                return Ending.AT_ONCE
            if number == OVERDUE:
                self._begin_to_stop(0.0)
                self._give_up_timed_out()
                return Ending.OVERDUE
            if number == REPLACE:
                self._finish_for_another()
            elif number != WAKE:
                self._stop(signal.Signals(number).name)
        return None

    def _finish_for_another(self) -> None:
        if self._deadline_s is None:
            self._logger.info("finishing the jobs that run: another process takes the place of this one")
            self._begin_to_stop(inf)

    def _stop(self, why: str) -> None:
        if self._deadline_s is not None and self._deadline_s != inf:
            return
        grace_s = self._settings.grace_s
        self._logger.info("%s: finishing the jobs that run, for %g s at most", why, grace_s)
        self._begin_to_stop(grace_s)

    def _begin_to_stop(self, grace_s: float) -> None:
        """Have no consumer start another job; those that run have so many seconds left."""
        self._deadline_s = monotonic() + grace_s
        for consumer in self._consumers:
            with suppress(JobsError):  # closed by its handler
                consumer.stop()

    def _give_up_timed_out(self) -> None:
        for consumer in self._consumers:
            with suppress(JobsError):  # closed by its handler
                consumer.give_up_timed_out()

    def _tell_health(self) -> None:
        if self._is_ready and self._health is not None and self._last_polls is not None:
            moment_s = self._last_polls.oldest_s()
            if moment_s is not None:
                self._health.write(moment_s)

    def _close(self) -> None:
        """Close all consumers at once, so that a broker that is away delays them only once."""
        threads = [threading.Thread(target=_close, args=(each,), daemon=True) for each in self._consumers]
        for thread in threads:
            thread.start()
        give_up_s = monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, give_up_s - monotonic()))


def make_consumers(make: MakeConsumer) -> Sequence[Consumer]:
    """Make one consumer or several."""
    made = make()
    return [made] if isinstance(made, Consumer) else made


def _close(consumer: Consumer) -> None:
    with suppress(JobsError):
        consumer.close()
