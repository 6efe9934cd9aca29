"""Faults of a coordination store's records: keys, values, versions and how long they last."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import ClassVar
from zlib import crc32

from ...domain import Queue
from ...domain.errors import Closed
from ...ports import ABSENT, Capabilities, Place, Record
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenStore, PassThrough


def coordinates(capabilities: Capabilities) -> bool:
    """Only an adapter with a coordination store can have a broken one."""
    return capabilities.coordination


class NamesKeysOtherwise(PassThrough):
    """Keeps a record under another key than it was given."""

    def name(self, key: str) -> str:
        """The key under which a record is kept."""
        return key

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        found = super().get(store, [self.name(key) for key in keys])
        return {key: found[self.name(key)] for key in keys if self.name(key) in found}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return super().put(store, self.name(key), value, expected, ttl_s)

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        return super().delete_record(store, self.name(key), expected)


@breaks("CRD-1", where=coordinates)
class KeysHaveNoCase(NamesKeysOtherwise):
    """The column of keys has a collation without case, as MySQL's default is."""

    def name(self, key: str) -> str:
        return key.lower()


@breaks("CRD-1", where=coordinates)
class CutsKeysAt255(NamesKeysOtherwise):
    """A key is cut off after 255 characters, as a column in a lenient mode does."""

    def name(self, key: str) -> str:
        return key[:255]


