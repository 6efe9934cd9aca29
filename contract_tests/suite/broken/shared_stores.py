"""Faults of a store that several namespaces share, of which each part is kept apart but one."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from ...application.pausing.records import key_of
from ...ports import (
    Ack,
    CoordinationStore,
    Delivery,
    JobResult,
    Place,
    PlaceWatch,
    Record,
    Reservation,
    ResultStatus,
    Settled,
    Settlement,
)
from .administration import keeps_results
from .fault_registry import breaks
from .freed_places import Tell, tells
from .pass_through import BrokenBackend, BrokenConsumer, BrokenStore, PassThrough
from .records import coordinates

_PAUSES = key_of("")
"""What the keys of pauses begin with."""


class LendsOneStore(PassThrough):
    """Knows the stores of all open namespaces. What derives from it uses the first of them for all."""

    open_stores: ClassVar[list[BrokenStore]] = []

    def first(self, store: BrokenStore) -> CoordinationStore:
        """Return the store that all share."""
        if store not in self.open_stores:
            self.open_stores.append(store)
        return self.open_stores[0].inner

    def close(self, client: BrokenBackend) -> None:
        self.open_stores[:] = [each for each in self.open_stores if each.client is not client]
        super().close(client)


class SharesRecords(LendsOneStore):
    """Namespaces share some records."""

    prefix = ""
    """What the keys of those begin with."""

    def _of(self, store: BrokenStore, key: str) -> CoordinationStore:
        first = self.first(store)
        return first if key.startswith(self.prefix) else store.inner

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for key in keys:
            found |= self._of(store, key).get([key])
        return found

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        own = {key: each for key, each in store.inner.scan(prefix).items() if not key.startswith(self.prefix)}
        shared = self.first(store).scan(prefix)
        return own | {key: each for key, each in shared.items() if key.startswith(self.prefix)}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return self._of(store, key).put(key, value, expected=expected, ttl_s=ttl_s)

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        return self._of(store, key).delete(key, expected=expected)


@breaks("CON-2", where=coordinates)
class RecordsOfAllNamespacesMeet(SharesRecords):
    """Keys of records have no prefix in a borrowed store: namespaces overwrite each other's."""


@breaks("CON-2", where=coordinates)
class PausesOfAllNamespacesMeet(SharesRecords):
    """A pause is kept under the queue's name alone: it holds the queues of that name in all namespaces."""

    prefix = _PAUSES


@breaks("CON-2", where=coordinates)
class PlacesOfAllNamespacesMeet(LendsOneStore):
    """Keys of limits have no prefix in a borrowed store: namespaces take each other's places."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return self.first(store).take_places(places, ttl_s=ttl_s)

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        self.first(store).leave_places(places)


@breaks("CON-2", where=coordinates)
class RatesOfAllNamespacesMeet(LendsOneStore):
    """Keys of rates have no prefix in a borrowed store: namespaces take each other's turns."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        return self.first(store).reserve(
            key, count, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s
        )


@breaks("CRD-7", where=tells)
class ReportsOfAllNamespacesMeet(PassThrough):
    """A report of a freed place is sent on one channel, and the watches of other namespaces hear it, too."""

    _tells: ClassVar[list[tuple[PassThrough, Tell]]] = []
    """Of all namespaces, each with its own instance of this."""

    def watch_places(self, store: BrokenStore, tell: Tell) -> PlaceWatch:
        def tell_others_too(key: str | None) -> None:
            tell(key)
            for whose, other in list(self._tells):
                if whose is not self:
                    other(key)

        watch = super().watch_places(store, tell_others_too)
        self._tells.append((self, tell))

        def close() -> None:
            with suppress(ValueError):  # it was closed before
                self._tells.remove((self, tell))
            watch.close()

        return watch._replace(close=close)


@breaks("CON-2", where=keeps_results)
class ResultsOfAllNamespacesMeet(PassThrough):
    """Results are filed by queue and id in a borrowed store: one id has one result in all namespaces."""

    _results: ClassVar[dict[BrokenBackend, dict[tuple[str, str], JobResult]]] = {}
    """By the client that is open."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ids: dict[str, str] = {}
        """By receipt."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._ids |= {delivery.receipt: delivery.id for delivery in deliveries}
        return deliveries

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for settlement in settlements:
            if isinstance(settlement, Ack) and settlement.result is not None:
                kept = self._results.setdefault(consumer.client, {})
                kept[consumer.queue, self._ids[settlement.receipt]] = JobResult(
                    ResultStatus.DONE, settlement.result
                )
        return answer

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        for kept in self._results.values():
            if (queue, job_id) in kept:
                return kept[queue, job_id]
        return super().result(client, queue, job_id, timeout_s)

    def close(self, client: BrokenBackend) -> None:
        self._results.pop(client, None)
        super().close(client)
