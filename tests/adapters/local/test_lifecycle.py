"""The queue in memory does what the table of ``domain/lifecycle.py`` says, row by row."""

from collections.abc import Callable

import pytest

from mindtrace.jobs.adapters.local import LocalClient, ManualClock
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.dead_reasons import DeadReason
from mindtrace.jobs.domain.lifecycle import LIFE, Count, Event, State
from mindtrace.jobs.ports import Ack, Cancel, Dead, Delivery, JobStatus, Message, Release, Retry, Settlement

QUEUE, ID, LEASE_S, DELAY_S, TTL_S = "life", "job", 30.0, 5.0, 3600.0

SETTLES: dict[Event | DeadReason, Callable[[str], Settlement]] = {
    Event.ACK: Ack,
    Event.EXPIRE: lambda receipt: Ack(receipt, b"expired at 1.0"),
    Event.REPLACE: lambda receipt: Ack(receipt, b"replaced by another"),
    Event.STOP: Cancel,
    Event.RETRY: lambda receipt: Retry(receipt, 0.0, "error"),
    Event.RETRY_LATER: lambda receipt: Retry(receipt, DELAY_S, "error"),
    Event.RELEASE: Release,
    Event.SNOOZE: lambda receipt: Release(receipt, DELAY_S),
    **{
        reason: lambda receipt, reason=reason: Dead(receipt, reason, "error", ttl_s=TTL_S)
        for reason in DeadReason
    },
}
STORED_AS = {State.EXPIRED: State.DONE, State.REPLACED: State.DONE, State.ENDING: State.CANCELLED}
"""What a queue in memory makes of states that it doesn't have: it notices at once that a lease has ended."""
ROWS = [
    (state, event)
    for state, event in LIFE
    if state not in STORED_AS and event not in (DeadReason.REMOVED, Event.DELETE)
]


class OneJob:
    """A queue whose one job has failed once, and crashed once."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.client = LocalClient(clock=clock)
        self.client.declare(Queue(QUEUE))
        self.consumer = self.client.open_consumer(QUEUE, lease_s=LEASE_S)
        self.receipt = ""

    def publish(self, delay_s: float = 0.0) -> None:
        self.client.publish(QUEUE, [Message(ID, b"{}", 0, delay_s)])

    def take(self) -> Delivery:
        (delivery,) = self.consumer.receive(1, 0.0)
        self.receipt = delivery.receipt
        return delivery

    def do(self, event: Event | DeadReason) -> None:
        if event in SETTLES:
            self.consumer.settle([SETTLES[event](self.receipt)])
            return
        calls: dict[Event | DeadReason, Callable[[], object]] = {
            Event.PUBLISH: self.publish,
            Event.DELAY: lambda: self.publish(DELAY_S),
            Event.DUE: lambda: self.clock.advance(DELAY_S),
            Event.TAKE: self.take,
            Event.CRASH: lambda: self.clock.advance(LEASE_S),
            Event.CANCEL: lambda: self.client.cancel(QUEUE, [ID]),
            Event.REDRIVE: lambda: self.client.redrive(QUEUE),
            Event.DISCARD: lambda: self.client.discard(QUEUE),
            Event.FORGET: lambda: self.clock.advance(TTL_S),
            Event.PURGE: lambda: self.client.purge(QUEUE),
        }
        calls[event]()

    def state(self) -> State:
        counts = self.client.counts(QUEUE)
        if counts.in_flight:
            (outcome,) = self.consumer.extend([self.receipt])
            return State.IN_FLIGHT if outcome.value == "ok" else State.CANCELLING
        for count, state in [
            (counts.ready, State.READY),
            (counts.delayed, State.DELAYED),
            (counts.dead, State.DEAD),
        ]:
            if count:
                return state
        ends = {JobStatus.DONE: State.DONE, JobStatus.CANCELLED: State.CANCELLED}
        return ends.get(self.client.status(QUEUE, ID), State.REMOVED)

    def numbers(self) -> tuple[int, int, int]:
        """The attempt, the crashes and the errors of the job; it is made a dead letter for that."""
        if self.state() is State.DELAYED:
            self.clock.advance(DELAY_S)
        if self.state() is State.READY:
            self.take()
        if self.state() is State.IN_FLIGHT:
            self.do(DeadReason.REJECTED)
            (letter,) = self.client.dead_letters(QUEUE)
            return letter.attempt, letter.crashes, len(letter.history)
        (letter,) = self.client.dead_letters(QUEUE)
        return letter.attempt, letter.crashes, len(letter.history) + 1


WAYS = {
    State.NEW: [],
    State.READY: [],
    State.DELAYED: [Event.TAKE, Event.SNOOZE],
    State.IN_FLIGHT: [Event.TAKE],
    State.CANCELLING: [Event.TAKE, Event.CANCEL],
    State.DEAD: [Event.TAKE, DeadReason.REJECTED],
}
"""What brings a job that is ready into each state."""


@pytest.mark.parametrize(("state", "event"), ROWS, ids=lambda each: each.name)
def test_an_event_leads_where_the_table_says_and_counts_that(
    clock: ManualClock, state: State, event: Event | DeadReason
) -> None:
    job = OneJob(clock)
    if state is not State.NEW:
        for each in (Event.PUBLISH, Event.TAKE, Event.RETRY, Event.TAKE, Event.CRASH, *WAYS[state]):
            job.do(each)
    attempt, crashes, errors = (1, 0, 0) if state is State.NEW else (2, 1, 1)
    errors += state is State.DEAD
    target, counts = LIFE[state, event]

    job.do(event)

    assert job.state() is STORED_AS.get(target, target)
    if target in (State.READY, State.DELAYED, State.IN_FLIGHT, State.DEAD):
        if Count.ANEW in counts:
            attempt, crashes, errors = 1, 0, 0
        expected = (attempt + (Count.ATTEMPT in counts), crashes + (Count.CRASH in counts))
        assert job.numbers() == (*expected, errors + (Count.ERROR in counts))
