"""A job as an AMQP message, and back.

A job that nothing happened to is its body and its id. What happened to it since travels in one header, as
JSON: the broker counts deliveries, but can't tell a release from a crash, and counts from 0 after a retry.
"""

import json
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple

from ...domain import QueueKind
from ...domain.bounds import MAX_FAILURE_CHARS, MAX_PRIORITY, truncate_error
from ...domain.dead_reasons import DeadReason
from ...ports import DeadLetter, Failure
from ..shared.records import MAX_HISTORY
from .topology import fresh_rank, priority_of, returned_rank
from .transport.frames import Properties
from .transport.tables import read_array, read_table

HEADER = "mindtrace-job"
_OTHER_BYTES = 1536
"""What a header frame has room for beside our header: the longest id, the way of a delayed job, the rest."""
_RULES = {
    "expired": "it waited for longer than the message-ttl of a policy",
    "maxlen": "its queue was longer than the max-length of a policy",
    "delivery_limit": "it came back more often than the delivery-limit of a policy",
}
"""Why RabbitMQ takes a message out of a queue, by its own word for that."""
_UNNAMED = "unnamed"
_LONGEST_ID = 255
"""In bytes, or no broker would take it again."""
_MOST = 2**31
"""More deliveries than any job has."""
_LAST_MS = 253_402_300_799_000
"""When the year 9999 ends."""


class DeliveryHistory(NamedTuple):
    """What happened to a job so far."""

    attempt: int = 1
    number: int = 0
    """How often it was delivered."""
    crashes: int = 0
    failures: tuple[tuple[int, str], ...] = ()
    """Its failed attempts, with their errors; the last ones."""

    def delivered(self) -> "DeliveryHistory":
        """The same with one more delivery."""
        return _DELIVERED_ONCE if self is _NEW else self._replace(number=self.number + 1)

    def failed(self, error: str) -> "DeliveryHistory":
        """The same after its present attempt failed."""
        failures = (*self.failures, (self.attempt, truncate_error(error, MAX_FAILURE_CHARS)))
        return self._replace(attempt=self.attempt + 1, failures=failures[-MAX_HISTORY:])


class DeathRecord(NamedTuple):
    """What a dead letter has besides."""

    reason: str
    error: str
    died_ms: int
    priority: int
    """The job's; as the message's own it would let letters overtake each other."""


def fresh_properties(job_id: str, priority: int) -> Properties:
    """The properties of a job that is published; only queues for priorities take one above 0."""
    rank = fresh_rank(QueueKind.PRIORITY, priority) if priority else None
    return Properties(job_id, rank)


def moved_properties(
    job_id: str,
    kind: QueueKind,
    priority: int,
    history: DeliveryHistory,
    *,
    frame_max: int,
    returned: bool = False,
) -> Properties:
    """The properties of a job that is put back: at the end, or before the others.

    Args:
        job_id: The job's.
        kind: Of the queue.
        priority: The job's.
        history: The job's, with errors cut to what a frame has room for.
        frame_max: The longest frame that the server takes, in bytes.
        returned: Whether it goes before the others.
    """
    place = returned_rank if returned else fresh_rank
    return Properties(job_id, place(kind, priority), {HEADER: _encoded(history, None, frame_max)})


def dead_properties(
    job_id: str,
    history: DeliveryHistory,
    death: DeathRecord,
    *,
    frame_max: int,
    ttl_s: float | None = None,
) -> Properties:
    """The properties of a dead letter.

    Args:
        job_id: The job's.
        history: The job's.
        death: How it died; all errors are cut to what a frame has room for.
        frame_max: The longest frame that the server takes, in bytes.
        ttl_s: For how many seconds the letter is kept; None is for ever.
    """
    ttl_ms = None if ttl_s is None else max(1, ceil(ttl_s * 1000))
    return Properties(job_id, headers={HEADER: _encoded(history, death, frame_max)}, ttl_ms=ttl_ms)


def described(fault: str) -> str:
    """The error of a message whose properties can't be read."""
    return f"its AMQP properties can't be read: {fault}"


def id_of(properties: Properties) -> str:
    """The job's id; of a message that somebody else put there, whatever may stand for it."""
    name = properties.message_id
    if isinstance(name, bytes):  # what isn't UTF-8
        name = name.decode("ascii", "backslashreplace")[:_LONGEST_ID]
    return name or _UNNAMED


