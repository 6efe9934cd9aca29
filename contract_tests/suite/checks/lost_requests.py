"""CON-1: requests that never arrived, or that the broker refused: each answer is true, and no job is lost.

Each check disturbs one client, and accounts for the jobs with another. A broker notices late that a
connection ended, so the account waits until each job is where it may be. What a harness can't do isn't tried.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from ...domain.errors import BackendUnavailable, JobsError, QueueNotFound
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    JobResult,
    Lease,
    Message,
    Next,
    PublishOutcome,
    PublishStatus,
    Release,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..disturbances import Disturbance, call_disturbed
from ..registry import check
from ..violation import demand

_LOST_ON_THE_WAY = (Disturbance.LOST_REQUEST, Disturbance.CUT_OFF, Disturbance.REFUSAL)
_LATER_S = 0.2
_LOOK_S = 0.5
_COUNTS = (SettleOutcome.OK, SettleOutcome.ALREADY)


class TwoSides(NamedTuple):
    """One queue, as a client sees it that is disturbed, and as another does that isn't."""

    disturbed: QueueUnderTest
    other: QueueUnderTest
    auditor: ConsumerBackend
    """Takes what the account looks for; of the other client."""


@contextmanager
def _two_sides(context: CheckContext) -> Iterator[TwoSides]:
    with context.backends(2) as (mine, others):
        disturbed, other = context.queue_on(mine), context.queue_on(others)
        yield TwoSides(disturbed, other, other.consumer())


class Found(NamedTuple):
    """Where the account found jobs: what it received and acknowledged, and which are dead."""

    came: list[Delivery]
    dead: list[str]

    @property
    def ids(self) -> list[str]:
        """The ids of what came."""
        return [delivery.id for delivery in self.came]

    def of(self, id_: str) -> "Found":
        """What was found of one job."""
        return Found(
            [each for each in self.came if each.id == id_], [each for each in self.dead if each == id_]
        )

    @property
    def everywhere(self) -> set[str]:
        """Whatever was found anywhere."""
        return {*self.ids, *self.dead}


def _account(sides: TwoSides, queue: QueueUnderTest, is_enough: Callable[[Found], bool]) -> Found:
    """Take what there is until that is enough and nothing waits, or time is up."""
    consumer = sides.auditor if queue is sides.other else queue.consumer()
    found = Found([], [])
    give_up = time.monotonic() + queue.context.harness.timeout_s
    while True:
        found.dead[:] = [letter.id for letter in queue.backend.dead_letters(queue.name)]
        if is_enough(found) and not queue.counts().waiting:
            return found
        if time.monotonic() >= give_up:
            return found
        deliveries = queue.receive(consumer, 10, timeout_s=_LOOK_S)
        found.came.extend(deliveries)
        consumer.settle([Ack(delivery.receipt) for delivery in deliveries])


def _all_of(ids: Iterable[str]) -> Callable[[Found], bool]:
    expected = set(ids)
    return lambda found: expected <= found.everywhere


# -- publishing -----------------------------------------------------------------------------------


@check("PUB-1", "CON-1", "PUB-4")
def a_publish_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """What is ACCEPTED is there; what is REJECTED, or of a call that raised, isn't; the rest is UNKNOWN."""
    for how in _LOST_ON_THE_WAY:
        with _two_sides(context) as sides:
            _publish_disturbed(context, sides, how)


