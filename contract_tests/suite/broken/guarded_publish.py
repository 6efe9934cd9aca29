"""Faults of guarded publishing: of a job and a record that should be written in one step."""

import time
from collections.abc import Callable

from ...ports import ABSENT, Capabilities, Guard, JobResult, Message, PublishOutcome, PublishStatus
from .fault_registry import breaks
from .pass_through import BrokenBackend, PassThrough
from .record_versions import RepeatsBlindly

_GAP_S = 0.002
"""How long the two steps are apart."""


def guards(capabilities: Capabilities) -> bool:
    """Only an adapter that publishes under guards can do it wrong."""
    return capabilities.guarded_publish


def holds(client: BrokenBackend, guard: Guard) -> bool:
    """Whether the record has the version that the guard expects."""
    record = client.inner.coordination.get([guard.key]).get(guard.key)
    return guard.expected == (record.version if record else ABSENT)


def write(client: BrokenBackend, guard: Guard, expected: int | None) -> int | None:
    """Write the guard's record."""
    return client.inner.coordination.put(guard.key, guard.value, expected=expected, ttl_s=guard.ttl_s)


@breaks("CRD-4", where=guards)
class PublishesThenWrites(PassThrough):
    """The job is published, and then the record written: others see the one without the other."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        if not holds(client, guard):
            return None
        (outcome,) = client.inner.publish(queue, [message])
        time.sleep(_GAP_S)
        write(client, guard, guard.expected)
        return outcome


@breaks("CRD-4", where=guards)
class WritesThenPublishes(PassThrough):
    """The record is written, and then the job published: if that fails, a slot stays without its job."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        if write(client, guard, guard.expected) is None:
            return None
        return client.inner.publish(queue, [message])[0]


@breaks("CRD-4", where=guards)
class LooksThenDoesBoth(PassThrough):
    """The guard is looked at before the step that publishes and writes: of many, several see it unchanged."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        if not holds(client, guard):
            return None
        time.sleep(_GAP_S)
        (outcome,) = client.inner.publish(queue, [message])
        write(client, guard, None)
        return outcome


@breaks("CRD-4", where=guards)
class PublishesBeforeItLooks(PassThrough):
    """The job is published whatever the record's version is; only the write is refused."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        outcome = super().publish_guarded(client, queue, message, guard)
        if outcome is None:
            client.inner.publish(queue, [message])
        return outcome


@breaks("CRD-4", where=guards)
class GuardsByPresence(PassThrough):
    """A guard asks whether there is a record, and not which version that has."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        record = client.inner.coordination.get([guard.key]).get(guard.key)
        if guard.expected != ABSENT and record:
            guard = guard._replace(expected=record.version)
        return super().publish_guarded(client, queue, message, guard)


@breaks("CRD-4", where=guards)
class ADuplicateWritesNothing(PassThrough):
    """A job that is there already rolls the record back: the same slot comes up again and again."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        before = client.inner.coordination.get([guard.key]).get(guard.key)
        outcome = super().publish_guarded(client, queue, message, guard)
        if outcome and outcome.status is PublishStatus.DUPLICATE:
            store = client.inner.coordination
            store.put(guard.key, before.value) if before else store.delete(guard.key)
        return outcome


class ChangesTheMessage(PassThrough):
    """Publishes another message under a guard than it was given."""

    def changed(self, message: Message) -> Message:
        """What is published."""
        return message

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return super().publish_guarded(client, queue, self.changed(message), guard)


@breaks("CRD-4", where=guards)
class AGuardedJobIsNotDelayed(ChangesTheMessage):
    """A job that is published under a guard is ready at once, whatever delay it has."""

    def changed(self, message: Message) -> Message:
        return message._replace(delay_s=0.0)


@breaks("CRD-4", where=guards)
class AGuardedJobHasNoPriority(ChangesTheMessage):
    """A job that is published under a guard has priority 0."""

    def changed(self, message: Message) -> Message:
        return message._replace(priority=0)


@breaks("CRD-4", where=guards)
class ForgetsTheTimeOfAGuard(PassThrough):
    """The record that a guarded publish writes is kept for good, whatever time it has."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return super().publish_guarded(client, queue, message, guard._replace(ttl_s=None))


@breaks("RES-1", where=guards)
class AGuardedJobKeepsAFormerResult(PassThrough):
    """Only a publish without a guard forgets the result of a former job of the id."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._former: dict[str, JobResult] = {}

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        former = client.inner.results(queue, [message.id]) if client.inner.capabilities.results else {}
        self._former |= former
        return super().publish_guarded(client, queue, message, guard)

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        return super().result(client, queue, job_id, timeout_s) or self._former.get(job_id)


@breaks("CRD-4", where=guards)
class WritesAnEmptyRecord(PassThrough):
    """The record that a guarded publish writes is a mark without the guard's value."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        return super().publish_guarded(client, queue, message, guard._replace(value=b""))


@breaks("CON-1", where=guards)
class RepeatsAGuardedPublish(RepeatsBlindly):
    """A guarded publish whose reply was lost is sent again, and told that the version is another: its own."""

    def publish_guarded(
        self, client: BrokenBackend, queue: str, message: Message, guard: Guard
    ) -> PublishOutcome | None:
        if self.is_lost(client):
            super().publish_guarded(client, queue, message, guard)
        return super().publish_guarded(client, queue, message, guard)
