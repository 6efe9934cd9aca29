"""CON-1: requests that never arrived, or that the broker refused: each answer is true, and no job is lost.

Each check disturbs one client, and accounts for the jobs with another. What a harness can't do isn't tried.
"""

from functools import partial

from ...domain.errors import JobsError, QueueNotFound
from ...ports import (
    Ack,
    Dead,
    JobResult,
    Lease,
    PublishOutcome,
    PublishStatus,
    ResultStatus,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..disturbances import Disturbance, call_disturbed
from ..registry import check
from ..violation import demand
from .two_sides import (
    COUNTS,
    ENDS,
    LATER_S,
    NEXT,
    End,
    Found,
    TwoSides,
    account,
    all_of,
    final_outcome,
    said_of,
    two_sides,
)

_LOST_ON_THE_WAY = (Disturbance.LOST_REQUEST, Disturbance.CUT_OFF, Disturbance.REFUSAL)


# -- publishing -----------------------------------------------------------------------------------


@check("PUB-1", "CON-1", "PUB-4")
def a_publish_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """What is ACCEPTED is there; what is REJECTED, or of a call that raised, isn't; the rest is UNKNOWN."""
    for how in _LOST_ON_THE_WAY:
        with two_sides(context) as sides:
            _publish_disturbed(context, sides, how)


def _publish_disturbed(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    queue = sides.disturbed
    queue.publish("before")
    messages = [queue.message("a"), queue.message("b"), queue.message("later", delay_s=LATER_S)]
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.publish(queue.name, messages))
    if answer is None:
        return
    outcomes: list[PublishOutcome] = [] if isinstance(answer, JobsError) else answer
    by_status = {
        status: {outcome.id for outcome in outcomes if outcome.status is status} for status in PublishStatus
    }
    accepted, unknown = by_status[PublishStatus.ACCEPTED], by_status[PublishStatus.UNKNOWN]
    said = f"a publish of a, b and later {how.words} {said_of(answer)}"
    demand("PUB-1", not by_status[PublishStatus.DUPLICATE], f"{said}, and none of them was there before")
    unexplained = [each.id for each in outcomes if each.id not in accepted and each.error is None]
    demand("PUB-4", not unexplained, f"{said}, without an error for {unexplained}")
    found = account(sides, sides.other, all_of({"before", *accepted}))
    missing = {"before", *accepted} - found.everywhere
    demand("PUB-1", not missing, f"{said}, and {sorted(missing)} never came; these came: {found.ids}")
    surplus = found.everywhere - {"before", *accepted, *unknown}
    demand("CON-1", not surplus, f"{said}, and {sorted(surplus)} came all the same")


# -- settling -------------------------------------------------------------------------------------


@check("CON-1", "LSE-4", "SET-2", "SET-3", "SET-4", "THEN-1", "THEN-4")
def a_settlement_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """What is answered OK counts, at once or when it is sent again; no job is lost, whatever is answered.

    Where the connection is the lease it may be LOST: then its job is settled, or comes again, or both.
    """
    for how in _LOST_ON_THE_WAY:
        with two_sides(context) as sides:
            following = context.queue_on(sides.other.backend, name="following")
            ends = [end for end in ENDS if context.capabilities.then or not end.has_next]
            for end in ends:
                if not _settle_disturbed(context, sides, following, how, end):
                    break


@check("RES-2", "LSE-4", needs="results")
def an_ack_that_never_arrives_keeps_no_result(context: CheckContext) -> None:
    """The result of an ack that is answered LOST isn't kept: the job's next run has yet to give one."""
    with two_sides(context) as sides:
        queue = sides.disturbed
        sides.other.publish("job")
        consumer = queue.consumer()
        ack = Ack(queue.receive_one(consumer).receipt, b"lost")
        answer = call_disturbed(
            context, queue.backend, Disturbance.LOST_REQUEST, lambda: consumer.settle([ack])
        )
        if answer is None:
            return
        outcome = final_outcome(context, consumer, ack, answer)
        found = sides.other.backend.result(queue.name, "job")
        kept = JobResult(ResultStatus.DONE, b"lost") if outcome in COUNTS else None
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
    outcome = final_outcome(context, consumer, settlement, answer)
    said = f"{end.words} {how.words} {said_of(answer)}, and was {outcome} in the end"
    consumer.close()  # so that what it holds, against what it says, can be found
    _account_for_end(context, sides, following, end, outcome, said)
    sides.other.backend.discard(queue.name)
    return True


def _account_for_end(
    context: CheckContext,
    sides: TwoSides,
    following: QueueUnderTest,
    end: End,
    outcome: SettleOutcome,
    said: str,
) -> None:
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    counts = outcome in COUNTS
    demand("CON-1", counts or (may_be_lost and outcome is SettleOutcome.LOST), f"{said}: its lease had held")
    there = account(sides, following, all_of([NEXT] if counts and end.has_next else ()))
    has_effect = not end.has_next or NEXT in there.ids
    clause = "THEN-4" if end.is_dead else "THEN-1"
    demand(clause, has_effect or not counts, f"{said}, and the next job never came")

    def is_somewhere(found: Found) -> bool:
        if not counts and end.has_next and has_effect and not end.is_dead:
            return True
        if not counts:
            return end.job in found.everywhere or end.words == "an ack"
        return (not end.comes_again or end.job in found.ids) and (not end.is_dead or end.job in found.dead)

    found = account(sides, sides.other, is_somewhere).of(end.job)
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
        with two_sides(context) as sides:
            queue = sides.disturbed
            queue.publish("job")
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            answer = call_disturbed(context, queue.backend, how, partial(consumer.extend, [receipt]))
            if answer is None:
                continue
            (after,) = consumer.extend([receipt])
            said = f"an extension {how.words} {said_of(answer)}, and the next one {after}"
            demand("LSE-3", may_be_lost or after is SettleOutcome.OK, f"{said}: its lease had held")
            outcome = final_outcome(context, consumer, Ack(receipt), consumer.settle([Ack(receipt)]))
            counts = outcome in COUNTS
            demand("CON-1", counts or may_be_lost, f"{said}, and an ack was answered {outcome}")
            found = account(sides, sides.other, all_of(() if counts else ["job"]))
            demand("CON-1", bool(found.came) != counts, f"{said}, the ack {outcome}; these came: {found.ids}")


@check("CON-1", "DLQ-2", "DLQ-3", "ADM-2", "ADM-3")
def administration_that_never_arrives_is_answered_truly(context: CheckContext) -> None:
    """A redrive, a discard, a purge and a delete did what they say; what raised lost no job on the way."""
    for how in _LOST_ON_THE_WAY:
        for act in (_redrive, _discard, _purge, _delete):
            with two_sides(context) as sides:
                act(context, sides, how)


_IDS = ("a", "b", "c")


def _kill(sides: TwoSides) -> None:
    """Make three dead letters."""
    sides.other.publish(*_IDS)
    dead: list[str] = []
    while len(dead) < len(_IDS):
        deliveries = sides.other.receive(sides.auditor, len(_IDS))
        assert deliveries, f"only {dead} of {_IDS} came"
        sides.auditor.settle([Dead(delivery.receipt, "rejected", "no good") for delivery in deliveries])
        dead += [delivery.id for delivery in deliveries]
    sides.other.expect_counts(dead=len(_IDS))


def _redrive(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    _kill(sides)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.redrive(queue.name))
    if answer is None:
        return
    said = f"a redrive of 3 {how.words} {said_of(answer)}"
    found = account(sides, sides.other, all_of(_IDS))
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
        demand("DLQ-3", as_said, f"a discard of 3 {how.words} {said_of(answer)}, and {left} are dead still")


def _purge(context: CheckContext, sides: TwoSides, how: Disturbance) -> None:
    sides.other.publish(*_IDS)
    queue = sides.disturbed
    answer = call_disturbed(context, queue.backend, how, lambda: queue.backend.purge(queue.name))
    if answer is None or isinstance(answer, JobsError):
        return
    found = account(sides, sides.other, lambda _: True)
    as_said = answer == len(_IDS) and not found.came
    demand("ADM-2", as_said, f"a purge of 3 {how.words} {said_of(answer)}, and these came: {found.ids}")


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
