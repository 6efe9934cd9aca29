"""The schedules of an orchestrator: define, list, pause, resume, run and remove them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel

from ...domain.envelope import open_envelope
from ...domain.errors import BodyTooLarge, InvalidInput, InvalidPayload, ScheduleNotFound
from ...domain.job import NO_HEADERS
from ...domain.schedule import Cron, Every
from ...domain.wording import LIST_SCHEDULES
from ...ports import ABSENT, CoordinationStore, OrchestratorBackend
from ..publishing.messages import confirmed_id, to_message
from ..publishing.publish_options import PublishOptions
from ..registration.registry import QueueRef, SchemaRegistry
from .record import MAX_RECORD_BYTES, PREFIX, Earlier, Schedule, decode, encode, key_of, make_message, moment

_BY_WHOM = "; mindtrace-jobs scheduler publishes it, or a worker with --schedules"


class _Orchestrator(Protocol):
    """What schedules need of an :class:`Orchestrator`."""

    backend: OrchestratorBackend
    max_body_bytes: int
    schema_registry: SchemaRegistry
    has_scheduler: bool
    logger: logging.Logger


class Schedules:
    """The schedules of a backend's namespace, which all its processes share. Safe to share between threads.

    Made by :attr:`Orchestrator.schedules`. A :class:`Scheduler`, in any process, publishes their jobs. Every
    method may raise ``BackendUnavailable`` when the store can't be reached.
    """

    def __init__(self, orchestrator: _Orchestrator) -> None:
        orchestrator.backend.capabilities.require_coordination("schedules need")
        self._orchestrator = orchestrator

    @property
    def _store(self) -> CoordinationStore:
        return self._orchestrator.backend.coordination

    def define(
        self,
        name: str,
        queue_name: QueueRef,
        payload: BaseModel | Mapping[str, Any] | None,
        when: Cron | Every,
        *,
        priority: int | None = None,
    ) -> Schedule:
        """Define a schedule, or change the one of this name, as :meth:`Orchestrator.schedule` does.

        The same definition again changes nothing. Another one keeps a pause, and slots that are due and
        not yet published. If it has another ``when``, the slot after them is the first after now.

        Raises:
            JobsError: as :meth:`Orchestrator.schedule` says.
        """
        key = key_of(name)
        if not isinstance(when, Cron | Every):
            raise InvalidInput(
                f'schedule {name!r}: {when!r:.80} must be Cron("0 3 * * *") or Every(timedelta(minutes=5))'
            )
        registration = self._orchestrator.schema_registry.registered(queue_name)
        longest = self._orchestrator.max_body_bytes
        work = {} if payload is None else payload
        try:
            message = to_message(
                registration, work, PublishOptions(priority), NO_HEADERS, longest, self._store.now
            )
        except InvalidPayload as error:
            if payload is not None:
                raise InvalidPayload(f"schedule {name!r}: {error}") from error
            raise InvalidPayload(
                f"schedule {name!r}: no payload was given, and the defaults don't do: {error}; pass one: "
                "orchestrator.schedule(name, queue, payload, …)"
            ) from error
        now = self._now()
        wanted = Schedule(
            name=name,
            queue=registration.queue.name,
            schema_name=registration.schema.name,
            payload=open_envelope(message.body, max_bytes=longest).payload,
            priority=message.priority,
            expires_s=registration.schema.expires_s,
            when=when,
            next_slot=when.next_after(now),
        )
        size = len(encode(wanted))
        if size > MAX_RECORD_BYTES:
            raise BodyTooLarge(
                f"schedule {name!r}: takes {size:,} bytes, {MAX_RECORD_BYTES:,} are the most: store the data "
                "elsewhere, and schedule where it is"
            )
        defined = self._change(key, lambda present: _redefined(present, wanted, now))
        by = "" if self._orchestrator.has_scheduler else _BY_WHOM
        self._orchestrator.logger.info(
            "schedule %s: its next job is due at %s%s", name, defined.next_slot.isoformat(), by
        )
        return defined

    def list(self) -> tuple[Schedule, ...]:
        """Return all schedules, by name."""
        return tuple(decode(key, record.value) for key, record in self._store.scan(PREFIX).items())

    def pause(self, name: str) -> Schedule:
        """Publish no more jobs of a schedule until :meth:`resume`. Jobs that were published run.

        Raises:
            ScheduleNotFound: there is no schedule of this name.
        """
        return self._change(key_of(name), lambda present: replace(_found(present, name), paused=True))

    def resume(self, name: str) -> Schedule:
        """End the pause of a schedule.

        It goes on with the first slot after now; with ``misfire="all"`` with the first that passed meanwhile.

        Raises:
            ScheduleNotFound: there is no schedule of this name.
        """

        def resumed(present: Schedule | None) -> Schedule:
            schedule = _found(present, name)
            if not schedule.paused:
                return schedule
            slot, now = schedule.next_slot, self._now()
            if slot <= now and schedule.when.misfire != "all":
                slot = schedule.when.next_after(now)
            return replace(schedule, paused=False, next_slot=slot)

        return self._change(key_of(name), resumed)

    def run(self, name: str) -> str:
        """Publish a job of a schedule now, also while it is paused. Its slots stay as they are.

        Returns:
            The job's id.

        Raises:
            ScheduleNotFound: there is no schedule of this name.
            QueueNotFound: its queue was deleted.
            PublishUnknown: the connection broke before the confirm: the job may or may not be in the queue.
        """
        key = key_of(name)
        record = self._store.get([key]).get(key)
        schedule = _found(None if record is None else decode(key, record.value), name)
        message = make_message(schedule, None, self._now(), max_bytes=self._orchestrator.max_body_bytes)
        outcome = self._orchestrator.backend.publish(schedule.queue, [message])[0]
        return confirmed_id(schedule.queue, outcome, self._orchestrator.backend)

    def remove(self, name: str) -> None:
        """Remove a schedule. Jobs that were published stay.

        Raises:
            ScheduleNotFound: there is no schedule of this name.
        """
        if not self._store.delete(key_of(name)):
            raise _unknown(name)

    def _now(self) -> datetime:
        return moment(self._store.now())

    def _change(self, key: str, change: Callable[[Schedule | None], Schedule]) -> Schedule:
        """Write what ``change`` makes of a schedule, again and again until no other write came between."""
        while True:
            record = self._store.get([key]).get(key)
            present = None if record is None else decode(key, record.value)
            changed = change(present)
            if changed == present:
                return changed
            expected = ABSENT if record is None else record.version
            if self._store.put(key, encode(changed), expected=expected) is not None:
                return changed


def _redefined(present: Schedule | None, wanted: Schedule, now: datetime) -> Schedule:
    """Return what a definition makes of the schedule that is there."""
    if present is None:
        return wanted
    is_due = present.next_slot <= now and not present.paused
    misfire, grace_s = wanted.when.misfire, wanted.when.grace_s
    slot, last, earlier = wanted.next_slot, present.last_slot, None
    if replace(present.when, misfire=misfire, grace_s=grace_s) == wanted.when:
        slot, earlier = present.next_slot, present.earlier
    elif is_due:  # if that is a slot of a still earlier definition, the present one never had its turn
        slot = present.next_slot
        earlier = Earlier(present.when if present.earlier is None else present.earlier.when, now)
    if last is not None and slot <= last:  # a scheduler published it since the definition began
        slot = wanted.when.next_after(last)
    return replace(wanted, paused=present.paused, next_slot=slot, last_slot=last, earlier=earlier)


def _found(schedule: Schedule | None, name: str) -> Schedule:
    if schedule is None:
        raise _unknown(name)
    return schedule


def _unknown(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"schedule {name!r}: not defined; {LIST_SCHEDULES}")
