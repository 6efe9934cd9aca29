"""The records of unique jobs: which job has a key, and whether it still does."""

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from ...domain import JobSchema
from ...domain.errors import JobsError, UnsupportedCapability
from ...ports import (
    ABSENT,
    CoordinationStore,
    Delivery,
    Guard,
    JobStatus,
    Message,
    OrchestratorBackend,
    Record,
)
from ..broker.guarded_publish import claim_of
from .keys import key_of, mark_of, prefix_of, prefix_of_marks
from .record import Replaced, UniqueRecord

_DAY_S = 86_400.0
_KEPT_S = 7 * _DAY_S
"""For how long a record is kept, beyond the job's delay, if the end of the job doesn't delete it."""
_KEPT_BESIDE_S = _DAY_S
"""Likewise if jobs and records are in different systems: there a record that was left may hold its key."""
_LIVE = (JobStatus.WAITING, JobStatus.RUNNING)
_PUBLISHER_S = 1.0
"""The longest wait for a publisher that has yet to write the record of a job which has ended already."""
_LOOK_S = 0.01
_TRIES = 5
"""How often a consumer tries to free a key which publishers change all the time."""


def records_beside(backend: OrchestratorBackend, queue: str) -> dict[str, Record]:
    """Return the records of a queue that its jobs may leave behind, as they are in another system.

    Elsewhere the backend says that a job is gone, and its record gives way. A queue of many unique jobs has
    many records.
    """
    capabilities = backend.capabilities
    if not capabilities.coordination or capabilities.guarded_publish:
        return {}
    return backend.coordination.scan(prefix_of(queue))


def forget(store: CoordinationStore, records: Mapping[str, Record]) -> None:
    """Delete records whose jobs were dropped, unless they changed; or have them end with their periods."""
    now = store.now() if records else 0.0
    for key, record in records.items():
        until = UniqueRecord.decode(record.value).until
        if until is not None and until > now:
            store.put(key, record.value, expected=record.version, ttl_s=until - now)
        else:
            store.delete(key, expected=record.version)


def replaced_by(guard: Guard) -> str | None:
    """Return the id of the job whose place the job of a guard takes."""
    replaced = UniqueRecord.decode(guard.value).replaced
    return None if replaced is None else replaced.job_id


def forget_queue(store: CoordinationStore, queue: str) -> None:
    """Delete the records and marks of a queue that was deleted, also those whose periods run."""
    for prefix in (prefix_of(queue), prefix_of_marks(queue)):
        for key, record in store.scan(prefix).items():
            store.delete(key, expected=record.version)


