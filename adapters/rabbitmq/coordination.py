"""The coordination store that a client borrows: the records of its namespace in a store of another system."""

from collections.abc import Callable, Mapping, Sequence

from ...ports import (
    CoordinationStore,
    KeyCount,
    Migration,
    Place,
    PlaceCount,
    PlaceWatch,
    Record,
    Reservation,
)
from ..shared.error_messages import client_closed


class BorrowedCoordinationStore(CoordinationStore):
    """What one client sees of a store that clients of several namespaces share.

    Every key begins with a prefix there, so that namespaces never meet (CON-2).

    Args:
        store: The store. Closing this doesn't close it.
        prefix: What the keys of this namespace begin with, and no others.
    """

    def __init__(self, store: CoordinationStore, prefix: str) -> None:
        super().__init__()
        self._store = store
        self._prefix = prefix
        self._closed = False

    def now(self) -> float:
        return self._open().now()

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return self._without_prefix(self._open().get([self._key(key) for key in keys]))

    def scan(self, prefix: str) -> dict[str, Record]:
        return self._without_prefix(self._open().scan(self._key(prefix)))

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        return self._open().put(self._key(key), value, expected=expected, ttl_s=ttl_s)

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        return self._open().delete(self._key(key), expected=expected)

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        store = self._open()
        return store.take_places(
            self._places(places), ttl_s=ttl_s, waits_s=waits_s, leaving=self._places(leaving)
        )

    def leave_places(self, places: Sequence[Place]) -> None:
        self._open().leave_places(self._places(places))

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        counts = self._open().count_places([self._key(prefix) for prefix in prefixes], busiest=busiest)
        return [count._replace(busiest=self._key_counts(count.busiest)) for count in counts]

    @property
    def tells_freed_places(self) -> bool:
        return self._store.tells_freed_places

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        prefix = self._prefix
        return self._open().watch_places(lambda key: tell(key and key.removeprefix(prefix)))

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        return self._open().reserve(
            self._key(key), count, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s
        )

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        named = {self._key(key): count for key, count in counts.items()}
        answers = self._open().reserve_each(named, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)
        return {key.removeprefix(self._prefix): answer for key, answer in answers.items()}

    def pending_migrations(self) -> Sequence[Migration] | None:
        return self._open().pending_migrations()

    def migrate(self) -> Sequence[Migration]:
        return self._open().migrate()

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._store.make_url(with_passwords=with_passwords)

    def close(self) -> None:
        self._closed = True

    def _open(self) -> CoordinationStore:
        if self._closed:
            raise client_closed("RabbitMQClient")
        return self._store

    def _key(self, key: str) -> str:
        return self._prefix + key

    def _places(self, places: Sequence[Place]) -> list[Place]:
        return [place._replace(key=self._key(place.key)) for place in places]

    def _key_counts(self, counts: Sequence[KeyCount]) -> list[KeyCount]:
        return [count._replace(key=count.key.removeprefix(self._prefix)) for count in counts]

    def _without_prefix(self, records: dict[str, Record]) -> dict[str, Record]:
        return {key.removeprefix(self._prefix): record for key, record in records.items()}
