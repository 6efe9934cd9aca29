"""A consumer's side of a queue in RabbitMQ."""

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, time

from ...domain import QueueKind, RetryPolicy
from ...domain.errors import Closed, JobsError, QueueNotFound
from ...domain.reasons import DeadReason
from ...domain.text import printable
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    EndedJob,
    JobResult,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..shared.receipts import Receipts
from .admin import naming_queue, not_declared
from .intake import Arrival, Intake
from .link import Link
from .message import Death, Past, dead_properties, described, moved_properties
from .outbox import Outbox, Parcel
from .publisher import Fate
from .results import Results
from .topology import Names, priority_of
from .wire import LineBroken, LineClosed

_LULL_S = 0.05
"""How long to wait for jobs that the broker may send still."""
_STEP_S = 0.005
"""How long between two looks meanwhile."""
_HALVED = 200
"""From how many jobs on they are taken in halves."""
_GRACE_S = 0.25
"""How long to wait for jobs that the broker just counted; another consumer may have been quicker."""
_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
"""Between connections that break one after the other, as soon as they are made."""
_FAILURE_TTL_S = 7 * 86_400.0
"""How long it is remembered that a job died, for whoever waits for its result."""

_Placed = tuple[int, Arrival]
"""An arrival, and the place of its settlement."""


