"""Limits of how fast, and how many at once, jobs run over all workers, of a queue or of several."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import to_json

from .bounds import check_int, check_name, check_seconds
from .errors import InvalidInput, InvalidSchema
from .wording import quantity

WhenAway = Literal["wait", "run"]
"""What becomes of jobs while the store that counts them can't be reached: they wait, or run uncounted."""

MAX_COUNT = 1_000_000
"""The largest count of a rate, a burst or a limit."""
_LONGEST_TEXT = 160
"""A key's values are stored as they are up to this length; longer ones by their hash."""


class _ByFields:
    """What counts jobs by the values of fields of their input, or all together."""

    __slots__ = ()
    by: str | tuple[str, ...] | None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that jobs are told apart by; none if they are counted together."""
        if self.by is None:
            return ()
        return (self.by,) if isinstance(self.by, str) else self.by

    def key_of(self, payload: BaseModel) -> str:
        """Return what the jobs have in common that are counted together, as short printable text."""
        if not self.fields:
            return ""
        values = [_value_of(payload, name) for name in self.fields]
        return (_known_key if all(map(_is_short, values)) else _key)(*values)

    def _check_fields(self, what: str) -> None:
        names = self.by if isinstance(self.by, tuple) else (self.by,)
        if not names or not all(isinstance(name, str) and name for name in names if self.by is not None):
            raise InvalidInput(
                f"{what} by={self.by!r:.80}: pass the name of an input field, or a tuple of names"
            )
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise InvalidInput(f"{what} by={self.by!r:.80} has {twice[0]!r:.60} twice; name each field once")


@dataclass(frozen=True, slots=True)
class Rate(_ByFields):
    """How fast jobs of a queue start, over all workers: ``Rate(100, per_s=60)`` is 100 a minute.

    A job starts when it has a turn. Turns are spaced evenly: by ``per_s / count`` seconds. So no window of
    ``per_s`` seconds has more than ``count`` turns, wherever a provider begins its window. A job may start a
    little after its turn. With a ``burst``, so many may start at once after a pause, and such a window has up
    to ``count + burst - 1`` turns.

    Args:
        count: How many jobs start in ``per_s`` seconds, 1 or more.
        per_s: How many seconds that is, more than 0.
        burst: How many may start at once, 1 to ``count``.
        by: The field of the input, or several, that jobs are told apart by: ``by="tenant"`` has the jobs of
            each tenant start so fast. None counts all together.
        name: All rates of this name are one: the jobs of their queues share its turns. None counts the jobs
            of each queue by themselves.
        when_store_is_away: ``"wait"`` has jobs wait while the coordination store can't be reached; ``"run"``
            has them run without a rate.

    Raises:
        InvalidInput: a value is out of range, or ``by`` or ``when_store_is_away`` is none of these.
        InvalidName: the name isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
    """

    count: int
    _: KW_ONLY
    per_s: float
    burst: int = 1
    by: str | tuple[str, ...] | None = None
    name: str | None = None
    when_store_is_away: WhenAway = "wait"

    def __post_init__(self) -> None:
        check_int("rate count", self.count, 1, MAX_COUNT)
        if check_seconds("rate per_s", self.per_s, lowest="more than 0 and up to") == 0:
            raise InvalidInput("rate per_s 0: must be more than 0 seconds; leave rate out for no limit")
        check_int("rate burst", self.burst, 1, self.count)
        self._check_fields("rate")
        if self.name is not None:
            check_name("rate name", self.name)
        _check_when_away(self.when_store_is_away)

    @property
    def interval_s(self) -> float:
        """Seconds from one start to the next."""
        return self.per_s / self.count


@dataclass(frozen=True, slots=True)
class Limit(_ByFields):
    """How many jobs of a queue run at once, over all workers; by a field, so many for each of its values.

    Args:
        count: How many run at once, 1 or more.
        by: The field of the input, or several, that jobs are told apart by: ``by="camera"`` lets ``count``
            run for each camera. None lets ``count`` run of the whole queue.
        name: All limits of this name are one: the jobs of their queues share its places. None counts the jobs
            of each queue by themselves.
        when_store_is_away: ``"wait"`` has jobs wait while the coordination store can't be reached; ``"run"``
            has them run uncounted.

    Raises:
        InvalidInput: ``count`` is out of range, or ``by`` or ``when_store_is_away`` is none of these.
        InvalidName: the name isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
    """

    count: int
    _: KW_ONLY
    by: str | tuple[str, ...] | None = None
    name: str | None = None
    when_store_is_away: WhenAway = "wait"

    def __post_init__(self) -> None:
        check_int("limit count", self.count, 1, MAX_COUNT)
        self._check_fields("limit")
        if self.name is not None:
            check_name("limit name", self.name)
        _check_when_away(self.when_store_is_away)


def _value_of(payload: BaseModel, name: str) -> Any:
    """Return the value of a field; None if a model that may have any field lacks it."""
    fields = payload.__dict__  # not getattr: of an extra field such as "copy", that is the method
    if name in fields:
        return fields[name]
    extra = payload.__pydantic_extra__
    return None if extra is None else extra.get(name)


def _key(*values: Any) -> str:
    written = _written([_ordered(value) for value in values])
    text = written.decode("ascii", "replace")
    is_plain = len(text) <= _LONGEST_TEXT and text.isprintable() and "\ufffd" not in text
    has_secret = any(isinstance(value, Secret | SecretStr | SecretBytes) for value in values)
    return text if is_plain and not has_secret else hashlib.sha256(written).hexdigest()


def _is_short(value: Any) -> bool:
    """Whether its key may be remembered: it is short, and equal ones of its type are written the same."""
    kind = type(value)
    if kind is str:
        return len(value) <= _LONGEST_TEXT
    return kind is int or kind is float or kind is bool or value is None


_known_key = lru_cache(maxsize=1024, typed=True)(_key)


def _ordered(value: Any) -> Any:
    """Return what is the same for equal values: sets have another order in each process, and dicts any.

    0.0 equals -0.0.
    """
    if type(value) is float:
        return value + 0.0
    if isinstance(value, set | frozenset):
        return sorted(_written(_ordered(each)) for each in value)
    if isinstance(value, dict):
        return sorted((_written(key), _written(_ordered(each))) for key, each in value.items())
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    if isinstance(value, Secret | SecretStr | SecretBytes):  # which is written as asterisks
        return _ordered(value.get_secret_value())
    return value


def _written(value: Any) -> bytes:
    return to_json(value, bytes_mode="base64", fallback=repr)


def check_limits(schema: str, model: type[BaseModel], rate: object, limit: object) -> None:
    """Refuse what can't limit the jobs of a schema.

    Args:
        schema: The schema's name, for the message.
        model: The model of its input.
        rate: What was given as its rate.
        limit: What was given as its limit.

    Raises:
        InvalidSchema: ``rate`` is no ``Rate``, or ``limit`` no ``Limit``; or it is by a field that the input
            doesn't have.
    """
    if rate is not None and not isinstance(rate, Rate):
        raise InvalidSchema(
            f"schema {schema!r}: rate must be a Rate, such as Rate(100, per_s=60), got {rate!r:.80}"
        )
    if limit is not None and not isinstance(limit, Limit):
        raise InvalidSchema(
            f'schema {schema!r}: concurrency_limit must be a Limit, such as Limit(4, by="camera"), '
            f"got {limit!r:.80}"
        )
    if rate is not None:
        _check_known(f"schema {schema!r}: rate", model, rate.fields)
    if limit is not None:
        _check_known(f"schema {schema!r}: concurrency_limit", model, limit.fields)


def _check_known(what: str, model: type[BaseModel], names: tuple[str, ...]) -> None:
    if model.model_config.get("extra") == "allow":  # it may have any field
        return
    fields: Mapping[str, Any] = model.model_fields
    unknown = [name for name in names if name not in fields]
    if unknown:
        has = ", ".join(map(repr, fields)) or "none"
        raise InvalidSchema(
            f"{what} is by {unknown[0]!r:.80}, which {model.__name__} doesn't have; its fields: {has}"
        )


def contradiction(one: Rate | Limit | None, other: Rate | Limit | None) -> str | None:
    """Say how two limits of one name differ in what they allow; None if they don't, or aren't one limit.

    Their fields may have other names, as it is the values that are counted together.
    """
    if one is None or other is None or one.name is None or one.name != other.name:
        return None
    kind, shown, others = type(one).__name__, _allowed(one), _allowed(other)
    return None if shown == others else f"{kind} {one.name!r} is {shown} here, and {others}"


def _allowed(limit: Rate | Limit) -> str:
    shown = str(limit.count)
    if isinstance(limit, Rate):
        shown += f" per {limit.per_s:g} s with a burst of {limit.burst}"
    return f"{shown} for each value of {quantity(len(limit.fields), 'field')}" if limit.fields else shown


def _check_when_away(value: object) -> None:
    if value not in get_args(WhenAway):
        raise InvalidInput(f'when_store_is_away {value!r:.80}: must be "wait" or "run"')
