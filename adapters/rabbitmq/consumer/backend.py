"""Receiving and settling jobs."""

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import NamedTuple

from ....domain import QueueKind, RetryPolicy
from ....domain.errors import Closed, JobsError, QueueNotFound
from ....ports import (
    Ack,
    Cancel,
    ConsumerBackend,
    Dead,
    Delivery,
    EndedJob,
    JobResult,
    ResultStatus,
    Settled,
    Settlement,
    SettleOutcome,
)
from ...shared.receipts import Receipts
from ..results import Results
from ..topology import Names, naming_queue
from ..transport.broker import Broker
from ..transport.errors import ClosedByClient, ConnectionBroken
from ..transport.publishing import Outgoing
from .channel import Arrival, ConsumerChannel
from .credit import Credit
from .next_job_publisher import Chained, NextJobPublisher, Publish, Published
from .settlement_messages import SettlementMessages
from .settler import MessagePublisher, Placed, Settler

_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
"""Between connections that break one after the other, as soon as they are made."""
_AGAIN_S = 0.5
"""How often jobs that couldn't be put back are tried again while this waits for others."""
_FAILURE_TTL_S = 7 * 86_400.0
"""How long the store remembers that a job died, for callers that wait for its result."""


class _Move(NamedTuple):
    """A settlement that was deferred."""

    settlement: Settlement
    message: Outgoing
    """What takes the place of its job, and may be there by now."""


