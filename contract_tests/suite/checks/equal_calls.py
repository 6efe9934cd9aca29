"""PUB-4, SET-1, RCV-1, RES-1: one call with many does what many calls with one do."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from ...domain import QueueKind
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    JobResult,
    Message,
    Redelivery,
    Release,
    ResultStatus,
    Retry,
    Settlement,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_FAR_S = 86_400.0
_MESSAGES = st.lists(
    st.tuples(st.sampled_from("qdzkbh"), st.integers(0, 9), st.booleans()), min_size=2, max_size=9
)
"""Of each its id, which may be there twice, its priority, and whether it is delayed."""
_ENDS = st.lists(
    st.sampled_from(["ack", "result", "retry", "retry later", "dead", "release", "release later"]),
    min_size=1,
    max_size=6,
)


class _Seen(NamedTuple):
    """What can be seen of a queue after some calls."""

    answers: list[str]
    delivered: list[tuple[str, int]]
    """Of each delivery its id and its attempt."""
    outcomes: list[str]
    counts: tuple[int, int, int]
    """Those ready, delayed and dead."""
    letters: list[tuple[str, str, str, int, list[str]]]
    """Of each its id, reason, error, attempt and the errors before."""
    results: dict[str, JobResult | None]
    then: list[tuple[str, int]]
    """What was taken, and came afterwards."""


@check("PUB-4", "SET-1", "RCV-1", "SET-2", "SET-3", "SET-4")
def one_call_does_what_many_do(context: CheckContext) -> None:
    """Publishing, receiving, settling and taking: all of it in one call or one by one leaves the same."""
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    kinds = [kind for kind in QueueKind if able.get(kind, True)]

    @context.waited_property(kind=st.sampled_from(kinds), drawn=_MESSAGES, ends=_ENDS, take=st.integers(1, 3))
    def _(kind: QueueKind, drawn: list[tuple[str, int, bool]], ends: list[str], take: int) -> None:
        messages = _messages(kind, drawn, twice=context.capabilities.dedupe)
        with context.backends(1) as (backend,):
            at_once, singly = (context.queue_on(backend, kind, name=name) for name in ("once", "singly"))
            one = _tried(at_once, messages, ends, take, in_one_call=True)
            many = _tried(singly, messages, ends, take, in_one_call=False)
        if context.capabilities.redelivery is not Redelivery.IN_ORDER:
            one, many = _in_any_order(one), _in_any_order(many)
        clauses = ("PUB-4", "RCV-1", "SET-1", "SET-1", "SET-3", "RES-1", "SET-1")
        for clause, field in zip(clauses, _Seen._fields, strict=True):
            once, each = getattr(one, field), getattr(many, field)
            what = f"of {kind} jobs {[message[:1] + message[2:] for message in messages]} ended as {ends}"
            found = f"{what}, taking {take}: {field} after one call are {once}, after one for each {each}"
            demand(clause, once == each, found)


def _messages(kind: QueueKind, drawn: Sequence[tuple[str, int, bool]], *, twice: bool) -> list[Message]:
    messages = [
        Message(
            id_,
            b'{"id":"%b","as":%d}' % (id_.encode(), number),
            priority if kind is QueueKind.PRIORITY else 0,
            _FAR_S if is_delayed else 0.0,
        )
        for number, (id_, priority, is_delayed) in enumerate(drawn)
    ]
    return messages if twice else [*{message.id: message for message in messages}.values()]


def _tried(
    queue: QueueUnderTest, messages: list[Message], ends: list[str], take: int, *, in_one_call: bool
) -> _Seen:
    """Publish, receive, settle and take, and return what the answers and the queue show."""
    consumer, calls = queue.consumer(), [messages] if in_one_call else [[message] for message in messages]
    answers = [each.status.name for call in calls for each in queue.backend.publish(queue.name, call)]
    first: dict[str, Message] = {}
    for message in messages:
        first.setdefault(message.id, message)
    ready = sum(not message.delay_s for message in first.values())
    deliveries = _received(queue, consumer, ready, at_once=in_one_call)
    settlements = [
        _settlement(delivery, end) for delivery, end in zip(deliveries, ends * len(deliveries), strict=False)
    ]
    back = sum(isinstance(each, Retry | Release) and not each.delay_s for each in settlements)
    wanted = min(take, back)
    if in_one_call:
        settled = consumer.settle(settlements, take=wanted)
        outcomes, taken = list(settled.outcomes), list(settled.deliveries)
    else:
        outcomes, taken = [consumer.settle([each]).outcomes[0] for each in settlements], []
    taken += _received(queue, consumer, wanted - len(taken), at_once=False)
    counts = queue.counts()
    taken += _received(queue, consumer, back - wanted, at_once=False)
    for delivery in taken:  # so that what is kept with it is seen
        queue.settle_ok(consumer, Dead(delivery.receipt, "over", f"end of {delivery.id}"))
    return _Seen(
        answers,
        [(each.id, each.attempt) for each in deliveries],
        [outcome.name for outcome in outcomes],
        (counts.ready + wanted, counts.delayed, counts.dead),
        [
            (each.id, each.reason, each.error, each.attempt, [failure.error for failure in each.history])
            for each in queue.backend.dead_letters(queue.name)
        ],
        _results(queue, list(first)),
        [(each.id, each.attempt) for each in taken],
    )


def _received(
    queue: QueueUnderTest, consumer: ConsumerBackend, count: int, *, at_once: bool
) -> list[Delivery]:
    """Receive so many jobs that are there, by as few calls as the broker allows, or each by a call."""
    came: list[Delivery] = []
    while len(came) < count:
        more = queue.receive(consumer, count - len(came) if at_once else 1)
        demand("RCV-1", more, f"{count} jobs were ready, and only {[each.id for each in came]} came")
        came += more
    return came


def _settlement(delivery: Delivery, end: str) -> Settlement:
    receipt, text = delivery.receipt, f"{end} of {delivery.id}"
    match end:
        case "ack":
            return Ack(receipt)
        case "result":
            return Ack(receipt, text.encode())
        case "retry" | "retry later":
            return Retry(receipt, _FAR_S if end == "retry later" else 0.0, text)
        case "dead":
            return Dead(receipt, f"reason of {delivery.id}", text)
        case _:
            return Release(receipt, _FAR_S if end == "release later" else 0.0)


def _results(queue: QueueUnderTest, ids: list[str]) -> dict[str, JobResult | None]:
    if not queue.backend.capabilities.results:
        return {}
    return {id_: queue.backend.result(queue.name, id_) for id_ in ids}


def _in_any_order(seen: _Seen) -> _Seen:
    """What remains comparable where the broker keeps no exact places of what came back."""
    return seen._replace(delivered=sorted(seen.delivered), then=[], letters=sorted(seen.letters))


@check("RES-1", needs="results")
def results_of_one_call_are_kept_for_their_own_times(context: CheckContext) -> None:
    """Of acks in one call, in any order, each result is there for its own time, and no longer."""
    short_s = max(1.0, 2 * context.harness.lease_s)

    @context.waited_property(cases=2, short=st.lists(st.booleans(), min_size=4, max_size=8))
    def _(short: list[bool]) -> None:
        with context.queue() as queue:
            consumer, ids = queue.consumer(), [f"job-{number}" for number in range(len(short))]
            queue.publish(*ids)
            held = _received(queue, consumer, len(ids), at_once=True)
            is_short = dict(zip(ids, short, strict=True))
            acks = [
                Ack(each.receipt, each.id.encode(), short_s if is_short[each.id] else 3600.0) for each in held
            ]
            consumer.settle(acks)
            context.harness.advance(short_s + 0.1)
            for found in (queue.backend.results(queue.name, ids), _results(queue, ids)):
                expected = {
                    id_: JobResult(ResultStatus.DONE, id_.encode()) for id_ in ids if not is_short[id_]
                }
                kept = {id_: result for id_, result in found.items() if result is not None}
                what = f"of acks with times {[ack.result_ttl_s for ack in acks]}, after {short_s:g} s"
                demand("RES-1", kept == expected, f"{what} these are kept: {kept}, expected {expected}")
