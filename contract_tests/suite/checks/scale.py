"""Every operation with more jobs than an adapter handles in one request."""

from collections.abc import Sequence

from ...domain import QueueKind
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    JobResult,
    Message,
    PublishStatus,
    ResultStatus,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest, all_accepted, expect_accepted, not_accepted
from ..held_lease import HeldLease
from ..registry import check
from ..violation import demand

_MANY = 1200
"""More jobs than an adapter handles in one request, and than a limit that nobody chose allows."""
_PAGE = 500
_IDS = [f"job-{number:04}" for number in range(_MANY)]


def _publish(queue: QueueUnderTest, ids: Sequence[str] = _IDS, *, delay_s: float = 0.0) -> None:
    outcomes = queue.backend.publish(queue.name, [queue.message(id_, delay_s=delay_s) for id_ in ids])
    demand("PUB-4", len(outcomes) == len(ids), f"{len(ids)} messages got {len(outcomes)} answers")
    demand("PUB-4", all_accepted(outcomes), f"of a publish of {len(ids)} messages, {not_accepted(outcomes)}")


def _receive(queue: QueueUnderTest, consumer: ConsumerBackend, count: int, clause: str) -> list[Delivery]:
    """Receive so many jobs, all of them different."""
    held: dict[str, Delivery] = {}
    while len(held) < count:
        came = queue.receive(consumer, _PAGE)
        demand(clause, came, f"only {len(held)} of {count} came")
        for delivery in came:
            demand("RCV-3", delivery.id not in held, f"{delivery.id} came twice")
            held[delivery.id] = delivery
    return list(held.values())


def _settle_all(
    consumer: ConsumerBackend,
    settlements: Sequence[Ack | Dead],
    expected: SettleOutcome = SettleOutcome.OK,
    *,
    take: int = 0,
) -> list[Delivery]:
    outcomes, deliveries = consumer.settle(settlements, take=take)
    demand("SET-1", len(outcomes) == len(settlements), f"{len(settlements)} got {len(outcomes)} answers")
    wrong = [place for place, outcome in enumerate(outcomes) if outcome is not expected]
    if wrong:
        found = f"of {len(outcomes)} answers {len(wrong)} aren't {expected}: the first is {wrong[0]}"
        demand("SET-1", False, f"{found}, {outcomes[wrong[0]]}")
    return deliveries


@check("SET-1", "RCV-1", "ORD-1")
def one_consumer_holds_and_settles_many(context: CheckContext) -> None:
    """1,200 jobs are in flight with one consumer, are settled in one call, and stay known as settled."""
    with context.queue() as queue:
        _publish(queue)
        consumer = queue.consumer()
        held = _receive(queue, consumer, _MANY, "RCV-1")
        demand("ORD-1", [each.id for each in held] == _IDS, "they didn't come in publish order")
        queue.expect_counts(in_flight=_MANY)
        acks = [Ack(delivery.receipt) for delivery in held]
        queue.publish(*[f"more-{number}" for number in range(10)])
        more = _settle_all(consumer, acks, take=3)
        demand("RCV-1", len(more) <= 3, f"{len(more)} came where 3 were asked for with {_MANY} acks")
        more += [queue.receive_one(consumer) for _ in range(10 - len(more))]
        _settle_all(consumer, [Ack(delivery.receipt) for delivery in more])
        queue.expect_counts()
        _settle_all(consumer, acks, SettleOutcome.ALREADY)
        queue.receive_nothing(queue.consumer())


@check("LSE-3")
def many_leases_are_extended(context: CheckContext) -> None:
    """One call extends 1,200 leases, and each of those jobs stays with its consumer."""
    context.keep_lease(lambda lease: _extend_many(context, lease), shortest_s=2.0)


def _extend_many(context: CheckContext, lease: HeldLease) -> None:
    harness = context.harness
    with context.queue() as queue:
        _publish(queue)
        holder, other = queue.consumer(lease_s=lease.seconds), queue.consumer()
        lease.begin()  # or what comes back while the rest is received would be the adapter's fault
        held = lease.renewed_by(lambda: _receive(queue, holder, _MANY, "RCV-1"))
        for _ in range(2):
            harness.advance(0.6 * lease.seconds)
            outcomes = lease.renewed_by(lambda: holder.extend([delivery.receipt for delivery in held]))
            kept = outcomes.count(SettleOutcome.OK)
            demand("LSE-3", kept == len(outcomes) == _MANY, f"{kept} of {_MANY} were extended")
        came = other.receive(10, 0.0)
        demand("LSE-3", not came, f"{len(came)} came back though all were extended")
        _settle_all(holder, [Ack(delivery.receipt) for delivery in held])