def _publish_disturbed(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    queue = sides.disturbed
    queue.publish("before")
    messages = [queue.message("a"), queue.message("b"), queue.message("later", delay_s=_LATER_S)]
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.publish(queue.name, messages))
    if answer is None:
        return
    outcomes: list[PublishOutcome] = [] if isinstance(answer, JobsError) else answer
    by_status = {
        status: {outcome.id for outcome in outcomes if outcome.status is status} for status in PublishStatus
    }
    accepted, unknown = by_status[PublishStatus.ACCEPTED], by_status[PublishStatus.UNKNOWN]
    said = f"a publish of a, b and later {how.words} {_said(answer)}"
    demand("PUB-1", not by_status[PublishStatus.DUPLICATE], f"{said}, and none of them was there before")
    unexplained = [each.id for each in outcomes if each.id not in accepted and each.error is None]
    demand("PUB-4", not unexplained, f"{said}, without an error for {unexplained}")
    found = _account(sides, sides.other, _all_of({"before", *accepted}))
    missing = {"before", *accepted} - found.everywhere
    demand("PUB-1", not missing, f"{said}, and {sorted(missing)} never came; these came: {found.ids}")
    surplus = found.everywhere - {"before", *accepted, *unknown}
    demand("CON-1", not surplus, f"{said}, and {sorted(surplus)} came all the same")


# -- settling -------------------------------------------------------------------------------------


class End(NamedTuple):
    """A way to end a delivery, and where its job is then."""

    words: str
    make: Callable[[str, str], Settlement]
    """Called with the receipt and the name of the following queue."""
    comes_again: bool = False
    is_dead: bool = False
    has_next: bool = False
    attempt: int = 1

    @property
    def job(self) -> str:
        """The id of its job. Another end's may come again late, as the broker notices a cut late."""
        return self.words.replace(" ", "-")


_NEXT = "next"


def _ack_with_a_next_job(receipt: str, following: str) -> Settlement:
    return Ack(receipt, then=(Next(following, Message(_NEXT, b"{}")),))


def _death_with_a_next_job(receipt: str, following: str) -> Settlement:
    return Dead(receipt, "rejected", "no good", then=(Next(following, Message(_NEXT, b"{}")),))


_ENDS = (
    End("an ack", lambda receipt, _: Ack(receipt)),
    End("a retry", lambda receipt, _: Retry(receipt, 0.0, "again"), comes_again=True, attempt=2),
    End("a retry with a delay", lambda receipt, _: Retry(receipt, _LATER_S, "later"), True, attempt=2),
    End("a death", lambda receipt, _: Dead(receipt, "rejected", "no good"), is_dead=True),
    End("a release", lambda receipt, _: Release(receipt), comes_again=True),
    End("a release with a delay", lambda receipt, _: Release(receipt, _LATER_S), comes_again=True),
    End("an ack with a next job", _ack_with_a_next_job, has_next=True),
    End("a death with a next job", _death_with_a_next_job, is_dead=True, has_next=True),
)


@check("CON-1", "LSE-4", "SET-2", "SET-3", "SET-4", "THEN-1", "THEN-4")
def a_settlement_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """What is answered OK counts, at once or when it is sent again; no job is lost, whatever is answered.

    Where the connection is the lease it may be LOST: then its job is settled, or comes again, or both.
    """
    for how in _LOST_ON_THE_WAY:
        with _two_sides(context) as sides:
            following = context.queue_on(sides.other.backend, name="following")
            ends = [end for end in _ENDS if context.capabilities.then or not end.has_next]
            for end in ends:
                if not _settle_disturbed(context, sides, following, how, end):
                    break


@check("RES-2", "LSE-4", needs="results")
def an_ack_that_never_arrives_keeps_no_result(context: CheckContext) -> None:
    """The result of an ack that is answered LOST isn't kept: the job's next run has yet to give one."""
    with _two_sides(context) as sides:
        queue = sides.disturbed
        sides.other.publish("job")
        consumer = queue.consumer()
        ack = Ack(queue.receive_one(consumer).receipt, b"lost")
        answer = call_disturbed(
            context, queue.backend, Disturbance.LOST_REQUEST, lambda: consumer.settle([ack])
        )
        if answer is None:
            return
        outcome = _final_outcome(context, consumer, ack, answer)
        found = sides.other.backend.result(queue.name, "job")
        kept = JobResult(ResultStatus.DONE, b"lost") if outcome in _COUNTS else None
        demand("RES-2", found == kept, f"an ack with a result was {outcome} in the end, and there is {found}")