def history_of(properties: Properties) -> DeliveryHistory:
    """The history of a delivered job, this delivery apart."""
    headers = properties.headers
    if not headers:
        return _NEW
    history = _decoded(headers)[0] if HEADER in headers else _NEW
    # What is counted here came back by itself: whoever gives a job back on purpose publishes it anew.
    crashes = headers.get("x-delivery-count", 0)
    if not isinstance(crashes, int) or not 0 < crashes < _MOST:  # pika has a subclass for some
        return history
    return history._replace(number=history.number + crashes, crashes=history.crashes + crashes)


def revived_properties(properties: Properties, kind: QueueKind) -> Properties:
    """The properties of a dead letter's job that begins anew (DLQ-2)."""
    _, death = _decoded(properties.headers or {})
    priority = priority_of(kind, properties.priority) if death is None else death.priority
    return Properties(id_of(properties), fresh_rank(kind, priority))


def dead_letter(properties: Properties, body: bytes) -> DeadLetter:
    """A dead letter as the port has it."""
    history, death = _decoded(properties.headers or {})
    if death is None:
        death = _unrecorded_death(properties)
    return DeadLetter(
        id=id_of(properties),
        body=body,
        reason=str(death.reason),
        error=death.error,
        attempt=history.attempt,
        crashes=history.crashes,
        died_at=datetime.fromtimestamp(death.died_ms / 1000, UTC),
        history=tuple(Failure(attempt, error) for attempt, error in history.failures),
    )


_NEW = DeliveryHistory()
_DELIVERED_ONCE = DeliveryHistory(number=1)


def _encoded(history: DeliveryHistory, death: DeathRecord | None, frame_max: int) -> bytes:
    """As JSON; if a frame has no room for it, with each error cut to the same length."""
    longest = MAX_FAILURE_CHARS
    encoded = _as_json(history, death, longest)
    while len(encoded) > frame_max - _OTHER_BYTES and longest > 2:
        longest //= 2
        encoded = _as_json(history, death, longest)
    return encoded


def _as_json(history: DeliveryHistory, death: DeathRecord | None, longest: int) -> bytes:
    failures = [(attempt, truncate_error(error, longest)) for attempt, error in history.failures]
    fields = [history.attempt, history.number, history.crashes, failures]
    if death is not None:
        reason, error = (truncate_error(text, longest) for text in (death.reason, death.error))
        fields += [reason, error, death.died_ms, death.priority]
    return json.dumps(fields, ensure_ascii=False).encode()


def _decoded(headers: dict[str, Any]) -> tuple[DeliveryHistory, DeathRecord | None]:
    """What :func:`_encoded` wrote; of a message that isn't ours, nothing."""
    try:
        attempt, number, crashes, failed, *death = json.loads(headers[HEADER])
        failures = tuple((_whole(n, 1), _bounded(error)) for n, error in failed[-MAX_HISTORY:])
        history = DeliveryHistory(_whole(attempt, 1), _whole(number), _whole(crashes), failures)
        if not death:
            return history, None
        reason, error, died_ms, priority = death
        ended = DeathRecord(
            truncate_error(str(reason)),
            _bounded(error),
            _whole(died_ms, most=_LAST_MS),
            _whole(priority, most=MAX_PRIORITY),
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        return _NEW, None
    return history, ended


def _unrecorded_death(properties: Properties) -> DeathRecord:
    """How a message died that no consumer of ours gave up: the broker did, or somebody else put it there."""
    headers = properties.headers or {}
    if properties.fault:
        return DeathRecord(DeadReason.MALFORMED, described(properties.fault), 0, 0)
    if not isinstance(rule := headers.get("x-last-death-reason"), str):
        return DeathRecord(DeadReason.MALFORMED, "no dead letter of ours: somebody else put it there", 0, 0)
    why = _RULES.get(rule, rule)
    error = f"RabbitMQ took it out of {headers.get('x-last-death-queue')!r:.300}: {why:.80}"
    return DeathRecord(DeadReason.REMOVED, error, _removed_ms(headers), 0)


def _removed_ms(headers: dict[str, Any]) -> int:
    """When RabbitMQ took a message out of a queue; 0 if it doesn't say so."""
    try:
        latest = read_array(headers["x-death"].data)[0]
        return _whole(read_table(latest.data)["time"], most=_LAST_MS // 1000) * 1000
    except (KeyError, IndexError, AttributeError, TypeError, ValueError):
        return 0


def _bounded(error: object) -> str:
    return truncate_error(str(error), MAX_FAILURE_CHARS)


def _whole(value: object, least: int = 0, most: int = _MOST) -> int:
    if type(value) is int and least <= value <= most:
        return value
    raise ValueError