@check("LSE-1", "LSE-2")
def many_leases_end_together(context: CheckContext) -> None:
    """A consumer dies with 1,200 jobs: each comes back once, and says that it was in a crash."""
    harness = context.harness
    lease_s = max(2.0, harness.lease_s)
    with context.queue() as queue:
        _publish(queue)
        doomed = queue.consumer(lease_s=lease_s)
        lost: set[str] = set()
        while len(lost) < _MANY and (came := doomed.receive(_MANY, 0.0) or queue.receive(doomed, _MANY)):
            lost.update(delivery.id for delivery in came)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(lease_s))
        queue.expect_counts(ready=_MANY)
        back = _receive(queue, queue.consumer(), _MANY, "LSE-1")
        silent = [delivery.id for delivery in back if delivery.id in lost and delivery.crashes < 1]
        demand("RTY-3", not silent, f"{len(silent)} of {len(lost)} tell of no crash")


@check("DLY-2", "DLY-1", "CNT-1")
def many_jobs_are_due_together(context: CheckContext) -> None:
    """1,200 jobs that are due at one moment all come, and none of them before."""
    harness = context.harness
    soon_s = context.capabilities.delay_resolution_s + 1.0
    with context.queue() as queue:
        sent = harness.now()
        _publish(queue, delay_s=soon_s)
        consumer = queue.consumer()
        early = consumer.receive(10, 0.0)
        came_s = harness.now() - sent
        demand(
            "DLY-1", not early or came_s >= soon_s, f"{len(early)} came after {came_s:.3f} s of {soon_s:g}"
        )
        harness.advance(soon_s + context.capabilities.delay_resolution_s)
        queue.expect_counts(ready=_MANY - len(early), in_flight=len(early))
        _receive(queue, consumer, _MANY - len(early), "DLY-2")


@check("ADM-2")
def many_jobs_are_purged(context: CheckContext) -> None:
    """Purge drops 1,200 ready and 1,200 delayed jobs in one call, says so, and frees their ids."""
    later = [f"later-{number:04}" for number in range(_MANY)]
    with context.queue() as queue:
        _publish(queue)
        _publish(queue, later, delay_s=3600.0)
        queue.expect_counts(ready=_MANY, delayed=_MANY)
        purged = queue.backend.purge(queue.name)
        demand("ADM-2", purged == 2 * _MANY, f"it says {purged}, and {2 * _MANY} waited")
        queue.expect_counts()
        taken = [
            outcome.id
            for outcome in queue.backend.publish(queue.name, [queue.message(id_) for id_ in _IDS + later])
            if outcome.status is not PublishStatus.ACCEPTED
        ]
        demand("PUB-5", not taken, f"{len(taken)} ids of purged jobs can't be published again")
        queue.expect_counts(ready=2 * _MANY)


@check("SET-3", "DLQ-1", "DLQ-2", "DLQ-3")
def many_jobs_die(context: CheckContext) -> None:
    """1,200 dead letters are kept and listed, by pages too; named or all, each is redriven or discarded."""
    with context.queue() as queue:
        _publish(queue)
        consumer = queue.consumer()
        _bury(queue, consumer)
        _expect_listed(queue)
        redriven = queue.backend.redrive(queue.name, _IDS)
        demand("DLQ-2", redriven == _MANY, f"{redriven} of {_MANY} that were named were redriven")
        _bury(queue, consumer)
        redriven = queue.backend.redrive(queue.name)
        demand("DLQ-2", redriven == _MANY, f"{redriven} of all {_MANY} were redriven")
        _bury(queue, consumer)
        discarded = queue.backend.discard(queue.name, _IDS[:1])
        discarded += queue.backend.discard(queue.name)
        demand("DLQ-3", discarded == _MANY, f"{discarded} of {_MANY} were discarded")
        queue.expect_counts()


