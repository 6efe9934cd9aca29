"""Faults of writes that expect a version: of compare-and-set."""

import time
from collections.abc import Callable

from ...ports import ABSENT
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenStore, PassThrough
from .records import VersionsOfItsOwn, coordinates

_GAP_S = 0.002
"""How long what was seen is believed before it is acted on."""


@breaks("CRD-2", where=coordinates)
class LooksThenWrites(PassThrough):
    """The version is read, compared and then written over, in three requests."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        if expected is not None:
            record = store.inner.get([key]).get(key)
            if expected != (record.version if record else ABSENT):
                return None
            time.sleep(_GAP_S)
        return super().put(store, key, value, None, ttl_s)


@breaks("CRD-2", where=coordinates)
class LooksThenDeletes(PassThrough):
    """A lock is deleted by its holder, who looks first whether it has it still: another's may go."""

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        record = store.inner.get([key]).get(key)
        if record is None or expected not in (None, record.version):
            return False
        time.sleep(_GAP_S)
        super().delete_record(store, key, None)
        return True


@breaks("CRD-2", where=coordinates)
class KnowsOnlyIfNotExists(PassThrough):
    """A put is SET NX where there must be no record, and else a SET, whatever version is there."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return super().put(store, key, value, ABSENT if expected == ABSENT else None, ttl_s)


@breaks("CRD-2", where=coordinates)
class AbsentIsAnything(PassThrough):
    """Whether a version is expected is asked with ``if expected``, and ABSENT is 0."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return super().put(store, key, value, expected or None, ttl_s)


@breaks("CRD-2", where=coordinates)
class UpdatesWithoutLooking(PassThrough):
    """With a version that is there no more, a put writes the record anew: an upsert."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        is_there = bool(store.inner.get([key]))
        return super().put(store, key, value, expected if is_there else None, ttl_s)


@breaks("CRD-2", where=coordinates)
class DeletesAnyVersion(PassThrough):
    """A lock is deleted with DEL, whoever has it by then."""

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        return super().delete_record(store, key, None)


@breaks("CRD-2", where=coordinates)
class AnOlderVersionWillDo(VersionsOfItsOwn):
    """A put succeeds if the record isn't newer than expected: one that was never given is fine."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        record = store.inner.get([key]).get(key)
        newer = record is not None and expected is not None and record.version > expected
        return None if newer else PassThrough.put(self, store, key, value, None, ttl_s)


@breaks("CRD-2", where=coordinates)
class WritesThenRestores(PassThrough):
    """A put is a GETSET: if it took the place of another version, that is written back."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        before = store.inner.get([key]).get(key)
        if expected is None or expected == (before.version if before else ABSENT):
            return super().put(store, key, value, expected, ttl_s)
        super().put(store, key, value, None, ttl_s)
        if before:
            super().put(store, key, before.value, None, ttl_s)
        else:
            super().delete_record(store, key, None)
        return None


@breaks("CRD-2", where=coordinates)
class SaysThatItDeleted(PassThrough):
    """A delete is always answered well, whether there was a record or not."""

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        super().delete_record(store, key, expected)
        return True


class RepeatsBlindly(PassThrough):
    """A change whose reply was lost is sent once more, and what that is answered is the answer."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._cut: BrokenBackend | None = None

    def cut_reply(self, client: BrokenBackend) -> bool:
        self._cut = client
        return True

    def is_lost(self, client: BrokenBackend) -> bool:
        """Whether the reply to this client's change is lost; one is."""
        lost = self._cut is client
        self._cut = None
        return lost


@breaks("CON-1", where=coordinates)
class RepeatsAPut(RepeatsBlindly):
    """A put whose reply was lost is sent again, and is told that the version is another: its own."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        if self.is_lost(store.client):
            super().put(store, key, value, expected, ttl_s)
        return super().put(store, key, value, expected, ttl_s)


@breaks("CON-1", where=coordinates)
class RepeatsADeleteOfARecord(RepeatsBlindly):
    """A delete whose reply was lost is sent again, and is told that there was nothing."""

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        if self.is_lost(store.client):
            super().delete_record(store, key, expected)
        return super().delete_record(store, key, expected)
