"""PUB-7: publishing in a transaction of the caller's."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

from ...domain import QueueKind
from ...domain.errors import InvalidInput, QueueNotFound, UnsupportedCapability
from ...ports import Ack, ConsumerBackend, Message, OrchestratorBackend, PublishStatus
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check, refusal
from ..violation import demand

ACCEPTED, DUPLICATE = PublishStatus.ACCEPTED, PublishStatus.DUPLICATE


@dataclass(slots=True)
class _Transaction:
    """A transaction of a caller's, in which messages are published to a queue."""

    queue: QueueUnderTest
    connection: Any
    other: OrchestratorBackend
    """Another client, which sees what is committed."""

    def publish(self, *ids: str) -> list[PublishStatus]:
        """Publish a message for each id, and return the statuses."""
        messages = [self.queue.message(id_) for id_ in ids]
        outcomes = self.queue.backend.publish_in(self.connection, self.queue.name, messages)
        answered = [outcome.id for outcome in outcomes]
        demand("PUB-7", answered == list(ids), f"the outcomes of {ids} are of {answered}")
        return [outcome.status for outcome in outcomes]

    def expect_waiting(self, count: int, when: str) -> None:
        """Demand that as many jobs are there for others."""
        waiting = self.other.counts(self.queue.name).waiting
        demand("PUB-7", waiting == count, f"{when}, {waiting} jobs wait for others, not {count}")


@contextmanager
def _transaction(context: CheckContext) -> Iterator[_Transaction]:
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        with closing(context.harness.open_connection(mine)) as connection:
            yield _Transaction(queue, connection, other)


@check("PUB-7", needs="transactional_publish")
def what_is_committed_is_there_and_not_before(context: CheckContext) -> None:
    """A job that is published in a transaction is nobody's until the commit; then it is there, whole."""
    with _transaction(context) as transaction:
        statuses = transaction.publish("a", "b") + transaction.publish("c")
        demand("PUB-7", statuses == [ACCEPTED] * 3, f"three new ids were {statuses}")
        transaction.expect_waiting(0, "before the commit")
        consumer = transaction.other.open_consumer("jobs")
        demand("PUB-7", not consumer.receive(10, 0.0), "a job of an open transaction was delivered")
        transaction.connection.commit()
        transaction.expect_waiting(3, "after the commit")
        came = [each for _ in range(3) for each in context.receive(consumer)]
        ids = [each.id for each in came]
        demand("PUB-7", ids == ["a", "b", "c"], f"a, b and c were published, and {ids} came")
        bodies = [transaction.queue.message(id_).body for id_ in ids]
        demand("PUB-7", [each.body for each in came] == bodies, "a job came with another body")


@check("PUB-7", needs="transactional_publish")
def what_is_rolled_back_never_was(context: CheckContext) -> None:
    """A job of a transaction that is rolled back, or left open, is nowhere, and its id is free."""
    ends: list[Callable[[Any], object]] = [lambda each: each.rollback(), lambda each: each.close()]
    for end in ends:
        with _transaction(context) as transaction:
            transaction.publish("a", "b")
            end(transaction.connection)
            transaction.expect_waiting(0, "after a rollback")
            demand("PUB-7", not transaction.other.open_consumer("jobs").receive(10, 0.0), "one was delivered")
            again = transaction.queue.backend.publish("jobs", [transaction.queue.message("a")])[0].status
            demand("PUB-7", again is ACCEPTED, f"an id that was rolled back was {again}")


@check("PUB-7", needs="transactional_publish")
def a_live_id_is_published_once_in_a_transaction(context: CheckContext) -> None:
    """With dedupe, an id counts as live within its transaction, and that of a live job counts there."""
    if not context.capabilities.dedupe:
        return
    with _transaction(context) as transaction:
        transaction.queue.publish("live")
        statuses = transaction.publish("live", "a", "a", "b")
        expected = [DUPLICATE, ACCEPTED, DUPLICATE, ACCEPTED]
        demand("PUB-7", statuses == expected, f"of one batch, live, a, a and b were {statuses}")
        statuses = transaction.publish("b", "c")
        demand("PUB-7", statuses == [DUPLICATE, ACCEPTED], f"by a second call, b and c were {statuses}")
        transaction.connection.commit()
        transaction.expect_waiting(4, "after the commit")
        again = transaction.other.publish("jobs", [transaction.queue.message("a")])[0].status
        demand("PUB-7", again is DUPLICATE, f"an id that was committed is {again} by another client")


