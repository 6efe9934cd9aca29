"""SET-1: jobs of which more is said after the broker has refused a settlement.

An application that hears that a settlement wasn't carried out may say the same again, or something else: a
job that was to go back is run here after all, or is cancelled. It then ends once, as the last answer says.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from hypothesis import strategies as st

from ...domain import Queue
from ...domain.errors import JobsError
from ...ports import ConsumerBackend, Delivery, Lease, Release, Settled, SettleOutcome
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..disturbances import Disturbance, call_disturbed
from ..registry import check
from ..violation import demand
from .two_sides import ENDS, End, Found, TwoSides, account, final_outcome, said_of, two_sides

_ENDS = tuple(end for end in ENDS if not end.has_next)
_JOBS = 2
"""How many jobs each example has. All is refused to them at the same time."""


class _Script(NamedTuple):
    """What is said of one job: while the broker refuses, what happens in between, and afterwards."""

    refused: Sequence[End]
    between: str
    last: End


_scripts = st.builds(
    _Script,
    refused=st.lists(st.sampled_from(_ENDS), min_size=1, max_size=2),
    between=st.sampled_from(["nothing", "extend", "interrupt", "declare", "take again"]),
    last=st.sampled_from(_ENDS),
)


class _Job:
    """A job that one consumer holds, and of which it says one thing after the other.

    Args:
        queue: Where it came from, by the client that is disturbed.
        consumer: Who holds it.
        delivery: The job.
    """

    def __init__(self, queue: QueueUnderTest, consumer: ConsumerBackend, delivery: Delivery) -> None:
        self.queue = queue
        self.consumer = consumer
        self.delivery = delivery
        self.possible: list[End] = []
        """How it may have ended by now."""
        self.deferred: list[End] = []
        """What the broker may carry out yet, unless something else counts."""
        self.is_lost = False
        """Whether it isn't known how it ended, and whether it was delivered anew."""
        self.is_mine = True
        """Whether its end is yet to be said."""
        self.said: list[str] = []

    def say(self, end: End) -> Settled | JobsError:
        """Settle it; any answer will do."""
        try:
            answer: Settled | JobsError = self.consumer.settle([end.make(self.delivery.receipt, "")])
        except JobsError as error:
            answer = error
        self.note(end, answer)
        return answer

    def note(self, end: End, answer: Settled | JobsError) -> None:
        """Learn from an answer how the job may have ended."""
        self.said.append(f"{end.words} {said_of(answer)}")
        if isinstance(answer, JobsError):
            self.possible.append(end)  # whether it counts isn't known
            return
        (outcome,) = answer.outcomes
        if outcome is SettleOutcome.OK:
            self.possible, self.deferred = [end], []
        elif outcome is SettleOutcome.DEFERRED:
            self.deferred.append(end)
        elif outcome is SettleOutcome.ALREADY:
            self.possible += self.deferred
        self.is_lost |= outcome is SettleOutcome.LOST

    def take_again(self, end: End, answer: Settled | JobsError) -> None:
        """As an application does whose release is deferred: it may run the job here."""
        if isinstance(answer, Settled) and answer.outcomes == [SettleOutcome.DEFERRED]:
            self.is_mine = bool(self.consumer.take_again([self.delivery]))
            self.said.append(f"it was {'taken again' if self.is_mine else 'to go back'}")
            if not self.is_mine:
                self.possible.append(end)

    def is_where_it_may_be(self, found: Found) -> bool:
        """Whether it ended in one of these ways, and once."""
        mine = found.of(self.delivery.id)
        return self.is_lost or any(_is_so(end, mine) for end in self.possible)


def _is_so(end: End, found: Found) -> bool:
    attempts = [delivery.attempt for delivery in found.came]
    return attempts == ([end.attempt] if end.comes_again else []) and len(found.dead) == end.is_dead


@check("SET-1", "CON-1", "LSE-4", "SET-2", "SET-3", "SET-4")
def what_is_said_after_a_refusal_counts_once(context: CheckContext) -> None:
    """Whatever is said of a job after its settlement was refused: it ends once, as the last answer says."""

    @context.waited_property(cases=2, scripts=st.lists(_scripts, min_size=_JOBS, max_size=_JOBS))
    def _(scripts: list[_Script]) -> None:
        with two_sides(context) as sides:
            _play(context, sides, scripts)


def _play(context: CheckContext, sides: TwoSides, scripts: Sequence[_Script]) -> None:
    queue, consumer = sides.disturbed, sides.disturbed.consumer()
    sides.other.publish(*(f"job-{number}" for number in range(len(scripts))))
    jobs = [_Job(queue, consumer, queue.receive_one(consumer)) for _ in scripts]
    played = list(zip(jobs, scripts, strict=True))
    if call_disturbed(context, queue.backend, Disturbance.REFUSAL, partial(_refuse, played)) is None:
        return
    for job, script in played:
        if job.is_mine:
            settlement = script.last.make(job.delivery.receipt, "")
            answer = job.say(script.last)
            if not isinstance(answer, Settled) or answer.outcomes[0].keeps_receipt:
                outcome = final_outcome(context, consumer, settlement, answer)
                job.note(script.last, Settled([outcome], []))
    context.eventually(partial(_is_put_back, consumer))
    consumer.close()
    _account_for(context, sides, jobs)


def _refuse(played: Sequence[tuple[_Job, _Script]]) -> bool:
    """Say what is to be refused."""
    for job, script in played:
        for end in script.refused:
            if job.is_mine:
                answer = job.say(end)
                _go_on(job, script.between, end, answer)
    return True


def _go_on(job: _Job, between: str, end: End, answer: Settled | JobsError) -> None:
    try:
        match between:
            case "extend":
                job.consumer.extend([job.delivery.receipt])
            case "interrupt":
                job.consumer.interrupt()
                job.consumer.receive(1, 0.0)
            case "declare":
                job.queue.backend.declare(Queue(job.queue.name))
            case "take again" if end.make("", "") == Release(""):
                job.take_again(end, answer)
            case _:
                pass
    except JobsError as error:
        job.said.append(f"{between} {said_of(error)}")


def _is_put_back(consumer: ConsumerBackend) -> None:
    """Demand that what the broker may carry out late is done; each call sees to that."""
    consumer.receive(1, 0.0)
    assert not consumer.held_back, f"{consumer.held_back} jobs are still about to go back"


def _account_for(context: CheckContext, sides: TwoSides, jobs: Sequence[_Job]) -> None:
    found = account(sides, sides.other, lambda found: all(job.is_where_it_may_be(found) for job in jobs))
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    for job in jobs:
        demand("LSE-4", may_be_lost or not job.is_lost, f"{'; '.join(job.said)}: its lease had held")
        mine = found.of(job.delivery.id)
        attempts = [delivery.attempt for delivery in mine.came]
        where = f"it came again with attempts {attempts}" if attempts else "it didn't come again"
        where += f", and is dead {len(mine.dead)} times"
        demand("SET-1", job.is_where_it_may_be(found), f"of a job, {'; '.join(job.said)}: {where}")
        is_charged = any(delivery.crashes for delivery in mine.came)
        demand("CON-1", job.is_lost or not is_charged, f"{'; '.join(job.said)}: it is charged with a crash")