class UniqueRecords:
    """The records of one queue's unique jobs.

    Args:
        backend: Where the jobs and the records are.
        queue: The queue's name.
        schema: A schema that is unique.
    """

    def __init__(self, backend: OrchestratorBackend, queue: str, schema: JobSchema[Any, Any]) -> None:
        assert schema.unique is not None  # noqa: S101 - the caller looked
        backend.capabilities.require_coordination("unique jobs need")
        self._backend = backend
        self._store = backend.coordination
        self._queue = queue
        self._schema = schema
        self._period_s = schema.unique.period_s
        self._replaces = schema.unique.replaces
        self._is_beside = not backend.capabilities.guarded_publish

    def key_of(self, body: bytes) -> str:
        """Return the key of a job's record, from its encoded payload."""
        return key_of(self._queue, self._schema, body)

    def keys_of(self, deliveries: Iterable[Delivery]) -> dict[str, str]:
        """Return the keys of jobs by their ids."""
        keys = {}
        for delivery in deliveries:
            with suppress(ValueError, KeyError, TypeError):  # no envelope: no publish of ours gave it a key
                keys[delivery.id] = self.key_of(delivery.body)
        return keys

    def get(self, keys: list[str]) -> dict[str, Record]:
        """Return the records of these keys; as of :meth:`CoordinationStore.get`."""
        return self._store.get(keys)

    def is_published(self, record: Record | None, message: Message) -> bool:
        """Say whether a job of the message's id is live, if the message would take the place of another.

        It would be a duplicate that isn't published, and the other must run then.
        """
        if not self._replaces or record is None or UniqueRecord.decode(record.value).job_id == message.id:
            return False
        try:
            return self._backend.status(self._queue, message.id) in (*_LIVE, JobStatus.FAILED)
        except UnsupportedCapability:  # such a broker knows no duplicates either
            return False

    def guard(self, key: str, message: Message, record: Record | None) -> Guard:
        """Return what gives a key to a job that is about to be published.

        Args:
            key: The key.
            message: The job.
            record: The record that is there, of a job which doesn't keep this one out.
        """
        until = None if self._period_s is None else self._store.now() + self._period_s
        written = UniqueRecord(message.id, until)
        if self._replaces:
            written = UniqueRecord(message.id, None, message.delay_s, self._replaced_by(key, message, record))
        kept_s = max(self._kept_s(message.delay_s), self._period_s or 0.0)
        return Guard(key, ABSENT if record is None else record.version, written.encode(), kept_s)

    def take_back(self, guard: Guard, before: Record | None) -> None:
        """Undo what a guard wrote whose job is a duplicate by its id, unless it was changed since.

        The job that is in the queue may have another key. If the store is away, what was written is left: it
        gives way once that job has ended and no period runs.

        Args:
            guard: The guard.
            before: The record that it wrote over.
        """
        with suppress(JobsError):  # raised, it would say that the job isn't known to be a duplicate
            written = self._store.get([guard.key]).get(guard.key)
            if written is None or written.value != guard.value:
                return
            if before is None or not self._replaces:  # that one kept nobody out
                self._store.delete(guard.key, expected=written.version)
                return
            kept_s = self._kept_s(UniqueRecord.decode(before.value).delay_s)
            self._store.put(guard.key, before.value, expected=written.version, ttl_s=kept_s)

    def _kept_s(self, delay_s: float) -> float:
        return delay_s + (_KEPT_BESIDE_S if self._is_beside else _KEPT_S)

    def _replaced_by(self, key: str, message: Message, record: Record | None) -> Replaced | None:
        """Return the job whose place a new one takes, and mark the one that was replaced before.

        So at any moment each job that was replaced has a mark, or is named by the record.
        """
        if record is None:
            return None
        there = UniqueRecord.decode(record.value)
        if there.job_id == message.id:  # published again
            return there.replaced
        if there.replaced is not None:
            self._mark(key, there.replaced, there.job_id)
        return Replaced(there.job_id, there.delay_s) if self._is_live(there.job_id) else None

    def _mark(self, key: str, replaced: Replaced, by: str) -> None:
        self._store.put(mark_of(key, replaced.job_id), by.encode(), ttl_s=self._kept_s(replaced.delay_s))

    def standing(self, record: Record) -> str | None:
        """Return the id of the job that keeps others out; None if its period is over and it isn't live.

        A job that waits or runs is live; one that is done, dead, purged or discarded isn't. If jobs replace
        one another, none keeps others out.
        """
        if self._replaces:
            return None
        job_id, until, *_ = UniqueRecord.decode(record.value)
        has_key = (until is not None and self._store.now() < until) or self._is_live(job_id)
        return job_id if has_key else None

    def free(self, ended: Mapping[str, str]) -> None:
        """Delete the records of jobs that have ended, or when their periods are over.

        Args:
            ended: The keys by the jobs' ids.

        Raises:
            BackendUnavailable: the store is away.
        """
        if not ended:
            return
        if self._is_beside:
            self._wait_for_publishers(ended)
        ids: dict[str, set[str]] = {}
        for job_id, key in ended.items():
            ids.setdefault(key, set()).add(job_id)
        for _ in range(_TRIES if self._replaces else 1):
            if not (ids := self._free_keys(ids)):
                return

    def replaced(self, taken: Mapping[str, str]) -> dict[str, str]:
        """Return which jobs must not run, as others took their places, and the ids of those.

        Args:
            taken: The keys by the jobs' ids.

        Raises:
            BackendUnavailable: the store is away.
        """
        marks = {job_id: mark_of(key, job_id) for job_id, key in taken.items()}
        records = self._store.get([*taken.values(), *marks.values()])
        replaced = {}
        for job_id, key in taken.items():
            has_key = UniqueRecord.decode(records[key].value) if key in records else None
            if has_key is not None and has_key.job_id == job_id:
                continue
            if has_key is not None and has_key.replaced is not None and has_key.replaced.job_id == job_id:
                replaced[job_id] = has_key.job_id
            elif (mark := records.get(marks[job_id])) is not None:
                replaced[job_id] = mark.value.decode()
        return replaced

    def _free_keys(self, ids: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Free keys by the ids of jobs that have ended, and return those that somebody changed meanwhile."""
        marks = [mark_of(key, id_) for key in ids for id_ in ids[key]] if self._replaces else []
        records = self._store.get([*ids, *marks])
        now = 0.0 if self._period_s is None or not records else self._store.now()
        found = ids.keys() & records.keys()
        changed = {key: ids[key] for key in found if not self._end(key, records[key], ids[key], now)}
        for mark in marks:
            if mark in records:
                self._store.delete(mark)
        return changed

    def _end(self, key: str, record: Record, ended: Set[str], now: float) -> bool:
        """Free a key, or forget the job that was replaced, if they are of jobs that have ended.

        Returns:
            False if the record was changed meanwhile.
        """
        has_key = UniqueRecord.decode(record.value)
        replaced = has_key.replaced
        needs_mark = replaced is not None and replaced.job_id not in ended
        if has_key.job_id not in ended:
            if replaced is not None and not needs_mark:
                kept = has_key._replace(replaced=None).encode()
                kept_s = self._kept_s(has_key.delay_s)
                return self._store.put(key, kept, expected=record.version, ttl_s=kept_s) is not None
            return True
        if replaced is not None and needs_mark:
            self._mark(key, replaced, has_key.job_id)
        left_s = 0.0 if has_key.until is None or self._period_s is None else has_key.until - now
        if left_s > 0:
            return self._store.put(key, record.value, expected=record.version, ttl_s=left_s) is not None
        return self._store.delete(key, expected=record.version)

    def _is_live(self, job_id: str) -> bool:
        try:
            return self._backend.status(self._queue, job_id) in _LIVE
        except UnsupportedCapability:  # then the record says so, which is deleted when its job ends
            keeps_results = self._backend.capabilities.results
            return not keeps_results or self._backend.result(self._queue, job_id) is None

    def _wait_for_publishers(self, ended: Mapping[str, str]) -> None:
        """Wait for those that published one of these jobs and have yet to write its record."""
        claims = {claim_of(key): job_id for job_id, key in ended.items()}
        give_up_s = monotonic() + _PUBLISHER_S
        while claims and monotonic() < give_up_s:
            found = self._store.get(list(claims))
            claims = {
                claim: job_id
                for claim, job_id in claims.items()
                if claim in found and found[claim].value == job_id.encode()
            }
            if claims:
                sleep(_LOOK_S)
