"""One unit of work."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Protocol, TypeVar, overload

from pydantic import BaseModel, GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import CoreSchema, core_schema

from .bounds import (
    MAX_ATTEMPTS,
    MAX_HEADER_CHARS,
    MAX_HEADERS,
    MAX_PRIORITY,
    check_int,
    check_name,
    check_time_limit,
)
from .errors import ImmutableJob, InvalidJob
from .job_context import context_of, current_orchestrator, report, running_job
from .queue import QueueType
from .schema import InModelT, JobSchema, SchemaLike, read_schema, validate_payload
from .wall_clock import now_ms, now_s, utcnow

InT = TypeVar("InT")

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""What a job's times are before."""


class Headers(Mapping[str, str]):
    """Strings by name; immutable, so that a job can be hashed, copied and sent to another process."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> str:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


_ID = re.compile("[0-9a-f]{32}")
_FIRST_ID_S = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
_DAY_S = 86_400.0
"""Of the clocks of others. An id that seems to be older, or newer by more, is of another kind."""
NO_HEADERS: Mapping[str, str] = Headers({})

_PART_BYTES = 10
_PARTS = 100
_random_parts: list[bytes] = []
"""Those that no id of this process has yet."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random_parts.clear)  # they are the parent's


def _written_as_dict(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Say how a pydantic model that has a job as a field writes the job's headers."""
    text = core_schema.str_schema()
    written = core_schema.dict_schema(text, text)
    schema = handler(source)
    schema["serialization"] = core_schema.plain_serializer_function_ser_schema(dict, return_schema=written)  # type: ignore[index]
    return schema


def new_job_id() -> str:
    """Return a fresh id: 32 hexadecimal digits, 12 for the milliseconds since 1970 and 20 at random.

    Jobs made one after the other are thus neighbours in an index of ids, however large that is (ADR 15).
    """
    try:
        part = _random_parts.pop()
    except IndexError:
        part, *others = _draw_random_parts()
        _random_parts.extend(others)
    return (now_ms().to_bytes(6, "big") + part).hex()


def _draw_random_parts() -> list[bytes]:
    """Ask the system for the random bytes of many ids: each request may have another thread run first."""
    drawn = os.urandom(_PART_BYTES * _PARTS)
    return [drawn[start : start + _PART_BYTES] for start in range(0, len(drawn), _PART_BYTES)]


def made_at(job_id: str) -> datetime | None:
    """Return when an id of :func:`new_job_id` was made; None for an id that says nothing of that."""
    if _ID.fullmatch(job_id) is None:
        return None
    seconds = int(job_id[:12], 16) / 1000
    return datetime.fromtimestamp(seconds, UTC) if _FIRST_ID_S <= seconds <= now_s() + _DAY_S else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[InT]):
    """One unit of work, immutable. :func:`job_from_schema` makes one, and validates its payload.

    Raises:
        InvalidName: the id or the schema's name breaks the rule for names.
        InvalidJob: priority, attempt, budget, times or headers are out of range.
    """

    schema_name: str
    """The schema that its payload fits."""
    payload: InT
    """The schema's input model, validated."""
    id: str = field(default_factory=new_job_id)
    """What names the job on every backend, in its result and in its dead letter (PUB-2)."""
    priority: int = 0
    """0 to 9, higher is served first; more than 0 only on a priority queue (ORD-3)."""
    created_at: datetime = field(default_factory=utcnow)
    """When the publisher made the job, by the publisher's clock."""
    not_before: datetime | None = None
    """When the job becomes due; None is at once (DLY-1)."""
    expires_at: datetime | None = None
    """When it is too late to run the job, by the broker's clock; None is never. ``expires_s`` sets it."""
    attempt: int = 1
    """Which attempt this is, from 1; it rises with each retry (SET-2)."""
    max_attempts: int | None = None
    """The error budget of this job; None leaves it to the schema's policy (RTY-1)."""
    timeout_s: float | None = None
    """For how many seconds its handler may run; None leaves it to the consumer and the schema."""
    headers: Annotated[Mapping[str, str], GetPydanticSchema(_written_as_dict)] = field(
        default_factory=lambda: NO_HEADERS
    )
    """Strings that travel with the job, such as a trace context: at most 32 of 1,024 characters each."""

    def __post_init__(self) -> None:
        check_name("job id", self.id)
        check_name("schema name", self.schema_name)
        check_int("priority", self.priority, 0, MAX_PRIORITY, InvalidJob)
        check_int("attempt", self.attempt, 1, MAX_ATTEMPTS, InvalidJob)
        if self.max_attempts is not None:
            check_int("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS, InvalidJob)
        if self.timeout_s is not None:
            object.__setattr__(self, "timeout_s", check_time_limit("timeout_s", self.timeout_s, InvalidJob))
        _check_moment("created_at", self.created_at)
        if self.not_before is not None:
            _check_moment("not_before", self.not_before)
        if self.expires_at is not None:
            _check_moment("expires_at", self.expires_at)
        if self.headers is not NO_HEADERS:
            object.__setattr__(self, "headers", _checked_headers(self.headers))

    def progress(self, done: float, total: float | None = None) -> None:
        """Report the progress of this job from its handler: see :func:`~.job_context.progress`."""
        report(context_of(self), done, total)

    @property
    def cancelled(self) -> bool:
        """Whether this job, which runs in this context, was asked to be cancelled; else False (CAN-2)."""
        context = context_of(self)
        return context is not None and context[1] in context[2].cancelled

    @property
    def timed_out(self) -> bool:
        """Whether the time limit of this job, which runs in this context, is over; else False."""
        context = context_of(self)
        return context is not None and context[1] in context[2].timed_out

    @property
    def orchestrator(self) -> "JobPublisher":
        """The orchestrator of the consumer whose handler runs, to publish further jobs.

        Raises:
            NotInHandler: no handler runs in this context; see :func:`current_job`.
        """
        publisher: JobPublisher = current_orchestrator()
        return publisher


class JobPublisher(Protocol):
    """What type checkers know of :attr:`Job.orchestrator`: the methods of an ``Orchestrator`` that publish.

    The domain doesn't know the class ``Orchestrator``. In a class of consumers, ``self.orchestrator`` has it.
    """

    def register(
        self, schema: SchemaLike, queue_type: QueueType | None = None, *, queue: str | None = None
    ) -> str:
        """Declare a queue for the jobs of ``schema``; see ``Orchestrator.register``."""

    @overload
    def publish(
        self,
        queue_name: JobSchema[InModelT, Any],
        job: InModelT | Job[InModelT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Any = None,
    ) -> str: ...
    @overload
    def publish(
        self,
        queue_name: str,
        job: Job[Any] | BaseModel | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Any = None,
    ) -> str: ...
    def publish(self, queue_name: Any, job: Any, **options: Any) -> str:
        """Publish one job; see ``Orchestrator.publish``."""

    @overload
    def publish_batch(
        self,
        queue_name: JobSchema[InModelT, Any],
        jobs: Iterable[InModelT | Job[InModelT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Any = None,
    ) -> Sequence[Any]: ...
    @overload
    def publish_batch(
        self,
        queue_name: str,
        jobs: Iterable[Job[Any] | BaseModel | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Any = None,
    ) -> Sequence[Any]: ...
    def publish_batch(self, queue_name: Any, jobs: Iterable[Any], **options: Any) -> Sequence[Any]:
        """Publish many jobs, and return a handle of each; see ``Orchestrator.publish_batch``."""


def current_job() -> Job[Any] | None:
    """Return the job whose handler runs in this context; None outside a handler, and in one of a batch.

    A thread that the handler starts shares the context if it is run by ``contextvars.copy_context().run`` or
    ``asyncio.to_thread``; tasks share it by themselves.
    """
    job: Job[Any] | None = running_job()
    return job


def _refuse_change(_job: object, name: str, _value: object = None) -> None:
    raise ImmutableJob(
        f"job.{name}: a job can't be changed; make another, as in dataclasses.replace(job, priority=5), or "
        "give publish() its priority and delay"
    )


# Put there afterwards: a frozen dataclass defines both itself, with a message that says less.
Job.__setattr__ = _refuse_change  # type: ignore[method-assign]
Job.__delattr__ = _refuse_change  # type: ignore[method-assign]

(
    _set_schema_name,
    _set_payload,
    _set_id,
    _set_priority,
    _set_created_at,
    _set_not_before,
    _set_expires_at,
    _set_attempt,
    _set_max_attempts,
    _set_timeout_s,
    _set_headers,
) = (getattr(Job, item.name).__set__ for item in fields(Job))


def job_of_checked(
    schema_name: str,
    payload: InT,
    id_: str,
    priority: int,
    created_at: datetime,
    not_before: datetime | None,
    expires_at: datetime | None,
    attempt: int,
    max_attempts: int | None,
    timeout_s: float | None = None,
) -> Job[InT]:
    """A job without headers, of values that are known to be in range: it costs a third of ``Job(...)``."""
    job: Job[InT] = object.__new__(Job)
    _set_schema_name(job, schema_name)
    _set_payload(job, payload)
    _set_id(job, id_)
    _set_priority(job, priority)
    _set_created_at(job, created_at)
    _set_not_before(job, not_before)
    _set_expires_at(job, expires_at)
    _set_attempt(job, attempt)
    _set_max_attempts(job, max_attempts)
    _set_timeout_s(job, timeout_s)
    _set_headers(job, NO_HEADERS)
    return job


def job_from_schema(
    schema: JobSchema[InModelT, Any],
    input_data: InModelT | Mapping[str, Any],
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    priority: int = 0,
    not_before: datetime | None = None,
    max_attempts: int | None = None,
    timeout_s: float | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Job[InModelT]:
    """Make a job of ``schema``, with its payload validated.

    Args:
        schema: The kind of job.
        input_data: An instance of the schema's input model, or a mapping that validates as one.
        id: The job's id; by default a new one. Set it if you may have to publish the job again (PUB-5).
        priority: 0 to 9; jobs with a higher priority run first.
        not_before: When the job is due; by default at once.
        max_attempts: How often this job runs at most, instead of the policy's ``max_attempts``.
        timeout_s: For how many seconds its handler may run, whatever its schema and its consumer say.
        headers: Strings that are stored with the job.

    Raises:
        InvalidInput: ``schema`` is no ``JobSchema``.
        InvalidPayload: ``input_data`` doesn't fit the schema's input model, or is a dict with an unknown key
            (PUB-6).
        InvalidName: the id breaks the rule for names.
        InvalidJob: another field is out of range.
    """
    if type(schema) is not JobSchema:
        schema = read_schema(schema, "job_from_schema")
    payload = validate_payload(schema, input_data)
    is_plain = id is None and not_before is None and max_attempts is None and timeout_s is None
    if is_plain and headers is NO_HEADERS:  # as most are
        check_int("priority", priority, 0, MAX_PRIORITY, InvalidJob)
        return job_of_checked(schema.name, payload, new_job_id(), priority, utcnow(), None, None, 1, None)
    return Job(
        schema_name=schema.name,
        payload=payload,
        id=new_job_id() if id is None else id,
        priority=priority,
        not_before=not_before,
        max_attempts=max_attempts,
        timeout_s=timeout_s,
        headers=headers,
    )


def _check_moment(what: str, moment: object) -> None:
    if type(moment) is datetime and moment.tzinfo is UTC and _EARLIEST.year <= moment.year < LATEST.year - 1:
        return  # what most are, and cheaper
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidJob(
            f"{what} {moment!r:.80}: must be a datetime with a time zone, as datetime.now(UTC) has one"
        )
    # Within a day of a datetime's ends, seconds can't be read back; the last microseconds before round up.
    if not (_EARLIEST <= moment < LATEST and moment.timestamp() < LATEST.timestamp()):
        raise InvalidJob(f"{what} {moment}: must be from {_EARLIEST:%Y} to {LATEST.year - 1}")


def _checked_headers(headers: object) -> Mapping[str, str]:
    if not isinstance(headers, Mapping) or len(headers) > MAX_HEADERS:
        raise InvalidJob(f"headers: must be a mapping of at most {MAX_HEADERS} strings to strings")
    for key, value in headers.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidJob(f"header {key!r:.80}: the name and the value must be strings")
        if len(key) > MAX_HEADER_CHARS or len(value) > MAX_HEADER_CHARS:
            raise InvalidJob(f"header {key[:40]!r}: longer than {MAX_HEADER_CHARS} characters")
        try:
            f"{key}{value}".encode()
        except UnicodeEncodeError:
            raise InvalidJob(
                f"header {key!r:.80}: the name or the value has a lone surrogate, which UTF-8 can't encode"
            ) from None
    return Headers(headers)
