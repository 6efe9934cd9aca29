"""A schedule, and how it is written into the coordination store."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from ...domain import AnyJSON, JobSchema, job_from_schema
from ...domain.bounds import check_name
from ...domain.envelope import encode as encode_job
from ...domain.errors import InvalidInput, InvalidName
from ...domain.schedule import Cron, Due, Every, Misfire
from ...ports import Message

PREFIX = "schedules/"
"""What the keys of all schedules begin with."""
MAX_RECORD_BYTES = 60_000
"""The longest record. A store takes a little more, which leaves room for what changes in it."""
_MAX_NAME_CHARS = 100
"""The name and the slot make the job's id, which may have 128 characters."""
_VERSION = 1


class Earlier(NamedTuple):
    """The definition that another one replaced while slots of it were due."""

    when: Cron | Every
    until: datetime
    """When it was replaced. Its slots up to then are published, and those of the other one after then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule, as it was when the store was asked."""

    name: str
    queue: str
    """The queue of its jobs."""
    schema_name: str
    payload: dict[str, Any]
    """The payload of each job, as JSON has it."""
    when: Cron | Every
    priority: int = 0
    expires_s: float | None = None
    """Seconds for which a job may wait, as its schema said when this was defined; None is for ever."""
    paused: bool = False
    next_slot: datetime
    """The first slot that wasn't published yet, in UTC. A pause lets it pass."""
    last_slot: datetime | None = None
    """The slot that was published last."""
    earlier: Earlier | None = None
    """What ``next_slot`` is a slot of, if not of ``when``."""

    def __post_init__(self) -> None:
        if self.earlier is not None and self.next_slot > self.earlier.until:
            object.__setattr__(self, "earlier", None)

    @property
    def last_job_id(self) -> str | None:
        """The id of the job that was published last; None if there was none."""
        return None if self.last_slot is None else job_id(self.name, self.last_slot)

    def due(self, now: datetime) -> Due:
        """Say what to do at ``now``, if ``next_slot`` isn't after it."""
        if self.earlier is None:
            return self.when.due(self.next_slot, now)
        when, until = self.earlier
        slot, _ = when.due(self.next_slot, now if when.misfire == "skip" else until)
        if slot is None or slot > until:
            return Due(None, self.when.next_after(until))
        return Due(slot, self.slot_after(slot))

    def slot_after(self, slot: datetime) -> datetime:
        """Return the slot that follows one that was published."""
        if self.earlier is None:
            return self.when.next_after(slot)
        when, until = self.earlier
        following = when.next_after(slot)
        if following <= until:
            return following
        return self.when.next_after(max(slot, until))  # a scheduler may have published a slot after then


def job_id(name: str, slot: datetime) -> str:
    """Return the id of the job of a slot: all schedulers give it the same."""
    return f"{name}.{slot:%Y%m%dT%H%M%S}{f'.{slot.microsecond:06d}' if slot.microsecond else ''}Z"


def make_message(schedule: Schedule, slot: datetime | None, now: datetime, *, max_bytes: int) -> Message:
    """Make the job of a slot, or without one a job with an id of its own, and return what carries it.

    Raises:
        BodyTooLarge: it is longer than ``max_bytes``.
    """
    schema = JobSchema(schedule.schema_name, AnyJSON)
    headers = {"schedule": schedule.name} | ({} if slot is None else {"slot": slot.isoformat()})
    job = job_from_schema(
        schema,
        schedule.payload,
        id=None if slot is None else job_id(schedule.name, slot),
        priority=schedule.priority,
        headers=headers,
    )
    if schedule.expires_s is not None:
        job = replace(job, expires_at=now + timedelta(seconds=schedule.expires_s))
    return Message(job.id, encode_job(job, schema, max_bytes=max_bytes), job.priority)


def key_of(name: object) -> str:
    """Return the key of a schedule's record.

    Raises:
        InvalidName: the name breaks the rule for names.
    """
    checked = check_name("schedule name", name)
    if len(checked) > _MAX_NAME_CHARS:
        raise InvalidName(f"schedule name {checked!r}: use at most {_MAX_NAME_CHARS} characters")
    return PREFIX + checked


def encode(schedule: Schedule) -> bytes:
    """Write a schedule as a record. Releases that don't know ``earlier`` pass over it."""
    fields: dict[str, Any] = {}
    if schedule.earlier is not None:
        fields["earlier"] = _write_earlier(*schedule.earlier)
    if schedule.expires_s is not None:
        fields["expires_s"] = schedule.expires_s
    return to_json(
        fields
        | {
            "v": _VERSION,
            "queue": schedule.queue,
            "schema": schedule.schema_name,
            "payload": schedule.payload,
            **schedule.when.to_dict(),
            "priority": schedule.priority,
            "paused": schedule.paused,
            "next": schedule.next_slot.timestamp(),
            "last": None if schedule.last_slot is None else schedule.last_slot.timestamp(),
        }
    )


def _write_earlier(when: Cron | Every, until: datetime) -> dict[str, Any]:
    return when.to_dict() | {"until": until.timestamp()}


def decode(key: str, value: bytes) -> Schedule:
    """Read a record.

    Raises:
        InvalidInput: a newer release wrote it, it is damaged, or its time zone isn't known here.
    """
    name = key.removeprefix(PREFIX)
    try:
        fields = from_json(value)
        if fields["v"] == _VERSION:
            return _read(name, fields)
    except InvalidInput as error:
        raise InvalidInput(f"schedule {name!r}: {error}") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"schedule {name!r}: its record is damaged: remove it, and define it again"
        ) from error
    raise InvalidInput(
        f"schedule {name!r}: its record is of version {fields['v']!r:.40}, and this release reads version "
        f"{_VERSION}: update mindtrace-jobs here"
    )


def _read(name: str, fields: dict[str, Any]) -> Schedule:
    last, earlier = fields["last"], fields.get("earlier")
    return Schedule(
        name=name,
        queue=fields["queue"],
        schema_name=fields["schema"],
        payload=fields["payload"],
        when=_read_when(fields),
        priority=fields["priority"],
        expires_s=fields.get("expires_s"),
        paused=fields["paused"],
        next_slot=moment(fields["next"]),
        last_slot=None if last is None else moment(last),
        earlier=None if earlier is None else Earlier(_read_when(earlier), moment(earlier["until"])),
    )


def _read_when(fields: dict[str, Any]) -> Cron | Every:
    misfire, grace_s = fields["misfire"], fields["grace_s"]
    if "cron" in fields:
        return _cron(fields["cron"], fields["timezone"], misfire, grace_s)
    return Every(timedelta(seconds=fields["every_s"]), misfire=misfire, grace_s=grace_s)


@lru_cache(maxsize=1024)  # a scheduler reads each record every second, and to check an expression takes long
def _cron(expression: str, timezone: str, misfire: Misfire, grace_s: float) -> Cron:
    return Cron(expression, timezone, misfire=misfire, grace_s=grace_s)


def moment(seconds: float) -> datetime:
    """Return a moment, given in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
