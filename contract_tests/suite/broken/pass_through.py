"""An adapter that passes every call on to another. A fault derives from it, and overrides one method."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ...domain import Queue
from ...domain.bounds import MAX_LISTED
from ...ports import (
    CancelOutcome,
    Capabilities,
    ConsumerBackend,
    CoordinationStore,
    DeadLetter,
    Delivery,
    Finding,
    Guard,
    JobResult,
    JobStatus,
    Message,
    OrchestratorBackend,
    Place,
    PlaceCount,
    PlaceWatch,
    PublishOutcome,
    QueueCounts,
    Record,
    Reservation,
    Settled,
    Settlement,
    SettleOutcome,
)


class PassThrough:
    """Has no fault. All clients of a namespace share one instance."""

    secrets: ClassVar[tuple[str, ...]] = ()
    """What would have to stay secret, for faults that let it out."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        """Seconds on the broker's clock."""
        self.stored = 0
        """How much it leaves in the broker."""
        self.polls = True
        """Whether those who wait may look by themselves now and then."""

    # -- messages, deliveries and settlements ------------------------------------------------------

    def outgoing(self, client: "BrokenBackend", message: Message) -> Message:
        """Every message on its way into the broker."""
        return message

    def incoming(self, consumer: "BrokenConsumer", deliveries: list[Delivery]) -> list[Delivery]:
        """Everything that the broker delivers."""
        return deliveries

    def settling(self, consumer: "BrokenConsumer", settlement: Settlement) -> Settlement:
        """Every settlement on its way into the broker."""
        return settlement

    # -- the calls of a client --------------------------------------------------------------------

    def namespace(self, name: str) -> str:
        """Which namespace of the adapter a client of ``name`` works in."""
        return name

    def describe(self, client: "BrokenBackend") -> str:
        """The client's repr."""
        return f"Broken({client.inner!r})"

    def capabilities(self, client: "BrokenBackend") -> Capabilities:
        """As the port has it; so all that follow."""
        return client.inner.capabilities

    def declare(self, client: "BrokenBackend", queue: Queue) -> None:
        client.inner.declare(queue)

    def publish(
        self, client: "BrokenBackend", queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        return client.inner.publish(queue, [self.outgoing(client, message) for message in messages])

    def publish_in(
        self, client: "BrokenBackend", connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        sent = [self.outgoing(client, message) for message in messages]
        return client.inner.publish_in(connection, queue, sent)

    def publish_guarded(
        self, client: "BrokenBackend", queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return client.inner.publish_guarded(queue, self.outgoing(client, message), guard)

    def open_consumer(
        self, client: "BrokenBackend", queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        return client.inner.open_consumer(queue, lease_s=lease_s, prefetch=prefetch)

    def cancel(
        self, client: "BrokenBackend", queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        return client.inner.cancel(queue, ids, result_ttl_s=result_ttl_s)

    def counts(self, client: "BrokenBackend", queue: str) -> QueueCounts:
        return client.inner.counts(queue)

    def first_ready(self, client: "BrokenBackend", queue: str) -> bytes | None:
        return client.inner.first_ready(queue)

    def purge(self, client: "BrokenBackend", queue: str) -> int:
        return client.inner.purge(queue)

    def delete(self, client: "BrokenBackend", queue: str) -> None:
        client.inner.delete(queue)

    def dead_letters(self, client: "BrokenBackend", queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return client.inner.dead_letters(queue, limit=limit, offset=offset)

    def redrive(self, client: "BrokenBackend", queue: str, ids: Sequence[str] | None) -> int:
        return client.inner.redrive(queue, ids)

    def discard(self, client: "BrokenBackend", queue: str, ids: Sequence[str] | None) -> int:
        return client.inner.discard(queue, ids)

    def result(self, client: "BrokenBackend", queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        return client.inner.result(queue, job_id, timeout_s=timeout_s)

    def status(self, client: "BrokenBackend", queue: str, job_id: str) -> JobStatus:
        return client.inner.status(queue, job_id)

    def queues(self, client: "BrokenBackend") -> list[Queue]:
        return client.inner.queues()

    def diagnose(self, client: "BrokenBackend") -> list[Finding]:
        return client.inner.diagnose()

    def make_url(self, client: "BrokenBackend", with_passwords: bool) -> str:
        return client.inner.make_url(with_passwords=with_passwords)

    def sever(self, client: "BrokenBackend") -> None:
        """The client's connections are about to be cut."""

    def cut_reply(self, client: "BrokenBackend") -> bool:
        """Lose the reply to the client's next request, if this can; else the harness inside may."""
        return False

    def cut_request(self, client: "BrokenBackend") -> bool:
        """Lose the client's next request, if this can; else the harness inside may."""
        return False

    def cut_off(self, client: "BrokenBackend") -> AbstractContextManager[object] | None:
        """Cut the client off, if this can; else the harness inside may."""
        return None

    def refuse(self, client: "BrokenBackend") -> AbstractContextManager[object] | None:
        """Refuse what the client writes, if this can; else the harness inside may."""
        return None

    def close(self, client: "BrokenBackend") -> None:
        client.inner.close()

    # -- the calls of a coordination store --------------------------------------------------------

    def store_now(self, store: "BrokenStore") -> float:
        return store.inner.now()

    def get(self, store: "BrokenStore", keys: Sequence[str]) -> dict[str, Record]:
        return store.inner.get(keys)

    def scan(self, store: "BrokenStore", prefix: str) -> dict[str, Record]:
        return store.inner.scan(prefix)

    def put(
        self, store: "BrokenStore", key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return store.inner.put(key, value, expected=expected, ttl_s=ttl_s)

    def delete_record(self, store: "BrokenStore", key: str, expected: int | None) -> bool:
        return store.inner.delete(key, expected=expected)

    def exchange_places(
        self,
        store: "BrokenStore",
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        """Take places for a time, and leave others or have who gets none wait for another time."""
        return store.inner.take_places(places, ttl_s=ttl_s, waits_s=waits_s, leaving=leaving)

    def take_places(self, store: "BrokenStore", places: Sequence[Place], ttl_s: float) -> list[bool]:
        return store.inner.take_places(places, ttl_s=ttl_s)

    def leave_places(self, store: "BrokenStore", places: Sequence[Place]) -> None:
        store.inner.leave_places(places)

    def count_places(self, store: "BrokenStore", prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        return store.inner.count_places(prefixes, busiest=busiest)

    def watch_places(self, store: "BrokenStore", tell: Callable[[str | None], None]) -> PlaceWatch:
        return store.inner.watch_places(tell)

    def reserve(
        self,
        store: "BrokenStore",
        key: str,
        count: int,
        interval_s: float,
        burst: int,
        max_wait_s: float,
    ) -> Reservation:
        return store.inner.reserve(key, count, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)

    def reserve_each(
        self,
        store: "BrokenStore",
        counts: Mapping[str, int],
        interval_s: float,
        burst: int,
        max_wait_s: float,
    ) -> dict[str, Reservation]:
        return {
            key: self.reserve(store, key, count, interval_s, burst, max_wait_s)
            for key, count in counts.items()
        }

    # -- the calls of a consumer ------------------------------------------------------------------

    def receive(self, consumer: "BrokenConsumer", max_jobs: int, timeout_s: float) -> list[Delivery]:
        return self.incoming(consumer, consumer.inner.receive(max_jobs, timeout_s))

    def settle(self, consumer: "BrokenConsumer", settlements: Sequence[Settlement], take: int) -> Settled:
        sent = [self.settling(consumer, settlement) for settlement in settlements]
        answer = consumer.inner.settle(sent, take=take)
        return Settled(answer.outcomes, self.incoming(consumer, answer.deliveries))

    def extend(self, consumer: "BrokenConsumer", receipts: Sequence[str]) -> list[SettleOutcome]:
        return consumer.inner.extend(receipts)

    def interrupt(self, consumer: "BrokenConsumer") -> None:
        consumer.inner.interrupt()

    def allow_ahead(self, consumer: "BrokenConsumer", limit: int) -> None:
        consumer.inner.allow_ahead(limit)

    def release_ahead(self, consumer: "BrokenConsumer") -> None:
        consumer.inner.release_ahead()

    def given_out(self, consumer: "BrokenConsumer") -> Sequence[str]:
        return consumer.inner.given_out()

    def close_consumer(self, consumer: "BrokenConsumer") -> None:
        consumer.inner.close()


class BrokenBackend(OrchestratorBackend):
    """A client that asks ``fault`` first."""

    def __init__(self, inner: OrchestratorBackend, fault: PassThrough) -> None:
        super().__init__()
        self.inner = inner
        self.fault = fault
        self._store: BrokenStore | None = None

    def __repr__(self) -> str:
        return self.fault.describe(self)

    @property
    def capabilities(self) -> Capabilities:
        return self.fault.capabilities(self)

    def declare(self, queue: Queue) -> None:
        self.fault.declare(self, queue)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return self.fault.publish(self, queue, messages)

    def publish_in(self, connection: object, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return self.fault.publish_in(self, connection, queue, messages)

    @property
    def coordination(self) -> "BrokenStore":
        if self._store is None:
            self._store = BrokenStore(self.inner.coordination, self)
        return self._store

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        return self.fault.publish_guarded(self, queue, message, guard)

    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> "BrokenConsumer":
        return BrokenConsumer(self.fault.open_consumer(self, queue, lease_s, prefetch), self, queue)

    def cancel(self, queue: str, ids: Sequence[str], *, result_ttl_s: float = 3600.0) -> list[CancelOutcome]:
        return self.fault.cancel(self, queue, ids, result_ttl_s)

    def counts(self, queue: str) -> QueueCounts:
        return self.fault.counts(self, queue)

    def first_ready(self, queue: str) -> bytes | None:
        return self.fault.first_ready(self, queue)

    def purge(self, queue: str) -> int:
        return self.fault.purge(self, queue)

    def delete(self, queue: str) -> None:
        self.fault.delete(self, queue)

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        return self.fault.dead_letters(self, queue, limit, offset)

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self.fault.redrive(self, queue, ids)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self.fault.discard(self, queue, ids)

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        return self.fault.result(self, queue, job_id, timeout_s)

    def status(self, queue: str, job_id: str) -> JobStatus:
        return self.fault.status(self, queue, job_id)

    def queues(self) -> list[Queue]:
        return self.fault.queues(self)

    def diagnose(self) -> list[Finding]:
        return self.fault.diagnose(self)

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self.fault.make_url(self, with_passwords)

    def close(self) -> None:
        self.fault.close(self)


class BrokenStore(CoordinationStore):
    """A coordination store that asks the fault of its ``client`` first."""

    def __init__(self, inner: CoordinationStore, client: BrokenBackend) -> None:
        super().__init__()
        self.inner = inner
        self.client = client

    def now(self) -> float:
        return self.client.fault.store_now(self)

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return self.client.fault.get(self, keys)

    def scan(self, prefix: str) -> dict[str, Record]:
        return self.client.fault.scan(self, prefix)

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        return self.client.fault.put(self, key, value, expected, ttl_s)

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        return self.client.fault.delete_record(self, key, expected)

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        fault = self.client.fault
        if waits_s is None and not leaving:
            return fault.take_places(self, places, ttl_s)
        return fault.exchange_places(self, places, ttl_s, ttl_s if waits_s is None else waits_s, leaving)

    def leave_places(self, places: Sequence[Place]) -> None:
        self.client.fault.leave_places(self, places)

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        return self.client.fault.count_places(self, prefixes, busiest)

    @property
    def tells_freed_places(self) -> bool:
        return self.inner.tells_freed_places

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        return self.client.fault.watch_places(self, tell)

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        return self.client.fault.reserve(self, key, count, interval_s, burst, max_wait_s)

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        return self.client.fault.reserve_each(self, counts, interval_s, burst, max_wait_s)

    def close(self) -> None:
        self.inner.close()


class BrokenConsumer(ConsumerBackend):
    """A consumer that asks the fault of its ``client`` first."""

    def __init__(self, inner: ConsumerBackend, client: BrokenBackend, queue: str) -> None:
        super().__init__()
        self.inner = inner
        self.client = client
        self.queue = queue

    @property
    def lease_s(self) -> float | None:
        return self.inner.lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return self.client.fault.receive(self, max_jobs, timeout_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        return self.client.fault.settle(self, settlements, take)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        return self.client.fault.extend(self, receipts)

    def allow_ahead(self, limit: int) -> None:
        self.client.fault.allow_ahead(self, limit)

    def release_ahead(self) -> None:
        self.client.fault.release_ahead(self)

    @property
    def held_back(self) -> int:
        return self.inner.held_back

    def take_again(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self.inner.take_again(deliveries)

    def given_out(self) -> Sequence[str]:
        return self.client.fault.given_out(self)

    def interrupt(self) -> None:
        self.client.fault.interrupt(self)

    def close(self) -> None:
        self.client.fault.close_consumer(self)
