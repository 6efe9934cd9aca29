"""PUB-7: publishing in a transaction of the caller's."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from ...domain.errors import InvalidInput, QueueNotFound, UnsupportedCapability
from ...ports import Ack, OrchestratorBackend, PublishStatus
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
                outcomes = app.orchestrator.publish_batch(QUEUE, jobs, connection=connection)
                statuses = [outcome.status for outcome in outcomes]
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
