"""The keys of jobs: what those have in common that a limit or a rate counts together."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

from ...domain import JobSchema
from ...domain.envelope import read_payloads
from ...domain.limits import Limit, Rate
from ...ports import Delivery
from ..process.graceful_stop import raised_by_signal

_LONGEST_FIELDS = 64
"""Longer names of fields stand in keys as their hash: a key has 512 characters at most."""
_REMEMBERED = 1024
"""Of how many values the key is remembered, for each type."""
_LONGEST_REMEMBERED = 160
"""The longest text of which it is."""


class Keys:
    """Finds the keys of jobs.

    Args:
        prefix: What the key of each job begins with; see :func:`prefix_of`.
        schema: What the jobs are.
        limit: By which fields they are told apart.
        max_body_bytes: The largest body that is looked at.
    """

    def __init__(
        self, prefix: str, schema: JobSchema[Any, Any], limit: Limit | Rate, *, max_body_bytes: int
    ) -> None:
        self._prefix = prefix
        self._limit = limit
        self._schema = schema
        self._max_body_bytes = max_body_bytes
        self._field = limit.fields[0] if len(limit.fields) == 1 else None
        self._remembered: dict[type, dict[Any, str]] = {str: {}, int: {}, float: {}}
        self.are_one = not limit.fields
        """Whether all jobs have the same."""

    def of(self, deliveries: Sequence[Delivery]) -> list[str | None]:
        """Return the key of each job; None for a body that is no job, and which no handler gets."""
        if self.are_one:
            return [self._prefix] * len(deliveries)
        field, remembered, make = self._field, self._remembered, self._make
        keys: list[str | None] = []
        bodies = [delivery.body for delivery in deliveries]
        for payload in read_payloads(
            bodies, self._schema, max_bytes=self._max_body_bytes, check_error=_raise_if_to_stop
        ):
            value = None if payload is None else payload.__dict__.get(field)
            known = remembered.get(type(value))
            key = None if known is None else known.get(value)
            keys.append(make(payload, value) if key is None else key)
        return keys

    def _make(self, payload: BaseModel | None, value: Any) -> str | None:
        """Return the key of a payload, and remember it as that of a value which many jobs may have."""
        if payload is None:
            return None
        try:
            key = self._prefix + self._limit.key_of(payload)
        except BaseException as error:  # what the user's model wrote raises as it is written
            _raise_if_to_stop(error)
            return None
        known = self._remembered.get(type(value))
        is_short = type(value) is not str or len(value) <= _LONGEST_REMEMBERED
        if known is not None and is_short and len(known) < _REMEMBERED:
            known[value] = key
        return key


def prefix_of(queue: str, limit: Limit | Rate) -> str:
    """Return what the keys of a limit begin with in the coordination store.

    A rate of other intervals counts by itself, or its turns, which may be days away, had to pass first.
    """
    kind = f"rates/{limit.interval_s:.6f}" if isinstance(limit, Rate) else "limits"
    if limit.name is not None:  # no queue has an empty name; fields may have another name in each schema
        return f"{kind}//{limit.name}/"
    fields = ",".join(limit.fields)
    if len(fields) > _LONGEST_FIELDS:
        fields = sha256(fields.encode()).hexdigest()
    return f"{kind}/{queue}/{fields}/"


def _raise_if_to_stop(error: BaseException) -> None:
    if raised_by_signal(error):
        raise error
