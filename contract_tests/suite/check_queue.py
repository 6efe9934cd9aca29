"""A queue on which an adapter is tried, with the calls that checks make most often."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..ports import (
    Ack,
    ConsumerBackend,
    Delivery,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Settlement,
    SettleOutcome,
)
from .harness import Harness
from .violation import demand

ValueT = TypeVar("ValueT")

LONG_LEASE_S = 600.0
"""A lease that never runs out during a check."""
CLOCKS_DIFFER_S = 0.002
"""The broker may count in whole milliseconds, so that two readings of one moment differ by as much."""


def all_accepted(outcomes: Sequence[PublishOutcome]) -> bool:
    """Return whether the broker confirmed each message."""
    return all(outcome.status is PublishStatus.ACCEPTED for outcome in outcomes)


def not_accepted(outcomes: Sequence[PublishOutcome]) -> str:
    """Return which messages weren't accepted, for the message of a failure: the first with its error."""
    others = [outcome for outcome in outcomes if outcome.status is not PublishStatus.ACCEPTED]
    if not others:
        return "all were accepted"
    first = others[0]
    error = "no error" if first.error is None else f"{type(first.error).__name__}: {first.error}"
    return f"{len(others)} weren't accepted, the first being {first.id}: {first.status}, with {error}"


def expect_accepted(outcomes: Sequence[PublishOutcome]) -> None:
    """Demand that the broker confirmed each message (PUB-1)."""
    demand("PUB-1", all_accepted(outcomes), f"of a publish, {not_accepted(outcomes)}")


class _Context(Protocol):
    """What a queue needs of the :class:`CheckContext` that made it."""

    harness: Harness

    @property
    def lateness_s(self) -> float: ...

    def receive(
        self, consumer: ConsumerBackend, max_jobs: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery]: ...

    def start(self, call: Callable[[], ValueT]) -> "Future[ValueT]": ...

    def finish(self, future: "Future[ValueT]", *, within_s: float | None = None) -> ValueT: ...

    def eventually(self, check: Callable[[], None]) -> None: ...

    def queue_on(self, backend: OrchestratorBackend, *, name: str) -> "QueueUnderTest": ...


@dataclass(slots=True)
class QueueUnderTest:
    """One queue of one backend, with the calls that checks make most often."""

    context: _Context
    backend: OrchestratorBackend
    name: str

    def message(self, id_: str, *, priority: int = 0, delay_s: float = 0.0) -> Message:
        """Make a message whose body contains its id."""
        return Message(id_, b'{"body of":"%b"}' % id_.encode(), priority, delay_s)

    def publish(self, *ids: str, priority: int = 0, delay_s: float = 0.0) -> list[PublishOutcome]:
        """Publish a message for each id, as one batch, and demand that all are accepted."""
        messages = [self.message(id_, priority=priority, delay_s=delay_s) for id_ in ids]
        outcomes = self.backend.publish(self.name, messages)
        assert len(outcomes) == len(ids), f"{len(ids)} messages got {len(outcomes)} answers"
        assert all_accepted(outcomes), f"a publish of {len(ids)} messages: {not_accepted(outcomes)}"
        return outcomes

    def consumer(self, *, lease_s: float = LONG_LEASE_S) -> ConsumerBackend:
        """Open a consumer whose lease lasts longer than any check."""
        return self.backend.open_consumer(self.name, lease_s=lease_s)

    def receive(
        self, consumer: ConsumerBackend, max_jobs: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery]:
        """Receive what should be there."""
        return self.context.receive(consumer, max_jobs, timeout_s=timeout_s)

    def receive_one(self, consumer: ConsumerBackend) -> Delivery:
        """Receive one job that should be there."""
        deliveries = self.receive(consumer)
        assert len(deliveries) == 1, f"one job should come, and these came: {_ids(deliveries)}"
        return deliveries[0]

    def receive_nothing(self, consumer: ConsumerBackend) -> None:
        """Demand that no job is ready."""
        deliveries = consumer.receive(10, 0.0)
        assert not deliveries, f"nothing should be ready, and these came: {_ids(deliveries)}"

    def receive_when_due(self, consumer: ConsumerBackend, due: float, clause: str) -> Delivery:
        """Receive one job that must come, and not before ``due``, by the harness's clock.

        It is asked for at once, and then when it is due: a slow machine may be late for the first time.
        """
        harness, deliveries = self.context.harness, consumer.receive(1, 0.0)
        if not deliveries:
            harness.advance(max(0.0, due - harness.now()) + self.backend.capabilities.delay_resolution_s)
            deliveries = self.receive(consumer)
        early_s = due - harness.now()
        assert len(deliveries) == 1, f"one job should come, and these came: {_ids(deliveries)}"
        demand(clause, early_s <= CLOCKS_DIFFER_S, f"{deliveries[0].id} came {early_s:.3f} s early")
        return deliveries[0]

    def drain(self, consumer: ConsumerBackend, count: int) -> list[str]:
        """Receive and ack ``count`` jobs one by one, and return their ids in the order of delivery."""
        ids = []
        for _ in range(count):
            delivery = self.receive_one(consumer)
            ids.append(delivery.id)
            self.settle_ok(consumer, Ack(delivery.receipt))
        return ids

    def settle(self, consumer: ConsumerBackend, settlement: Settlement) -> SettleOutcome:
        """Settle one delivery."""
        return consumer.settle([settlement]).outcomes[0]

    def settle_ok(self, consumer: ConsumerBackend, settlement: Settlement) -> None:
        """Settle one delivery that is held, and demand that this counts."""
        outcome = self.settle(consumer, settlement)
        what = type(settlement).__name__
        assert outcome is SettleOutcome.OK, f"{what} of what is held was answered {outcome}, not OK"

    def counts(self) -> QueueCounts:
        """Count the queue's jobs."""
        return self.backend.counts(self.name)

    def expect_counts(self, *, ready: int = 0, delayed: int = 0, in_flight: int = 0, dead: int = 0) -> None:
        """Demand these counts; those in flight only where the backend can tell."""
        known = self.backend.capabilities.counts_in_flight
        expected = QueueCounts(ready, delayed, in_flight if known else None, dead)

        def agree() -> None:
            counts = self.counts()
            assert counts == expected, f"{counts}, not {expected}"

        self.context.eventually(agree)


def _ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]