class RabbitMQConsumerBackend(ConsumerBackend):
    """Receives what it asked for over a connection of its own, which is the lease (LSE-1).

    Made by :meth:`RabbitMQClient.open_consumer`.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        find_kind: Callable[[], QueueKind],
        outbox: Outbox,
        *,
        results: Results | None,
        prefetch: int | None,
        on_close: Callable[["RabbitMQConsumerBackend"], None],
    ) -> None:
        super().__init__()
        self._link = link
        self._names = names
        self._find_kind = find_kind
        self._kind = find_kind()
        self._outbox = outbox
        self._results = results
        self._prefetch = prefetch
        self._on_close = on_close
        self._intake = Intake(link, names)
        self._kind_generation = self._intake.generation
        """The channel on which the kind was last asked for: a later one may lead to a queue made anew."""
        self._receipts = Receipts(secrets.token_urlsafe(8))
        self._settling = threading.RLock()
        self._held: dict[str, Arrival] = {}
        self._interrupted = False
        self._closing = False
        self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> None:
        return None

    @property
    def prefetch(self) -> int | None:
        return self._prefetch

    @property
    def _counts_crashes(self) -> bool:
        """Whether the queue does so itself: a quorum queue does, the classic queues for priorities don't."""
        return self._kind is not QueueKind.PRIORITY

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        breaks = 0
        while True:
            self._check_open()
            self._recall(max_jobs)
            generation = self._intake.generation
            with naming_queue(self._names.queue):
                deliveries = self._receive(max_jobs, give_up)
            if not deliveries and self._intake.generation != generation and (breaks := breaks + 1) > 1:
                pause_s = min(_BACKOFF.delay_s(breaks), give_up - monotonic())
                self._intake.io.wait(lambda: self._interrupted or self._closing, pause_s)
            if deliveries or self._take_interrupt() or monotonic() >= give_up:
                return deliveries

    def interrupt(self) -> None:
        self._interrupted = True
        self._intake.io.wake()

    def _take_interrupt(self) -> bool:
        interrupted, self._interrupted = self._interrupted, False
        return interrupted

    def _receive(self, max_jobs: int, give_up: float) -> list[Delivery]:
        """Receive once; empty as well where the connection broke meanwhile."""
        intake = self._intake
        ready: int = self._link.persist(partial(intake.ask, intake.count))
        generation = intake.generation
        if generation != self._kind_generation:
            self._kind, self._kind_generation = self._find_kind(), generation
        if not ready and (give_up <= monotonic() or self._interrupted):
            return []
        intake.deleted = False  # an earlier one: the queue exists
        try:
            # Where none is ready, the first that comes is run at once; the rest of a burst comes with its
            # settlement.
            self._want(min(max_jobs, ready) or 1)
            return self._collect(max_jobs, ready, give_up, generation)
        except (LineBroken, LineClosed) as broken:
            self._check_open()
            if isinstance(broken, LineBroken):
                self._link.refuse(broken)
            return []

    def _want(self, jobs: int) -> None:
        """Have so many jobs come, those that are here already among them.

        No more than were counted: credit that is left would have to be taken back, and what the broker sends
        just then counts as delivered, and as a crash.
        """
        more = max(0, jobs - len(self._intake.arrivals))
        if more != self._intake.credit:
            self._intake.ask(partial(self._intake.want, more), self._link.retry_timeout_s)

    def _stop(self) -> None:
        """Have nothing more come, once what may be on its way is here."""
        intake, give_up = self._intake, monotonic() + _LULL_S
        while intake.credit and not self._is_idle(give_up):
            intake.io.wait(lambda: not intake.credit, _STEP_S)
        intake.ask(partial(intake.want, 0), self._link.retry_timeout_s)

    def _is_idle(self, give_up: float) -> bool:
        self._intake.ask(self._intake.count, self._link.retry_timeout_s)
        return self._intake.depth <= 0 or monotonic() >= give_up

    def _collect(self, max_jobs: int, ready: int, give_up: float, generation: int) -> list[Delivery]:
        """Wait for what the broker is about to send, ``ready`` by its own count, and take it in hand.

        Nothing more comes once ``generation`` is over.
        """
        intake = self._intake

        def over() -> bool:
            return self._interrupted or self._closing or intake.generation != generation

        enough = min(max_jobs, ready)
        if not 0 < enough <= len(intake.arrivals):
            soon = monotonic() + _GRACE_S
            first_by = max(give_up, soon) if ready else give_up
            intake.io.wait(lambda: intake.arrivals or over(), max(0.0, first_by - monotonic()))
            if len(intake.arrivals) < enough:
                intake.io.wait(lambda: len(intake.arrivals) >= enough or over(), _GRACE_S)
        if intake.deleted:
            intake.deleted = False
            raise not_declared(self._names.queue)
        if intake.credit and not intake.keeps:
            self._stop()
        with self._settling:
            self._check_open()
            return self._accept(max_jobs)

    def _accept(self, max_jobs: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        returned: list[Arrival] = []
        held, receipts = self._held, self._receipts
        counts_crashes = self._counts_crashes
        new = tuple.__new__
        for job in self._arrivals(max_jobs):
            if job.fault or (job.redelivered and not counts_crashes):
                returned.append(job)
                continue
            receipts.granted += 1
            receipt = f"{receipts.name}.{receipts.granted}"
            held[receipt] = job
            attempt, number, crashes, _ = job.past
            # A third of what Delivery(...) costs.
            deliveries.append(new(Delivery, (job.id, job.body, receipt, attempt, number + 1, crashes, None)))
        if returned:
            self._put_back(returned)
        return deliveries

    def _arrivals(self, most: int | None = None) -> Iterator[Arrival]:
        arrivals = self._intake.arrivals
        while most is None or most > 0:
            try:
                yield arrivals.popleft()
            except IndexError:  # none is left, or the connection broke this moment
                return
            if most is not None:
                most -= 1

    def _put_back(self, returned: list[Arrival]) -> None:
        """Put back jobs that nobody was given: with a crash counted, or among the dead letters."""
        parcels = [self._as_it_came(job) for job in returned]
        self._settle_all([], list(enumerate(returned)), parcels, 0)

    def _as_it_came(self, job: Arrival) -> Parcel:
        """A job that nobody was given, with the crash before it counted (RTY-3)."""
        past = job.past
        if job.fault:
            return self._malformed(job)
        if job.redelivered and not self._counts_crashes:
            past = past.delivered()
            past = past._replace(crashes=past.crashes + 1)
        return self._moved(job, past, returned=True)

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._settling:
            self._check_open()
            if take and not self._goes_on(take, len(settlements)):
                self._recall(take)
            generation = self._intake.generation
            outcomes = [SettleOutcome.OK] * len(settlements)
            acks: list[_Placed] = []
            moves: list[_Placed] = []
            parcels: list[Parcel] = []
            jobs: dict[int, Arrival] = {}
            for place, settlement in enumerate(settlements):
                job = self._held.pop(settlement.receipt, None)
                if job is None:
                    outcomes[place] = self._receipts.why_not_held(settlement.receipt)
                    continue
                if job.generation != generation:
                    outcomes[place] = self._lose(settlement.receipt)
                    continue
                jobs[place] = job
                if type(settlement) is Ack:
                    acks.append((place, job))
                else:
                    moves.append((place, job))
                    parcels.append(self._parcel(settlement, job))
            lost, ready = self._settle_all(acks, moves, parcels, take)
            for place in lost:
                outcomes[place] = self._lose(settlements[place].receipt)
                del jobs[place]
            if self._results is not None:
                self._store_results(self._results, settlements, jobs)
            if not take or ready is None:
                return Settled(outcomes, [])
            try:
                return Settled(outcomes, self._take(take, ready, generation))
            except (LineBroken, LineClosed, QueueNotFound):
                return Settled(outcomes, [])

    def _store_results(
        self, results: Results, settlements: Sequence[Settlement], jobs: dict[int, Arrival]
    ) -> None:
        """Keep how settled jobs ended: after the broker knows, never before (RES-2)."""
        ended = []
        for place, job in jobs.items():
            match settlements[place]:
                case Ack(_, result, ttl_s):
                    ended.append(EndedJob(job.id, JobResult(ResultStatus.DONE, result), ttl_s))
                case Dead(_, _, error):
                    failed = JobResult(ResultStatus.FAILED, error=error)
                    ended.append(EndedJob(job.id, failed, _FAILURE_TTL_S))
                case _:
                    pass
        if ended:
            results.try_put(self._names.results, ended)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self._check_open()
        self._intake.io.beat()  # a connection that broke may not have been looked at since
        return [self._still_held(receipt) for receipt in receipts]

    def release_ahead(self) -> None:
        if not self._closing and os.getpid() == self._pid:
            self._recall(0)

    def close(self) -> None:
        if self._closed:
            return
        if os.getpid() != self._pid:  # a copy, over whose connection its owner speaks
            self._closed = self._closing = True
            return
        self._closing = True
        self._intake.io.wake()
        try:
            with self._settling:
                self._give_back_all()
        except (JobsError, LineBroken, LineClosed) as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
        finally:
            self._closed = True
            self._intake.close()
            self._on_close(self)

    def _settle_all(
        self, acks: list["_Placed"], moves: list["_Placed"], parcels: list[Parcel], take: int
    ) -> tuple[list[int], int | None]:
        """Acknowledge, after the broker has confirmed what is to be put elsewhere.

        In that order a death in between leaves a job twice, and never loses it.

        Returns:
            The places of what was lost, and how many jobs are ready; None where the broker wasn't heard.
        """
        done, returns, lost = list(acks), list[Arrival](), list[int]()
        if moves:
            if not self._is_alive(moves[0][1].generation):
                return [place for place, _ in (*acks, *moves)], None
            for (place, arrival), fate in zip(moves, self._sent(parcels), strict=True):
                if fate is Fate.CONFIRMED:
                    done.append((place, arrival))
                else:
                    returns.append(arrival)
                    lost.append(place)
        if not done and not returns and not take:
            return lost, None
        ready = self._acknowledge([arrival for _, arrival in done], returns, take)
        return lost if ready is not None else [*lost, *(place for place, _ in done)], ready

    def _acknowledge(self, done: list[Arrival], returns: list[Arrival], take: int) -> int | None:
        """Have the broker forget what is done, deliver ``returns`` again, and send up to ``take`` jobs.

        Returns:
            How many jobs arrived or are ready; None where the broker wasn't heard.
        """
        intake, generation = self._intake, self._intake.generation
        left, enough = len(intake.arrivals), 0
        more: int | None
        if intake.keeps or not take:
            more = None  # some may come this moment, so that only the loop can tell how many more
        elif self._is_deep(take):
            more = max(0, take - left)
            enough = take if more and not self._may_halve(take) else 0
        else:
            more = 0
        try:
            if intake.finish(done, returns, more, enough=enough):
                return take
            ready: int = intake.ask(intake.count, self._link.retry_timeout_s)
        except (LineBroken, LineClosed) as broken:
            self.logger.debug("settlements lost: %s", broken)
            return None
        # On another channel the answer tells nothing of what was said on this one.
        return ready if intake.generation == generation else None

    def _take(self, take: int, ready: int, generation: int) -> list[Delivery]:
        """Take up to ``take`` of the ``ready`` jobs in hand, once what was settled before is heard."""
        intake = self._intake
        if self._is_deep(take) and self._may_halve(take):
            # The broker syncs before it sends more, and would wait for the consumer then. So the consumer
            # begins with one half while the other is on its way.
            intake.keeps = take
            return self._collect(-(-take // 2), ready, 0.0, generation)
        if ready and not intake.credit:
            self._want(min(take, ready))
        return self._collect(take, ready, 0.0, generation)

    def _is_deep(self, take: int) -> bool:
        """Whether so many jobs are surely ready that the broker needn't be asked for how many there are.

        Others take some meanwhile, as many as this consumer perhaps.
        """
        return self._intake.depth >= 2 * take

    def _may_halve(self, take: int) -> bool:
        """Whether so many jobs may be taken in halves: they are very short, or they wouldn't be so many.

        Only where the broker may send so many as it is: asking it anew each time costs more than is won.
        """
        return self._prefetch is None and take >= _HALVED and take == self._intake.prefetch

    def _goes_on(self, take: int, settled: int) -> bool:
        """Whether the broker may go on to send jobs by itself, as all in hand are settled, or doesn't."""
        keeps = self._intake.keeps
        return not keeps or (keeps == take and settled == len(self._held) and self._is_deep(take))

    def _recall(self, most: int) -> None:
        """Where the broker sends jobs by itself, stop it, and give back what came beyond ``most``.

        A line that breaks meanwhile gives them back as well.
        """
        intake = self._intake
        with self._settling, suppress(LineBroken, LineClosed):
            if intake.keeps:
                self._stop()
            over: deque[Arrival] = deque()
            with suppress(IndexError):  # the line broke this moment
                while len(intake.arrivals) > most:
                    over.appendleft(intake.arrivals.pop())
            parcels = [self._as_it_came(job) for job in over]
            self._settle_all([], list(enumerate(over)), parcels, 0)

    def _sent(self, parcels: list[Parcel]) -> list[Fate]:
        try:
            sent = self._outbox.send(self._names, parcels)
        except JobsError as error:
            self.logger.warning("%d jobs couldn't be moved and are delivered again: %s", len(parcels), error)
            return [Fate.UNSENT] * len(parcels)
        failures = [one for one in sent if one.fate is not Fate.CONFIRMED]
        if failures:
            self.logger.warning(
                "%d jobs couldn't be moved and are delivered again: %s", len(failures), failures[0].error
            )
        return [one.fate for one in sent]

    def _is_alive(self, generation: int) -> bool:
        """Whether what came in this generation is still in hand, and its queue exists."""
        intake = self._intake
        if not intake.is_open:
            return False
        try:
            intake.ask(intake.count, self._link.retry_timeout_s)
        except (LineBroken, LineClosed):
            return False
        return intake.generation == generation

    def _parcel(self, settlement: Settlement, job: Arrival) -> Parcel:
        past = job.past.delivered()
        match settlement:
            case Retry(_, delay_s, error):
                return self._moved(job, past.failed(error), delay_s=delay_s)
            case Dead(_, reason, error):
                return self._dead(job, past, reason, error)
            case _:
                return self._moved(job, past, returned=True)

    def _moved(self, job: Arrival, past: Past, *, returned: bool = False, delay_s: float = 0.0) -> Parcel:
        frame_max, priority = self._intake.frame_max, self._priority(job)
        properties = moved_properties(
            job.id, self._kind, priority, past, frame_max=frame_max, returned=returned
        )
        return Parcel(properties, job.body, delay_s)

    def _dead(self, job: Arrival, past: Past, reason: str, error: str) -> Parcel:
        death = Death(reason, error, round(time() * 1000), self._priority(job))
        properties = dead_properties(job.id, past, death, frame_max=self._intake.frame_max)
        return Parcel(properties, job.body, dead=True)

    def _malformed(self, job: Arrival) -> Parcel:
        """Give up a message whose properties can't be read (RCV-4)."""
        error = described(job.fault)
        self.logger.error("job %s is dead: %s: %s", printable(job.id), DeadReason.MALFORMED, printable(error))
        return self._dead(job, job.past.delivered(), DeadReason.MALFORMED, error)

    def _priority(self, job: Arrival) -> int:
        return priority_of(self._kind, job.rank)

    def _give_back_all(self) -> None:
        intake = self._intake
        if not intake.is_open:
            return  # then it is given back already
        if intake.credit or intake.keeps:
            self._stop()
        jobs: list[Arrival] = []
        parcels: list[Parcel] = []
        for job in self._held.values():
            if job.generation == intake.generation:
                jobs.append(job)
                parcels.append(self._moved(job, job.past.delivered(), returned=True))
        for job in self._arrivals():
            jobs.append(job)
            parcels.append(self._as_it_came(job))
        self._held.clear()
        if jobs:
            self._settle_all([], list(enumerate(jobs)), parcels, 0)

    def _still_held(self, receipt: str) -> SettleOutcome:
        job = self._held.get(receipt)
        if job is None:
            return self._receipts.why_not_held(receipt)
        return SettleOutcome.OK if job.generation == self._intake.generation else SettleOutcome.LOST

    def _lose(self, receipt: str) -> SettleOutcome:
        self._receipts.lose([receipt])
        return SettleOutcome.LOST

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._names.queue!r} belongs to another process")
        if self._closing:
            raise Closed(f"this consumer of queue {self._names.queue!r} is closed")
