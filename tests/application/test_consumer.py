"""A consumer's life: made, connected once, closed, and connected again."""

from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, LocalClient, LocalConsumerBackend, Orchestrator, RetryPolicy
from mindtrace.jobs.domain.errors import AlreadyConnected, Closed, InvalidName, NotConnected, UsageError
from mindtrace.jobs.ports.base_classes import MindtraceABC

MakeConsumer = Callable[..., Consumer]


class Idle(Consumer):
    def run(self, job: Job[Any]) -> None:
        pass


def test_a_name_that_could_be_no_queues_is_refused_at_once() -> None:
    """Not only when it connects (PUB-6)."""
    with pytest.raises(InvalidName, match="job type name 'my jobs'"):
        Idle("my jobs")


@pytest.mark.parametrize(
    "use",
    [
        lambda consumer: consumer.consume(),
        lambda consumer: consumer.consume(0),
        lambda consumer: consumer.consume_until_empty(),
        lambda consumer: consumer.stop(),
        lambda consumer: consumer.stats,
        lambda consumer: consumer.consumer_backend,
    ],
    ids=["consume", "consume 0", "consume_until_empty", "stop", "stats", "consumer_backend"],
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_consumer_that_is_not_connected_can_do_nothing(
    orchestrator: Orchestrator, use: Callable[[Consumer], object], closed: bool
) -> None:
    """Neither before ``connect`` nor after ``close``; only ``lease_lost`` and ``close`` are always fine."""
    consumer = Idle("points")
    if closed:
        consumer.connect(orchestrator)
        consumer.close()

    with pytest.raises(NotConnected, match=r"consumer of 'points': call connect\(orchestrator\) first"):
        use(consumer)
    assert consumer.lease_lost is False
    consumer.close()


def test_connecting_again_needs_closing_first(orchestrator: Orchestrator, schema: Any) -> None:
    """Even to another orchestrator; after ``close`` it is free again, and counts anew."""
    orchestrator.publish_batch("points", [{}, {}])
    with Orchestrator("memory://") as other, Idle("points") as consumer:
        consumer.connect(orchestrator)
        with pytest.raises(AlreadyConnected):
            consumer.connect(other)
        assert consumer.consume(1) == 1

        consumer.close()
        consumer.connect(other)
        assert consumer.stats.attempted == 0
        assert consumer.consume_until_empty() == 0
    assert orchestrator.count_queue_messages("points") == 1


def test_a_refused_connect_leaves_it_free(
    orchestrator: Orchestrator, client: LocalClient, schema: Any
) -> None:
    """After a setting out of range, or a queue that is gone, ``connect`` can be called again."""
    with Idle("points") as consumer:
        with pytest.raises(ValueError, match="prefetch"):
            consumer.connect(orchestrator, prefetch=0)
        client.delete("points")
        with pytest.raises(LookupError, match="'points': not declared"):
            consumer.connect(orchestrator)

        orchestrator.register(schema)
        consumer.connect(orchestrator)
        assert isinstance(consumer.consumer_backend, LocalConsumerBackend)


def test_a_context_manager_closes(orchestrator: Orchestrator, client: LocalClient) -> None:
    """Consumers, orchestrators and backends alike, and an error leaves them as it was raised (CON-2)."""
    consumer = Idle("points")
    consumer.connect(orchestrator)
    backend = consumer.consumer_backend

    with pytest.raises(LookupError, match="passed on"), consumer:
        raise LookupError("passed on")
    with pytest.raises(Closed, match="consumer of queue 'points' is closed"):
        backend.receive(1, 0)
    with pytest.raises(LookupError), client:
        raise LookupError
    with pytest.raises(Closed):
        orchestrator.publish("points", {})


def test_closing_again_does_nothing(orchestrator: Orchestrator, client: LocalClient) -> None:
    """In whatever order (CON-2)."""
    consumer = Idle("points")
    consumer.connect(orchestrator)

    for closable in (consumer, client, orchestrator, consumer, client):
        closable.close()


def test_a_subclass_may_have_an_init_and_a_state_of_its_own(orchestrator: Orchestrator) -> None:
    """As long as it calls its base's; ``name`` and ``logger`` are there to be used."""

    class Summing(Consumer):
        def __init__(self, start: float) -> None:
            super().__init__("points")
            self.total = start

        def run(self, job: Job[Any]) -> None:
            self.logger.debug("%s adds %s", self.name, job.payload.x)
            self.total += job.payload.x

    orchestrator.publish_batch("points", [{"x": 1}, {"x": 2}])
    with Summing(10) as consumer:
        consumer.connect(orchestrator)
        consumer.consume(2)

    assert isinstance(consumer, MindtraceABC)
    assert consumer.total == 13


def test_a_handler_may_be_inherited_wrapped_or_static(orchestrator: Orchestrator) -> None:
    """Whatever can be called with the job."""
    seen: list[str] = []

    class Static(Consumer):
        @staticmethod
        def run(job: Job[Any]) -> None:
            seen.append(job.id)

    class Inherited(Static):
        pass

    job_id = orchestrator.publish("points", {})
    with Inherited("points") as consumer:
        consumer.connect(orchestrator)
        consumer.consume(1)

    assert seen == [job_id]


def test_a_consumers_policy_stands_in_for_the_schemas(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """The class attribute ``retry`` wins over the schema's three attempts (RTY-1)."""
    orchestrator.publish("points", {})
    consumer = make_consumer(lambda job: 1 / 0, policy=RetryPolicy(max_attempts=5, base_delay_s=0))

    assert consumer.consume_until_empty() == 5


def test_one_consumer_consumes_once_at_a_time(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any, until_blocked: Any
) -> None:
    """A second thread is refused, and the first goes on undisturbed."""
    consumer = make_consumer()
    consuming = background(consumer.consume)
    until_blocked()

    with pytest.raises(UsageError, match="is consuming already: give each thread or task a consumer"):
        consumer.consume(0)

    consumer.stop()
    assert consuming.result() == 0
    assert consumer.consume(0) == 0


def test_a_handler_that_consumes_costs_its_own_job_only(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """The call inside is refused, and the loop around it goes on."""
    orchestrator.publish("points", {})
    consumer = make_consumer(lambda job: consumer.consume(1), policy=RetryPolicy(max_attempts=1))

    assert consumer.consume_until_empty() == 1
    assert "is consuming already" in orchestrator.dead_letters("points")[0].error