class RabbitMQConsumerBackend(ConsumerBackend):
    """Receives jobs over a connection of its own, which is the lease (LSE-1)."""

    def __init__(
        self,
        broker: Broker,
        names: Names,
        find_kind: Callable[[], QueueKind],
        publisher: MessagePublisher,
        publish: Publish,
        *,
        results: Results | None,
        prefetch: int | None,
        on_close: Callable[["RabbitMQConsumerBackend"], None],
    ) -> None:
        super().__init__()
        self._broker = broker
        self._names = names
        self._find_kind = find_kind
        self._next_jobs = NextJobPublisher(publish, self.logger)
        kind = find_kind()
        self._results = results
        self._prefetch = prefetch
        self._on_close = on_close
        self._channel = ConsumerChannel(broker, names)
        self._credit = Credit(self._channel, prefetch, broker.retry_timeout_s)
        self._settlement_messages = SettlementMessages(names, kind, self._channel, self.logger)
        self._settler = Settler(broker, names, self._channel, self._credit, publisher, self.logger)
        self._kind_generation = self._channel.generation
        """The channel on which the kind was last asked for: a later one may lead to a queue made anew."""
        self._receipts = Receipts(secrets.token_urlsafe(8))
        self._settling = threading.RLock()
        self._held: dict[str, Arrival] = {}
        self._moves: dict[str, _Move] = {}
        """The settlements that were deferred, by receipt."""
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

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        breaks = 0
        while True:
            self._check_open()
            end = give_up
            if self._settler.returning:
                self.settle([])
                end = min(give_up, monotonic() + _AGAIN_S) if self._settler.returning else give_up
            if not self._credit.limit:
                self._recall(max_jobs)
                self._check_open()  # it may have waited for a close
            generation = self._channel.generation
            with naming_queue(self._names.queue):
                deliveries = self._receive(max_jobs, end)
            if not deliveries and self._channel.generation != generation and (breaks := breaks + 1) > 1:
                pause_s = min(_BACKOFF.delay_s(breaks), give_up - monotonic())
                self._channel.loop.wait(lambda: self._interrupted or self._closing, pause_s)
            if deliveries or self._take_interrupt() or monotonic() >= give_up:
                return deliveries

    def interrupt(self) -> None:
        self._interrupted = True
        self._channel.loop.wake()

    def _take_interrupt(self) -> bool:
        interrupted, self._interrupted = self._interrupted, False
        return interrupted

    def _receive(self, max_jobs: int, give_up: float) -> list[Delivery]:
        """Receive once; empty as well where the connection broke meanwhile."""
        channel = self._channel
        ready, generation = 0, channel.generation
        if not channel.standing or generation != self._kind_generation:
            ready = self._broker.retry(partial(channel.request, channel.count))
            generation = channel.generation
            if generation != self._kind_generation:
                self._settlement_messages.kind, self._kind_generation = self._find_kind(), generation
            if not ready and (give_up <= monotonic() or self._interrupted):
                return []
        try:
            if limit := self._credit.limit:
                self._credit.stand(limit)
            else:
                # Where none is ready, one: it is run at once; the rest of a burst comes with its settlement.
                self._credit.grant(min(max_jobs, ready) or 1)
            return self._collect(max_jobs, ready, give_up, generation)
        except (ConnectionBroken, ClosedByClient) as broken:
            self._check_open()
            if isinstance(broken, ConnectionBroken):
                self._broker.raise_refusal(broken)
            return []

    def _collect(self, max_jobs: int, ready: int, give_up: float, generation: int) -> list[Delivery]:
        """Wait for what the broker is about to send, ``ready`` by its own count, and hold it.

        Nothing more comes once ``generation`` is over.
        """
        channel, stood = self._channel, self._channel.standing

        def over() -> bool:
            ended = channel.generation != generation or (stood and not channel.standing)
            return bool(self._interrupted or self._closing or ended)

        self._credit.wait_for_jobs(max_jobs, ready, give_up, over)
        if channel.credit and not channel.standing:
            self._credit.withdraw()
        with self._settling:
            self._check_open()
            return self._accept(max_jobs)

    def _accept(self, max_jobs: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        unfit: list[str] = []
        held = self._held
        counts_crashes = self._settlement_messages.counts_crashes
        new = tuple.__new__
        for receipt in self._hold(self._channel.arrivals.popleft, max_jobs):
            job = held[receipt]
            if job.fault or (job.redelivered and not counts_crashes):
                unfit.append(receipt)
                continue
            attempt, number, crashes, _ = job.history
            # A third of what Delivery(...) costs.
            deliveries.append(new(Delivery, (job.id, job.body, receipt, attempt, number + 1, crashes, None)))
        if unfit:
            self._put_back(unfit)
        return deliveries

    def _hold(self, pop: Callable[[], Arrival], most: int) -> list[str]:
        """Hold up to ``most`` of the jobs that came, which ``pop`` takes, and return their receipts.

        One call of a built-in function moves them all: an interrupt in between would leave jobs with nobody.
        """
        receipts, held = self._receipts, self._held
        first = receipts.granted + 1
        receipts.granted += min(most, len(self._channel.arrivals))
        names = [f"{receipts.name}.{number}" for number in range(first, receipts.granted + 1)]
        try:
            held.update(zip(names, iter(pop, None), strict=False))
        except IndexError:  # the connection broke this moment
            return [name for name in names if name in held]
        return names

    def _put_back(self, receipts: Sequence[str]) -> None:
        """Put back jobs that nobody was given: with a crash counted, or among the dead letters."""
        jobs = [self._held[receipt] for receipt in receipts]
        try:
            for receipt in receipts:
                del self._held[receipt]
            self._settler.put_back(jobs, [self._settlement_messages.undelivered(job) for job in jobs])
        except BaseException:  # nobody knows what the broker has heard; its end gives back the rest
            self._channel.drop()
            raise

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._settling:
            self._check_open()
            if take and self._credit.limit:
                with suppress(ConnectionBroken, ClosedByClient):  # then nothing is settled either
                    self._credit.cut()
            elif take and not self._credit.may_stand(take, settles_all=len(settlements) == len(self._held)):
                self._recall(take)
            generation = self._channel.generation
            outcomes = [SettleOutcome.OK] * len(settlements)
            asked = settlements
            if self._moves:
                settlements = self._as_first_asked(settlements)
            acks: list[Placed] = []
            chained: list[Chained] = []
            moves: list[tuple[Placed, Outgoing]] = []
            jobs: dict[int, Arrival] = {}
            try:
                for place, settlement in enumerate(settlements):
                    job = self._held.get(settlement.receipt)
                    if job is None:
                        outcomes[place] = self._receipts.why_not_held(settlement.receipt)
                        continue
                    if job.generation != generation:
                        outcomes[place] = self._lose(settlement.receipt)
                        continue
                    jobs[place] = job
                    del self._held[settlement.receipt]
                    if type(settlement) is Ack and settlement.then:
                        chained.append(((place, job), settlement))
                    elif type(settlement) is Ack or type(settlement) is Cancel:
                        acks.append((place, job))
                    elif (deferred_before := self._moves.pop(settlement.receipt, None)) is not None:
                        moves.append(((place, job), deferred_before.message))  # its next jobs are confirmed
                    elif type(settlement) is Dead and settlement.then:
                        chained.append(((place, job), settlement))
                    else:
                        move = self._settlement_messages.for_settlement(settlement, job)
                        moves.append(((place, job), move))
                unsettled: dict[int, SettleOutcome] = {}
                if chained:
                    confirmed, refused, still_open = self._publish_next(chained, generation)
                    self._add_confirmed(settlements, confirmed, acks, moves)
                    unsettled = {place: SettleOutcome.REFUSED for place, _ in refused}
                    unsettled |= {place: SettleOutcome.DEFERRED for place, _ in still_open}
                republished, messages = [placed for placed, _ in moves], [message for _, message in moves]
                lost, deferred, ready = self._settler.settle(acks, republished, messages, take)
                if deferred or unsettled:
                    for (place, _), message in moves:
                        if place not in deferred:
                            continue
                        unsettled[place] = SettleOutcome.DEFERRED
                        self._moves[settlements[place].receipt] = _Move(settlements[place], message)
                    for place, outcome in unsettled.items():
                        self._held[settlements[place].receipt] = jobs.pop(place)
                        outcomes[place] = outcome
                for place in lost:
                    outcomes[place] = self._lose(settlements[place].receipt)
                    del jobs[place]
            except BaseException:  # nobody knows what the broker has heard; its end gives back the rest
                for place in jobs:
                    self._lose(settlements[place].receipt)
                self._channel.drop()
                raise
            if self._results is not None:
                self._store_results(self._results, settlements, jobs)
            if settlements is not asked:
                outcomes = [
                    SettleOutcome.ALREADY if first is not said and outcome is SettleOutcome.OK else outcome
                    for first, said, outcome in zip(settlements, asked, outcomes, strict=True)
                ]
            if not take or ready is None:
                return Settled(outcomes, [])
            try:
                at_most = self._credit.for_next(take, ready)
                return Settled(outcomes, self._collect(at_most, ready, 0.0, generation))
            except (ConnectionBroken, ClosedByClient, QueueNotFound, Closed):  # what was settled is so
                return Settled(outcomes, [])

    def _as_first_asked(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Return in place of settlements those that were deferred before, where their messages may arrive.

        Else both would count: a job that was put off and then cancelled would run again (SET-1).
        """
        first = list(settlements)
        for place, settlement in enumerate(settlements):
            move = self._moves.get(settlement.receipt)
            if move is None or move.settlement == settlement:
                continue
            if move.message.may_arrive:
                first[place] = move.settlement
            else:
                del self._moves[settlement.receipt]
        return first

    def _add_confirmed(
        self,
        settlements: Sequence[Settlement],
        confirmed: Sequence[Placed],
        acks: list[Placed],
        moves: list[tuple[Placed, Outgoing]],
    ) -> None:
        """Add the settlements whose next jobs are published to the others, in the caller's order."""
        for place, job in confirmed:
            settlement = settlements[place]
            if type(settlement) is Ack:
                acks.append((place, job))
            else:
                moves.append(((place, job), self._settlement_messages.for_settlement(settlement, job)))
        acks.sort(key=itemgetter(0))
        moves.sort(key=lambda move: move[0][0])

    def _publish_next(self, chained: Sequence[Chained], generation: int) -> Published:
        """Publish next jobs; none, where what they follow is lost, or the broker takes none."""
        if not self._settler.is_alive(generation):
            return Published([placed for placed, _ in chained], [], [])  # to be lost with all others
        if not self._settler.can_publish:
            return Published([], [], [placed for placed, _ in chained])
        return self._next_jobs.publish(chained)

    def _store_results(
        self, results: Results, settlements: Sequence[Settlement], jobs: dict[int, Arrival]
    ) -> None:
        """Keep how settled jobs ended: after the broker knows, never before (RES-2)."""
        ended = []
        for place, job in jobs.items():
            match settlements[place]:
                case Ack(_, result, ttl_s):
                    ended.append(EndedJob(job.id, JobResult(ResultStatus.DONE, result), ttl_s))
                case Dead(_, _, error, _, ttl_s):
                    failed = JobResult(ResultStatus.FAILED, error=error)
                    kept_s = _FAILURE_TTL_S if ttl_s is None else min(ttl_s, _FAILURE_TTL_S)
                    ended.append(EndedJob(job.id, failed, kept_s))
                case Cancel(_, ttl_s):
                    ended.append(EndedJob(job.id, JobResult(ResultStatus.CANCELLED), ttl_s))
                case _:
                    pass
        if ended:
            results.try_put(self._names.results, ended)

    @property
    def held_back(self) -> int:
        return self._settler.returning

    def take_again(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the jobs whose messages surely don't arrive. The others are acknowledged once theirs do."""
        here: list[Delivery] = []
        with self._settling:
            if self._closing or os.getpid() != self._pid:
                return here  # the close has all of them put back
            try:
                for delivery in deliveries:
                    job = self._held.get(delivery.receipt)
                    if job is None or job.generation != self._channel.generation:
                        self._lose(delivery.receipt)  # the broker delivers it anew
                        continue
                    move = self._moves.pop(delivery.receipt, None)
                    if move is None or not move.message.may_arrive:
                        here.append(delivery)
                    else:
                        del self._held[delivery.receipt]
                        self._settler.put_back_later(job, move.message)
            except BaseException:  # an interrupt; the end of the connection gives back what is nobody's
                self._channel.drop()
                raise
        return here

    def given_out(self) -> Sequence[str]:
        return list(self._held)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self._check_open()
        self._channel.loop.catch_up()  # a connection that broke may not have been looked at since
        return [self._still_held(receipt) for receipt in receipts]

    def allow_ahead(self, limit: int) -> None:
        self._credit.allow(limit)

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
        self._channel.loop.wake()
        try:
            with self._settling:
                self._release_all()
        except (JobsError, ConnectionBroken, ClosedByClient) as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
        finally:
            self._closed = True
            self._channel.close()
            self._on_close(self)

    def _recall(self, most: int) -> None:
        """Where the broker sends jobs by itself, stop it, and give back what came beyond ``most``.

        A connection that breaks meanwhile gives them back as well.
        """
        channel = self._channel
        with self._settling, suppress(ConnectionBroken, ClosedByClient):
            self._credit.limit = 0
            if channel.standing:
                self._credit.withdraw()
            if not self._settler.can_publish:
                return  # what came is run here, or it would be run by nobody meanwhile
            surplus = self._hold(channel.arrivals.pop, max(0, len(channel.arrivals) - most))
            self._put_back(surplus[::-1])

    def _release_all(self) -> None:
        channel = self._channel
        if not channel.is_open:
            return  # then it is given back already
        if channel.credit or channel.standing:
            self._credit.withdraw()
        held = {receipt: job for receipt, job in self._held.items() if job.generation == channel.generation}
        ahead = list(channel.arrivals)
        messages = [
            self._settlement_messages.released(job)
            if (move := self._moves.get(receipt)) is None
            else move.message
            for receipt, job in held.items()
        ]
        messages += [self._settlement_messages.undelivered(job) for job in ahead]
        self._held.clear()
        self._settler.put_back([*held.values(), *ahead], messages)
        self._settler.give_up()

    def _still_held(self, receipt: str) -> SettleOutcome:
        job = self._held.get(receipt)
        if job is None:
            return self._receipts.why_not_held(receipt)
        return SettleOutcome.OK if job.generation == self._channel.generation else SettleOutcome.LOST

    def _lose(self, receipt: str) -> SettleOutcome:
        self._held.pop(receipt, None)
        self._moves.pop(receipt, None)
        self._next_jobs.forget(receipt)
        self._receipts.lose([receipt])
        return SettleOutcome.LOST

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._names.queue!r} belongs to another process")
        if self._closing:
            raise Closed(f"this consumer of queue {self._names.queue!r} is closed")
