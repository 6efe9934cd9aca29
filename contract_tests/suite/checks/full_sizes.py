"""SET-3, RES-1, PUB-4, CAN-1, LSE-2: the sizes that the documentation names, and more than a request has."""

from collections.abc import Sequence

from ...domain.bounds import MAX_FAILURE_CHARS
from ...ports import (
    Ack,
    CancelOutcome,
    ConsumerBackend,
    Dead,
    Delivery,
    JobResult,
    Lease,
    PublishStatus,
    Release,
    ResultStatus,
    Retry,
    Settlement,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_REMEMBERED = 10_000
"""Of how many jobs without a result a queue remembers that they are done."""
_MANY = _REMEMBERED + 200
"""More than that, and more than a script of Lua can unpack at once."""
_FEW, _CALLS = 20, 80
"""How many of them end in each of the last calls, and in how many: an adapter may clean up in one of many."""
_LATE = 1200
"""More jobs than an adapter takes back in one request."""
_PAGE = 1000
_KEPT_ATTEMPTS = 10
_LEAST_CHARS = 512
"""How much of each error must be left where the broker has no room for all."""


@check("SET-3", "RTY-1")
def a_history_of_the_longest_errors_is_kept(context: CheckContext) -> None:
    """Failures of the longest text, with four bytes a character, hinder no run, and stand in the letter."""
    texts = [
        f"{attempt:02}" + "\N{SKULL}\N{FACE WITH TEARS OF JOY}" * MAX_FAILURE_CHARS
        for attempt in range(1, 13)
    ]
    errors = [text[-MAX_FAILURE_CHARS + 2 :] + text[:2] for text in texts]  # the end tells them apart
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        for attempt, error in enumerate(errors, 1):
            held = queue.receive_one(consumer)
            demand("SET-2", held.attempt == attempt, f"attempt {held.attempt} came as {attempt}")
            dead = Dead(held.receipt, "attempts exhausted", error)
            queue.settle_ok(consumer, dead if attempt == len(errors) else Retry(held.receipt, 0.0, error))
        queue.expect_counts(dead=1)
        (letter,) = queue.backend.dead_letters(queue.name)
        kept = range(len(errors) - _KEPT_ATTEMPTS, len(errors))
        attempts = [failure.attempt for failure in letter.history]
        demand("SET-3", attempts == [*kept], f"the history has attempts {attempts}, expected {[*kept]}")
        found = {"error": letter.error} | {f"history[{each.attempt}]": each.error for each in letter.history}
        expected = [errors[-1], *(errors[attempt - 1] for attempt in kept)]
        for (field, text), error in zip(found.items(), expected, strict=True):
            is_end = len(text) >= _LEAST_CHARS and error.endswith(text.lstrip("…. "))
            demand("SET-3", is_end, f"{field} is {len(text)} characters of {len(error)}: {text[-20:]!r}")


@check("PUB-4", "RCV-1", "SET-1", "RES-1", takes_long=True)
def ten_thousand_jobs_end_in_one_call(context: CheckContext) -> None:
    """10,200 jobs are published by one call, most are settled by one, and 10,000 are remembered as done."""
    ids = _shuffled(_MANY)
    with context.queue() as queue:
        _publish(queue, ids)
        consumer = queue.consumer()
        held = _receive(queue, consumer, _MANY)
        acks = [Ack(each.receipt) for each in held.values()]
        most = _MANY - _FEW * _CALLS
        for call in (acks[:most], *(acks[at : at + _FEW] for at in range(most, _MANY, _FEW))):
            outcomes = consumer.settle(call).outcomes
            done = outcomes.count(SettleOutcome.OK)
            found = f"{len(call)} acks in one call got {len(outcomes)} answers, {done} OK"
            demand("SET-1", done == len(outcomes) == len(call), found)
        queue.expect_counts()
        if not context.capabilities.results:
            return
        last = [*held][-_REMEMBERED:]
        _demand_done(queue, last[::10])
        again = last.pop(_REMEMBERED // 2)
        queue.publish(again)
        queue.backend.purge(queue.name)
        _demand_done(queue, last)
        result = queue.backend.result(queue.name, again)
        demand(
            "RES-1", result is None, f"{again}, which was published again and purged, has the result {result}"
        )


def _demand_done(queue: QueueUnderTest, ids: Sequence[str]) -> None:
    """Demand that each of these jobs is known to be done."""
    done = JobResult(ResultStatus.DONE)
    found = queue.backend.results(queue.name, ids)
    known = sum(result == done for result in found.values())
    demand("RES-1", known == len(ids), f"of {len(ids)} of the last jobs {known} are known to be done")
    first = queue.backend.result(queue.name, ids[0])
    demand("RES-1", first == done, f"of the last {_REMEMBERED} jobs, the first one has the result {first}")


@check("CAN-1", "CAN-4", needs="cancel", takes_long=True)
def thousands_of_jobs_are_cancelled_by_one_call(context: CheckContext) -> None:
    """10,200 jobs are cancelled by one call, those before and behind them stay, in their order."""
    ids = _shuffled(_MANY)
    with context.queue() as queue:
        queue.publish("first")
        _publish(queue, ids[: _MANY // 2])
        queue.publish("between")
        _publish(queue, ids[_MANY // 2 :])
        queue.publish("last")
        outcomes = queue.backend.cancel(queue.name, sorted(ids))  # in no order of their places
        gone = outcomes.count(CancelOutcome.CANCELLED)
        demand(
            "CAN-4", gone == len(outcomes) == _MANY, f"{_MANY} ids got {len(outcomes)} answers, {gone} gone"
        )
        queue.expect_counts(ready=3)
        came = queue.drain(queue.consumer(), 3)
        demand("CAN-1", came == ["first", "between", "last"], f"of all others, {came} came")


def _shuffled(count: int) -> list[str]:
    """Ids whose order isn't that of their letters."""
    return [f"job-{number * 7919 % count:05}" for number in range(count)]


def _publish(queue: QueueUnderTest, ids: Sequence[str]) -> None:
    outcomes = queue.backend.publish(queue.name, [queue.message(id_) for id_ in ids])
    accepted = sum(outcome.status is PublishStatus.ACCEPTED for outcome in outcomes)
    demand(
        "PUB-4",
        [each.id for each in outcomes] == [*ids],
        f"{len(ids)} got {len(outcomes)} answers, or others",
    )
    demand("PUB-4", accepted == len(ids), f"of {len(ids)} messages {accepted} were accepted")


def _receive(queue: QueueUnderTest, consumer: ConsumerBackend, count: int) -> dict[str, Delivery]:
    """Receive so many jobs; of one that came twice, as its lease was over, keep the last delivery."""
    held: dict[str, Delivery] = {}
    while len(held) < count:
        came = queue.receive(consumer, _PAGE)
        demand("RCV-1", came, f"only {len(held)} of {count} came")
        held |= {delivery.id: delivery for delivery in came}
    return held


@check("LSE-2", "LSE-4", "RTY-3", takes_long=True)
def many_late_settlements_change_nothing(context: CheckContext) -> None:
    """1,200 jobs are settled and extended after their leases ended, in an order of their own: all is lost."""
    harness = context.harness
    if context.capabilities.lease is Lease.CONNECTION:
        return
    lease_s = max(2.0, harness.lease_s)
    with context.queue() as queue:
        ids = _shuffled(_LATE)
        _publish(queue, ids)
        late = queue.consumer(lease_s=lease_s)
        held = _receive(queue, late, _LATE)
        harness.advance(harness.redelivery_s(lease_s))
        receipts = [held[id_].receipt for id_ in sorted(held, reverse=True)]
        outcomes = late.settle([_some_settlement(*each) for each in enumerate(receipts)]).outcomes
        lost = outcomes.count(SettleOutcome.LOST)
        demand("LSE-4", lost == len(outcomes) == _LATE, f"of {_LATE} late settlements, {lost} were lost")
        lost = late.extend(receipts).count(SettleOutcome.LOST)
        demand("LSE-4", lost == _LATE, f"of {_LATE} late extensions, {lost} were lost")
        queue.expect_counts(ready=_LATE)
        back = _receive(queue, queue.consumer(), _LATE).values()
        charged = sum(each.attempt == 1 and each.crashes >= 1 for each in back)
        demand(
            "RTY-3",
            charged == _LATE,
            f"of {_LATE} jobs {charged} came back with a crash and no attempt spent",
        )


def _some_settlement(number: int, receipt: str) -> Settlement:
    """One of every kind in turn; most are acks, as they are mostly."""
    others = (Retry(receipt, 0.0, "late"), Dead(receipt, "rejected", "late"), Release(receipt))
    return Ack(receipt) if number % 6 < 3 else others[number % 3]