def _settle_disturbed(
    context: CheckContext, sides: TwoSides, following: QueueUnderTest, how: Disturbance, end: End
) -> bool:
    """Settle a job in one way, and account for it; return whether the harness can disturb that."""
    queue = sides.disturbed
    sides.other.publish(end.job)
    consumer = queue.consumer()
    while (delivery := queue.receive_one(consumer)).id != end.job:  # of an end that was lost, and late
        consumer.settle([Ack(delivery.receipt)])
    settlement = end.make(delivery.receipt, following.name)
    answer = call_disturbed(context, queue.backend, how, lambda: consumer.settle([settlement]))
    if answer is None:
        return False
    outcome = _final_outcome(context, consumer, settlement, answer)
    said = f"{end.words} {how.words} {_said(answer)}, and was {outcome} in the end"
    consumer.close()  # so that what it holds, against what it says, can be found
    _account_for_end(context, sides, following, end, outcome, said)
    sides.other.backend.discard(queue.name)
    return True


def _final_outcome(
    context: CheckContext, consumer: ConsumerBackend, settlement: Settlement, answer: Settled | JobsError
) -> SettleOutcome:
    """Send a settlement again until it is answered for good, as the application does."""
    give_up = time.monotonic() + context.harness.timeout_s
    while isinstance(answer, JobsError) or answer.outcomes[0].keeps_receipt:
        demand("CON-1", time.monotonic() < give_up, f"{settlement} {_said(answer)} again and again")
        try:
            answer = consumer.settle([settlement])
        except BackendUnavailable as error:
            answer = error
            context.pass_time(0.05)
    return answer.outcomes[0]


def _account_for_end(
    context: CheckContext,
    sides: TwoSides,
    following: QueueUnderTest,
    end: End,
    outcome: SettleOutcome,
    said: str,
) -> None:
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    counts = outcome in _COUNTS
    demand("CON-1", counts or (may_be_lost and outcome is SettleOutcome.LOST), f"{said}: its lease had held")
    there = _account(sides, following, _all_of([_NEXT] if counts and end.has_next else ()))
    has_effect = not end.has_next or _NEXT in there.ids
    clause = "THEN-4" if end.is_dead else "THEN-1"
    demand(clause, has_effect or not counts, f"{said}, and the next job never came")

    def is_somewhere(found: Found) -> bool:
        if not counts and end.has_next and has_effect and not end.is_dead:
            return True
        if not counts:
            return end.job in found.everywhere or end.words == "an ack"
        return (not end.comes_again or end.job in found.ids) and (not end.is_dead or end.job in found.dead)

    found = _account(sides, sides.other, is_somewhere).of(end.job)
    where = f"came: {found.ids}, dead: {found.dead}"
    demand("CON-1", is_somewhere(found), f"{said}, and the job is lost; {where}")
    if not counts:
        return
    demand("LSE-4", end.comes_again or not found.came, f"{said}, and the job came again; {where}")
    demand("LSE-4", end.is_dead or not found.dead, f"{said}, and the job is dead; {where}")
    once = len(found.came) == 1 or not end.comes_again or may_be_lost
    demand("CON-1", once, f"{said}, and the job came {len(found.came)} times")
    attempts = {delivery.attempt for delivery in found.came}
    demand("CON-1", attempts <= {end.attempt}, f"{said}, and came with attempts {attempts}")


# -- leases and administration --------------------------------------------------------------------