@check("PUB-7", needs="transactional_publish")
def an_open_transaction_holds_nobody_up(context: CheckContext) -> None:
    """While a transaction is open that has published, others publish, receive, settle and count."""
    with _transaction(context) as transaction:
        queue = context.queue_on(transaction.other)
        consumer = queue.consumer()
        transaction.publish("mine")

        def work() -> None:
            queue.publish("theirs")
            delivery = queue.receive_one(consumer)
            demand("PUB-7", delivery.id == "theirs", f"{delivery.id} came")
            queue.settle_ok(consumer, Ack(delivery.receipt))
            transaction.expect_waiting(0, "beside an open transaction")

        failure = context.failure_of(work)
        demand("PUB-7", failure is None, f"beside an open transaction, others met {failure!r}")
        transaction.connection.commit()
        delivery = queue.receive_one(consumer)
        demand("PUB-7", delivery.id == "mine", f"after the commit {delivery.id} came")


@check("PUB-7", "ORD-3", needs="transactional_publish", takes_long=True)
def what_is_committed_late_comes(context: CheckContext) -> None:
    """Two transactions stay open while others' jobs come and go, and commit in either order: none is lost."""
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    kinds = [kind for kind in QueueKind if able.get(kind, True)]

    @context.waited_property(
        kind=st.sampled_from(kinds), others=st.integers(1, 40), first_first=st.booleans()
    )
    def _(kind: QueueKind, others: int, first_first: bool) -> None:
        with context.backends(2) as (mine, other), ExitStack() as stack:
            queue = context.queue_on(other, kind)
            connections = [
                stack.enter_context(closing(context.harness.open_connection(mine))) for _ in range(2)
            ]
            consumer = queue.consumer()
            waiting: list[set[str]] = []
            for number, connection in enumerate(connections):
                _work_through(queue, consumer, kind, f"before-{number}", others)
                messages = _of_all_sorts(context, kind, number)
                mine.publish_in(connection, queue.name, messages)
                waiting.append({message.id for message in messages if message.delay_s < 3600.0})
            _work_through(queue, consumer, kind, "after", others)
            context.harness.advance(_soon_s(context) + 2 * context.capabilities.delay_resolution_s)
            for number in (0, 1) if first_first else (1, 0):
                queue.receive_nothing(consumer)
                connections[number].commit()
                came: list[str] = []
                while len(came) < len(waiting[number]) and (taken := queue.receive(consumer, 2)):
                    came += [delivery.id for delivery in taken]
                    consumer.settle([Ack(delivery.receipt) for delivery in taken])
                what = f"on a {kind} queue, after {others} others, {sorted(waiting[number])} were committed"
                demand("PUB-7", sorted(came) == sorted(waiting[number]), f"{what}: {came} came")
                at_once = [id_ for id_ in came if id_.endswith("-0")]
                is_in_order = kind is not QueueKind.PRIORITY or at_once == sorted(at_once, reverse=True)
                demand("ORD-3", is_in_order, f"{what}: {at_once} came in this order of priorities")
                _work_through(queue, consumer, kind, f"between-{number}", others)
            queue.expect_counts(delayed=2)


def _soon_s(context: CheckContext) -> float:
    return context.capabilities.delay_resolution_s + 0.3


def _of_all_sorts(context: CheckContext, kind: QueueKind, number: int) -> list[Message]:
    """Messages of the lowest and the highest priority, if the queue has any: at once, due soon and late."""
    highest = 9 if kind is QueueKind.PRIORITY else 0
    late = Message(f"tx-{number}-late", b"{}", 0, 3600.0)
    others = [
        Message(f"tx-{number}-{priority}-{delay_s:g}", b"{}", priority, delay_s)
        for priority in sorted({0, highest})
        for delay_s in (0.0, _soon_s(context))
    ]
    return [late, *others]


def _work_through(
    queue: QueueUnderTest, consumer: ConsumerBackend, kind: QueueKind, name: str, count: int
) -> None:
    """Have jobs of a middle priority come and go."""
    queue.publish(*(f"{name}-{n}" for n in range(count)), priority=5 if kind is QueueKind.PRIORITY else 0)
    queue.drain(consumer, count)


