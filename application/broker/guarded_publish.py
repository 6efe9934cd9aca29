"""Publish a job and write a record of the coordination store, both or neither, where the backend can."""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from ...domain.errors import JobsError
from ...ports import (
    ABSENT,
    CoordinationStore,
    Guard,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    Record,
)

CLAIM_S = 30.0
"""For how long a publisher has the sole right to a guard, if jobs and records are in different systems."""
_PUBLISHED = (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)


def publish_guarded(
    backend: OrchestratorBackend,
    queue: str,
    message: Message,
    guard: Guard,
    *,
    may_be_freed: bool = False,
    keeps_doubt: bool = False,
) -> PublishOutcome | None:
    """Publish a job if the guard's record has the expected version, and write that record (CRD-4).

    If the backend can't do this in one step, a claim keeps other publishers out meanwhile. The job is then
    published at least once: if its publisher dies or loses the store before the record is written, or stands
    still for ``CLAIM_S`` seconds, another publishes it again, after ``CLAIM_S`` seconds at most. Consumers
    may see the job before its record.

    Args:
        backend: Where the queue is.
        queue: The queue's name.
        message: The job.
        guard: The record, and the version that it must have.
        may_be_freed: Whether consumers change such records too, when the jobs that these name have ended. One
            that they change while the job is published under a claim is written all the same.
        keeps_doubt: Whether a claim stays until it ends if it isn't known whether the job was published. Else
            the next who asks publishes another at once.

    Returns:
        As :meth:`OrchestratorBackend.publish_guarded`: None if the record has another version, or another
        publisher has the claim. Read the record again to know. Without the one step, ``UNKNOWN`` means that
        the record isn't known to be written, and the job may have been published.

    Raises:
        BackendUnavailable: broker or store are away, and nothing was published; ask again. A claim that may
            have been written keeps all out until it ends.
        UnsupportedCapability: the backend has no coordination store.
    """
    if backend.capabilities.guarded_publish:
        return backend.publish_guarded(queue, message, guard)
    return _publish_under_claim(backend, queue, message, guard, may_be_freed, keeps_doubt)


def claim_of(key: str) -> str:
    """Return the key of the claim to a guard's record: its value is the id of the job.

    It is short enough, whatever the key of the record is.
    """
    return f"claims/{sha256(key.encode()).hexdigest()}"


def _publish_under_claim(
    backend: OrchestratorBackend,
    queue: str,
    message: Message,
    guard: Guard,
    may_be_freed: bool,
    keeps_doubt: bool,
) -> PublishOutcome | None:
    store, claim = backend.coordination, claim_of(guard.key)
    version = store.put(claim, message.id.encode(), expected=ABSENT, ttl_s=CLAIM_S)
    if version is None:
        return None
    is_in_doubt = False
    try:
        found = store.get([claim, guard.key])  # the claim as well: the way to the store may have taken long
        if _version(found, claim) != version or _version(found, guard.key) != guard.expected:
            return None
        outcome = backend.publish(queue, [message])[0]
        if outcome.status not in _PUBLISHED:
            is_in_doubt = outcome.status is PublishStatus.UNKNOWN
            return outcome
        try:
            written = store.put(guard.key, guard.value, expected=guard.expected, ttl_s=guard.ttl_s)
            if written is None and may_be_freed:
                _write_again(store, guard, claim, version)
        except JobsError as error:  # raised, it would say that nothing was published
            is_in_doubt = True
            return PublishOutcome(outcome.id, PublishStatus.UNKNOWN, error)
        return outcome
    finally:
        if not (keeps_doubt and is_in_doubt):
            with suppress(JobsError):  # the claim ends by itself
                store.delete(claim, expected=version)


def _write_again(store: CoordinationStore, guard: Guard, claim: str, version: int) -> None:
    """Write the record of a job that was published, whatever it has become, as long as the claim stands."""
    written = None
    while written is None:
        found = store.get([claim, guard.key])
        if _version(found, claim) != version:
            return
        written = store.put(guard.key, guard.value, expected=_version(found, guard.key), ttl_s=guard.ttl_s)


def _version(found: Mapping[str, Record], key: str) -> int:
    return found[key].version if key in found else ABSENT
