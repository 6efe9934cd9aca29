"""Faults of connections, and of security."""

import json
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...domain.errors import BackendUnavailable, QueueNotFound
from ...ports import (
    ConsumerBackend,
    Delivery,
    Message,
    PublishOutcome,
    QueueCounts,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("CON-1")
class DeafAfterACut(PassThrough):
    """A consumer whose connection was cut lives on and receives nothing any more, as in celery#8030."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._consumers: list[BrokenConsumer] = []
        self._deaf: list[BrokenConsumer] = []

    def sever(self, client: BrokenBackend) -> None:
        self._deaf += self._consumers

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        if consumer not in self._consumers:
            self._consumers.append(consumer)
        if consumer in self._deaf:
            time.sleep(min(timeout_s, 0.1))
            consumer.inner.extend([])  # which raises Closed in the end
            return []
        return super().receive(consumer, max_jobs, timeout_s)


@breaks("CON-1")
class FailsOnceAfterACut(PassThrough):
    """The first call after a cut raises the socket's error, and only the next one connects again."""

    _cut = False

    def sever(self, client: BrokenBackend) -> None:
        self._cut = True

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self._cut:
            self._cut = False
            raise BrokenPipeError(32, "Broken pipe")
        return super().publish(client, queue, messages)


@breaks("CON-1")
class ForgetsWhatACutLeftOpen(PassThrough):
    """The first settlements after a cut raise an error and are forgotten: asked again, they are LOST."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._cut = False
        self._forgotten: set[str] = set()

    def sever(self, client: BrokenBackend) -> None:
        self._cut = True

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        if self._cut and settlements:
            self._cut = False
            self._forgotten |= {settlement.receipt for settlement in settlements}
            raise BackendUnavailable("the connection broke")
        known = [each for each in settlements if each.receipt not in self._forgotten]
        outcomes, taken = super().settle(consumer, known, take)
        answers = iter(outcomes)
        lost = SettleOutcome.LOST
        return Settled(
            [lost if each.receipt in self._forgotten else next(answers) for each in settlements], taken
        )


@breaks("CON-2")
class LeavesAThread(PassThrough):
    """A consumer's heartbeat runs on after its close."""

    def open_consumer(
        self, client: BrokenBackend, queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().open_consumer(client, queue, lease_s, prefetch)


@breaks("CON-2")
class WorksAfterClose(PassThrough):
    """A client that was closed connects again as soon as it is used."""

    def close(self, client: BrokenBackend) -> None:
        pass


@breaks("CON-2")
class ClosesOnlyOnce(PassThrough):
    """Closing again raises an error."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._closed: set[BrokenBackend] = set()

    def close(self, client: BrokenBackend) -> None:
        if client in self._closed:
            raise RuntimeError("not connected")
        self._closed.add(client)
        super().close(client)


@breaks("CON-2")
class SharesNamespaces(PassThrough):
    """The namespace isn't part of the queues' names: whoever uses the broker meets all others."""

    def namespace(self, name: str) -> str:
        return "contract-of-all"


@breaks("SEC-1")
class Unpickles(PassThrough):
    """A body that is a pickle is loaded, and runs what it names."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            with suppress(Exception):
                pickle.loads(delivery.body)
        return deliveries


@breaks("SEC-2")
class ParsesWithoutBounds(PassThrough):
    """A body is parsed before it is looked at: one that nests deep enough breaks its consumer."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            with suppress(ValueError):
                json.loads(delivery.body)
        return deliveries


class _WithPassword(PassThrough):
    """Connects with a password."""

    secrets = ("correct-horse",)
    url = "redis://worker:correct-horse@localhost"


@breaks("SEC-3")
class ShowsItsPassword(_WithPassword):
    """A client's repr is the URL that it was made of, with its password."""

    def describe(self, client: BrokenBackend) -> str:
        return f"Client({self.url})"


@breaks("SEC-3")
class NamesItsPasswordInErrors(_WithPassword):
    """The message of an error names the URL, with its password."""

    def counts(self, client: BrokenBackend, queue: str) -> QueueCounts:
        try:
            return super().counts(client, queue)
        except QueueNotFound as error:
            raise QueueNotFound(f"{error} at {self.url}") from error


@breaks("SEC-3")
class LogsItsPassword(_WithPassword):
    """Connecting is logged with the URL, and so with the password."""

    def open_consumer(
        self, client: BrokenBackend, queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        client.logger.debug("connected to %s", self.url)
        return super().open_consumer(client, queue, lease_s, prefetch)