@check("PUB-7", needs="transactional_publish")
def ids_in_opposite_orders_end_no_transaction(context: CheckContext) -> None:
    """Transactions and a client publish the same ids at once, each in an order of its own, and none fails."""
    rounds, count = 4, 200
    with context.backends(2) as (mine, other), ExitStack() as stack:
        queue = context.queue_on(mine)
        connections = [stack.enter_context(closing(context.harness.open_connection(mine))) for _ in range(2)]
        for number in range(rounds):
            messages = [queue.message(f"job-{number}-{n:03}") for n in range(count)]
            begin = threading.Barrier(3)

            def join(connection: Any, messages: list[Message], begin: threading.Barrier = begin) -> None:
                begin.wait()
                mine.publish_in(connection, queue.name, messages)
                connection.commit()

            def publish(messages: list[Message], begin: threading.Barrier = begin) -> None:
                begin.wait()
                other.publish(queue.name, messages)

            calls = [
                context.start(partial(join, connections[0], messages)),
                context.start(partial(join, connections[1], messages[::-1])),
                context.start(partial(publish, messages[::2] + messages[1::2])),
            ]
            failures = [failure for call in calls if (failure := context.failure(call)) is not None]
            demand(
                "PUB-7", not failures, f"of three that publish {count} ids at once, one met {failures[:1]}"
            )
        if context.capabilities.dedupe:
            queue.expect_counts(ready=rounds * count)


@check("PUB-7", needs="transactional_publish")
def an_old_transaction_knows_what_others_did(context: CheckContext) -> None:
    """An id that went live since a transaction began is a duplicate there; one that ended since is free."""
    if not context.capabilities.dedupe:
        return
    with _transaction(context) as transaction:
        other = context.queue_on(transaction.other)
        other.publish("done")
        transaction.publish("begin")
        consumer = other.consumer()
        other.settle_ok(consumer, Ack(other.receive_one(consumer).receipt))
        other.publish("live")
        statuses = transaction.publish("live", "done")
        found = f"live went live and done ended since it began: they were {statuses}"
        demand("PUB-7", statuses == [DUPLICATE, ACCEPTED], found)
        transaction.connection.commit()
        transaction.expect_waiting(3, "after the commit")
        if context.capabilities.results:
            result = transaction.other.result("jobs", "done")
            demand("PUB-7", result is None, f"an id that was used again has the result {result}")
        came = sorted(other.drain(consumer, 3))
        demand("PUB-7", came == ["begin", "done", "live"], f"{came} came, and begin, done and live waited")


@check("PUB-7", "PUB-3", needs="transactional_publish")
def a_refusal_leaves_the_transaction_open(context: CheckContext) -> None:
    """An undeclared queue is refused, and the transaction goes on; so is what is no connection."""
    with _transaction(context) as transaction:
        transaction.publish("a")
        backend, message = transaction.queue.backend, transaction.queue.message("b")
        refused: list[tuple[type[Exception], Callable[[], object]]] = [
            (QueueNotFound, lambda: backend.publish_in(transaction.connection, "nowhere", [message])),
            (InvalidInput, lambda: backend.publish_in(object(), "jobs", [message])),
        ]
        for expected, call in refused:
            try:
                call()
            except expected:
                continue
            raise AssertionError(f"it was not refused with {expected.__name__}")
        transaction.publish("c")
        transaction.connection.commit()
        transaction.expect_waiting(2, "after two refusals and the commit")


@check("PUB-7", needs="transactional_publish")
def the_application_joins_a_transaction(context: CheckContext) -> None:
    """``publish`` and ``publish_batch`` with ``connection=`` publish in its transaction."""
    with app_on(context) as app:
        for end, expected in (("rollback", 0), ("commit", 3)):
            with closing(context.harness.open_connection(app.backend)) as connection:
                app.publish(Numbers(x=1), connection=connection)
                jobs: list[Any] = [Numbers(x=2), {"x": "two"}, Numbers(x=3)]
                handles = app.orchestrator.publish_batch(QUEUE, jobs, connection=connection)
                statuses = [handle.outcome.status for handle in handles]
                demand(
                    "PUB-7",
                    statuses == [ACCEPTED, PublishStatus.REJECTED, ACCEPTED],
                    f"of three jobs, of which the second is invalid, the outcomes are {statuses}",
                )
                getattr(connection, end)()
            waiting = app.orchestrator.count_queue_messages(QUEUE)
            demand("PUB-7", waiting == expected, f"after the {end}, {waiting} jobs wait, not {expected}")


@refusal("transactional_publish")
def a_transaction_is_refused(context: CheckContext) -> None:
    """Where there are no such transactions, ``connection=`` raises, and nothing is published."""
    connection: Any = object()
    with app_on(context) as app:
        for call in (
            lambda: app.publish(Numbers(), connection=connection),
            lambda: app.orchestrator.publish_batch(QUEUE, [Numbers()], connection=connection),
        ):
            try:
                call()
            except UnsupportedCapability:
                continue
            raise AssertionError("publishing in a transaction was not refused")
        waiting = app.orchestrator.count_queue_messages(QUEUE)
        assert waiting == 0, f"of what was refused, {waiting} jobs wait"