@check("LSE-3", "CON-1")
def an_extension_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """What is answered OK is still held. A timed lease lasts, and is extended by the next call."""
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    for how in _LOST_ON_THE_WAY:
        with _two_sides(context) as sides:
            queue = sides.disturbed
            queue.publish("job")
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            answer = call_disturbed(context, queue.backend, how, partial(consumer.extend, [receipt]))
            if answer is None:
                continue
            (after,) = consumer.extend([receipt])
            said = f"an extension {how.words} {_said(answer)}, and the next one {after}"
            demand("LSE-3", may_be_lost or after is SettleOutcome.OK, f"{said}: its lease had held")
            outcome = _final_outcome(context, consumer, Ack(receipt), consumer.settle([Ack(receipt)]))
            counts = outcome in _COUNTS
            demand("CON-1", counts or may_be_lost, f"{said}, and an ack was answered {outcome}")
            found = _account(sides, sides.other, _all_of(() if counts else ["job"]))
            demand("CON-1", bool(found.came) != counts, f"{said}, the ack {outcome}; these came: {found.ids}")


@check("CON-1", "DLQ-2", "DLQ-3", "ADM-2", "ADM-3")
def administration_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """A redrive, a discard, a purge and a delete did what they say; what raised lost no job on the way."""
    for how in _LOST_ON_THE_WAY:
        for act in (_redrive, _discard, _purge, _delete):
            with _two_sides(context) as sides:
                act(context, sides, how)


_IDS = ("a", "b", "c")


def _kill(sides: TwoSides) -> None:
    """Make three dead letters."""
    sides.other.publish(*_IDS)
    dead: list[str] = []
    while len(dead) < len(_IDS):
        deliveries = sides.other.receive(sides.auditor, len(_IDS))
        sides.auditor.settle([Dead(delivery.receipt, "rejected", "no good") for delivery in deliveries])
        dead += [delivery.id for delivery in deliveries]
    sides.other.expect_counts(dead=len(_IDS))


def _redrive(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    _kill(sides)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.redrive(queue.name))
    if answer is None:
        return
    said = f"a redrive of 3 {how.words} {_said(answer)}"
    found = _account(sides, sides.other, _all_of(_IDS))
    where = f"came: {found.ids}, dead: {found.dead}"
    lost = set(_IDS) - found.everywhere
    demand("CON-1", not lost, f"{said}, and {sorted(lost)} are lost; {where}")
    as_said = isinstance(answer, JobsError) or (len(set(found.ids)), len(found.dead)) == (answer, 3 - answer)
    demand("DLQ-2", as_said, f"{said}; {where}")


def _discard(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    _kill(sides)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.discard(queue.name))
    if answer is None:
        return
    if not isinstance(answer, JobsError):
        left = len(sides.other.backend.dead_letters(queue.name))
        as_said = answer == len(_IDS) and not left
        demand("DLQ-3", as_said, f"a discard of 3 {how.words} {_said(answer)}, and {left} are dead still")


def _purge(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    sides.other.publish(*_IDS)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.purge(queue.name))
    if answer is None or isinstance(answer, JobsError):
        return
    found = _account(sides, sides.other, lambda _: True)
    as_said = answer == len(_IDS) and not found.came
    demand("ADM-2", as_said, f"a purge of 3 {how.words} {_said(answer)}, and these came: {found.ids}")


def _delete(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    sides.other.publish(*_IDS)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: _delete_it(queue))
    if answer is None or isinstance(answer, JobsError):
        return
    error = context.failure_of(sides.other.counts)
    gone = isinstance(error, QueueNotFound)
    demand("ADM-3", gone, f"a delete {how.words} returned, and the queue is there: counting raised {error!r}")


def _delete_it(queue: QueueUnderTest) -> str:
    queue.backend.delete(queue.name)
    return "done"


def _said(answer: list[PublishOutcome] | Settled | JobsError | object) -> str:
    """What a call answered, in the words of a report."""
    if isinstance(answer, JobsError):
        return f"raised {type(answer).__name__}: {answer}"
    if isinstance(answer, Settled):
        return f"was answered {[str(outcome) for outcome in answer.outcomes]}"
    if isinstance(answer, list):
        return f"was answered {[str(getattr(each, 'status', each)) for each in answer]}"
    return f"was answered {answer}"