@breaks("CRD-1", where=coordinates)
class NormalizesKeys(NamesKeysOtherwise):
    """Keys are normalized, as names of files are on some systems: two ways to write ä are one."""

    def name(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


@breaks("CRD-1", where=coordinates)
class TrimsKeys(NamesKeysOtherwise):
    """Keys are compared without the spaces at their ends, as a padded column is."""

    def name(self, key: str) -> str:
        return key.rstrip(" ")


class ScansByPattern(PassThrough):
    """A scan takes its prefix for a pattern."""

    wildcards: ClassVar[dict[str, str]] = {}

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        parts = [self.wildcards.get(letter, re.escape(letter)) for letter in prefix]
        pattern = re.compile("".join(parts), re.DOTALL)
        return {key: record for key, record in super().scan(store, "").items() if pattern.match(key)}


@breaks("CRD-1", where=coordinates)
class ScansByLike(ScansByPattern):
    """A scan is a LIKE, and its prefix isn't escaped: an underscore stands for any letter."""

    wildcards: ClassVar[dict[str, str]] = {"_": ".", "%": ".*"}


@breaks("CRD-1", where=coordinates)
class ScansByGlob(ScansByPattern):
    """A scan is a MATCH of Redis, and its prefix isn't escaped: an asterisk stands for anything."""

    wildcards: ClassVar[dict[str, str]] = {"*": ".*", "?": "."}


@breaks("CRD-1", where=coordinates)
class ScansWithoutCase(PassThrough):
    """A scan is a LIKE of SQLite, for which A and a are the same."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        found = super().scan(store, "")
        return {key: record for key, record in found.items() if key.lower().startswith(prefix.lower())}


@breaks("CRD-1", where=coordinates)
class ScansOnePage(PassThrough):
    """A scan returns the first thousand records, and doesn't ask for the next page."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        return dict(list(super().scan(store, prefix).items())[:1000])


@breaks("CRD-1", where=coordinates)
class ScansInAnyOrder(PassThrough):
    """A scan is in the order of a hash table."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        return dict(sorted(super().scan(store, prefix).items(), key=lambda item: crc32(item[0].encode())))


@breaks("CRD-1", where=coordinates)
class ScansUpToTheLastLetter(PassThrough):
    """A scan is a range that ends with the prefix and U+FFFF: letters beyond that are outside."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        found = super().scan(store, prefix)
        return {key: record for key, record in found.items() if key <= prefix + "\uffff"}


@breaks("CRD-1", where=coordinates)
class GetsTheFirstHundred(PassThrough):
    """One request looks up a hundred keys at most, and the rest is taken for absent."""

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        return super().get(store, keys[:100])


class KeepsValuesOtherwise(PassThrough):
    """Keeps something else than the value that it was given."""

    def kept(self, value: bytes) -> bytes:
        """What is kept of a value."""
        return value

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return super().put(store, key, self.kept(value), expected, ttl_s)


@breaks("CRD-1", where=coordinates)
class ValuesEndAtNul(KeepsValuesOtherwise):
    """A value ends at its first NUL, as a string of C."""

    def kept(self, value: bytes) -> bytes:
        return value.partition(b"\0")[0]


@breaks("CRD-1", where=coordinates)
class ValuesAreText(KeepsValuesOtherwise):
    """A value is kept as text: what is no UTF-8 is replaced."""

    def kept(self, value: bytes) -> bytes:
        return value.decode("utf-8", "replace").encode()


@breaks("CRD-1", where=coordinates)
class ValuesHaveOneByteLess(KeepsValuesOtherwise):
    """A value is a BLOB of MySQL, which holds 65,535 bytes: one less than the longest value has."""

    def kept(self, value: bytes) -> bytes:
        return value[:65_535]


@breaks("CRD-1", where=coordinates)
class AnEmptyValueIsNone(PassThrough):
    """A record without bytes is taken for none, as it is false."""

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        return {key: record for key, record in super().get(store, keys).items() if record.value}


class VersionsOfItsOwn(PassThrough):
    """Gives records other versions than the store inside does; not in one step, which others must be."""

    def version(self, key: str, record: Record | None) -> int:
        """The version of what is there."""
        return ABSENT if record is None else record.version

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        found = super().get(store, keys)
        return {key: record._replace(version=self.version(key, record)) for key, record in found.items()}

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        return self.get(store, list(super().scan(store, prefix)))

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        if expected is not None and self.version(key, store.inner.get([key]).get(key)) != expected:
            return None
        version = super().put(store, key, value, None, ttl_s)
        return self.written(key, Record(value, version or ABSENT))

    def written(self, key: str, record: Record) -> int:
        """The version of what was just written."""
        return self.version(key, record)

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        if expected is not None and self.version(key, store.inner.get([key]).get(key)) != expected:
            return False
        return super().delete_record(store, key, None)


@breaks("CRD-1", where=coordinates)
class CountsVersionsFromOne(VersionsOfItsOwn):
    """A record that is written anew begins with version 1, as it did before it was deleted (ABA)."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._writes: dict[str, int] = {}

    def version(self, key: str, record: Record | None) -> int:
        if record is None:
            self._writes.pop(key, None)
        return self._writes.get(key, ABSENT)

    def written(self, key: str, record: Record) -> int:
        self._writes[key] = self._writes.get(key, ABSENT) + 1
        return self._writes[key]

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        deleted = super().delete_record(store, key, expected)
        self._writes.pop(key, None) if deleted else None
        return deleted


@breaks("CRD-1", where=coordinates)
class AVersionIsAHash(VersionsOfItsOwn):
    """The version is a hash of the value, as an ETag: a value that comes back brings its version along."""

    def version(self, key: str, record: Record | None) -> int:
        return ABSENT if record is None else 1 + crc32(record.value)


@breaks("CRD-1", where=coordinates)
class AVersionIsAMoment(VersionsOfItsOwn):
    """The version is the time of the write in milliseconds: two writes in one have the same."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._moments: dict[str, int] = {}

    def version(self, key: str, record: Record | None) -> int:
        return ABSENT if record is None else self._moments[key]

    def written(self, key: str, record: Record) -> int:
        self._moments[key] = int(self.now() * 1000)
        return self._moments[key]


class ForgetsRecords(PassThrough):
    """Loses all records at a certain event."""

    def forget(self, client: BrokenBackend) -> None:
        """Delete every record."""
        for key in client.inner.coordination.scan(""):
            client.inner.coordination.delete(key)


@breaks("CRD-1", where=coordinates)
class APurgeEmptiesTheStore(ForgetsRecords):
    """A purge is a FLUSHDB."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        purged = super().purge(client, queue)
        self.forget(client)
        return purged


@breaks("CRD-1", where=coordinates)
class RecordsGoWithTheirQueue(ForgetsRecords):
    """Whatever is named like a queue that is deleted goes with it."""

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        for key in client.inner.coordination.scan(queue):
            client.inner.coordination.delete(key)


@breaks("CRD-1", where=coordinates)
class ADeclareClearsTheStore(ForgetsRecords):
    """Declaring a queue creates the store's table anew."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        self.forget(client)


@breaks("CRD-1", where=coordinates)
class RecordsGoWithTheirClient(PassThrough):
    """A record ends with the session of the client that wrote it, as an ephemeral node of ZooKeeper."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._written: dict[BrokenBackend, set[str]] = {}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        self._written.setdefault(store.client, set()).add(key)
        return super().put(store, key, value, expected, ttl_s)

    def close(self, client: BrokenBackend) -> None:
        for key in self._written.pop(client, ()):
            client.inner.coordination.delete(key)
        super().close(client)


@breaks("CRD-1", where=coordinates)
class PlacesAreRecords(PassThrough):
    """The places of a limit are kept as a record of its key, which a scan shows and a delete forgets."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        for place in places:
            store.inner.put(place.key, place.holder.encode())
        return super().take_places(store, places, ttl_s)


@breaks("CON-2", where=coordinates)
class StoresShareRecords(PassThrough):
    """The namespace isn't part of the records' keys: a put is seen in all namespaces."""

    _everybodys: ClassVar[dict[str, Record]] = {}

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        everybodys = {key: self._everybodys[key] for key in keys if key in self._everybodys}
        return everybodys | super().get(store, keys)

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        version = super().put(store, key, value, expected, ttl_s)
        self._everybodys[key] = Record(value, version or ABSENT)
        return version


@breaks("CON-2", where=coordinates)
class AClosedStoreIsEmpty(PassThrough):
    """A store that was closed answers as if it had no records."""

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        try:
            return super().get(store, keys)
        except Closed:
            return {}