def _bury(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    """Let all jobs die, one after the other in the order in which they come."""
    held = _receive(queue, consumer, _MANY, "DLQ-2")
    _settle_all(consumer, [Dead(delivery.receipt, "rejected", delivery.id) for delivery in held])
    _expect_dead(queue)


def _expect_dead(queue: QueueUnderTest) -> None:
    def all_are() -> None:
        dead = queue.counts().dead
        demand("SET-3", dead == _MANY, f"{dead} of {_MANY} are dead letters")

    queue.context.eventually(all_are)


def _expect_listed(queue: QueueUnderTest) -> None:
    listed = [letter.id for letter in queue.backend.dead_letters(queue.name)]
    demand("DLQ-1", len(listed) == _MANY, f"{len(listed)} of {_MANY} are listed")
    demand("DLQ-1", sorted(listed) == _IDS, "another's letter is listed, or one twice")
    paged: list[str] = []
    for offset in range(0, _MANY + _PAGE, _PAGE):
        page = queue.backend.dead_letters(queue.name, limit=_PAGE, offset=offset)
        paged += [letter.id for letter in page]
    demand("DLQ-1", paged == listed, f"pages of {_PAGE} list {len(paged)}, or in another order")


@check("SET-4")
def closing_releases_many(context: CheckContext) -> None:
    """A consumer that closes with 1,200 jobs in flight gives back each of them at once, uncharged."""
    with context.queue() as queue:
        _publish(queue)
        consumer = queue.consumer()
        _receive(queue, consumer, _MANY, "RCV-1")
        consumer.close()
        queue.expect_counts(ready=_MANY)
        back = _receive(queue, queue.consumer(), _MANY, "SET-4")
        charged = [each for each in back if (each.attempt, each.crashes) != (1, 0)]
        demand("SET-4", not charged, f"{len(charged)} were charged, as {charged[:1]}")


@check("RES-1", needs="results")
def many_results_are_kept(context: CheckContext) -> None:
    """The results of 1,200 jobs, and that 1,200 more are done without one, can all be read."""
    silent = [f"silent-{number:04}" for number in range(_MANY)]
    with context.queue() as queue:
        _publish(queue, _IDS + silent)
        consumer = queue.consumer()
        held = _receive(queue, consumer, 2 * _MANY, "RCV-1")
        _settle_all(
            consumer,
            [Ack(each.receipt, each.id.encode() if each.id in _KNOWN else None) for each in held],
        )
        found = queue.backend.results(queue.name, _IDS + silent)
        demand("RES-1", len(found) == 2 * _MANY, f"{len(found)} of {2 * _MANY} results are found at once")
        expected = {id_: JobResult(ResultStatus.DONE, id_.encode()) for id_ in _IDS}
        wrong = [id_ for id_ in _IDS if found[id_] != expected[id_]]
        demand("RES-1", not wrong, f"{len(wrong)} results are others', as {wrong[:1]}")
        for id_ in (_IDS[0], _IDS[-1]):
            one = queue.backend.result(queue.name, id_)
            demand("RES-1", one == expected[id_], f"the result of {id_} is {one}")


_KNOWN = frozenset(_IDS)


@check("ORD-3", needs="priority")
def priorities_hold_after_many(context: CheckContext) -> None:
    """Of 1,200 jobs of all ten priorities each comes in its place."""
    _expect_order(context, QueueKind.PRIORITY, "ORD-3")


@check("ORD-2", needs="stack")
def a_stack_holds_many(context: CheckContext) -> None:
    """Of 1,200 jobs on a stack each comes in its place."""
    _expect_order(context, QueueKind.STACK, "ORD-2")


def _expect_order(context: CheckContext, kind: QueueKind, clause: str) -> None:
    with context.queue(kind) as queue:
        levels = [number % 10 if kind is QueueKind.PRIORITY else 0 for number in range(_MANY)]
        messages = [Message(id_, b"{}", level) for id_, level in zip(_IDS, levels, strict=True)]
        for at in range(0, _MANY, 400):
            expect_accepted(queue.backend.publish(queue.name, messages[at : at + 400]))
        came = [each.id for each in _receive(queue, queue.consumer(), _MANY, clause)]
        places = range(_MANY) if kind is QueueKind.PRIORITY else reversed(range(_MANY))
        expected = [_IDS[place] for place in sorted(places, key=lambda place: -levels[place])]
        if came != expected:
            at = next(place for place in range(_MANY) if came[place] != expected[place])
            demand(clause, False, f"at place {at}, {came[at]} came, expected {expected[at]}")
