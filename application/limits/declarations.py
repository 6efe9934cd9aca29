"""The records of what the code declares as limits: those who have no code can see them."""

from collections.abc import Iterable
from logging import Logger
from time import monotonic
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from ...domain.errors import JobsError
from ...domain.limits import Limit, Rate
from ...ports import CoordinationStore
from .changes import LimitKind, kind_of
from .in_force import InForce

_PREFIX = "declared-limits/"
_KEPT_S = 7 * 86_400.0
"""For how long a declaration is kept that nobody writes again: no consumer of its queue has run since."""
_RENEWED_AFTER_S = 86_400.0


class Declaration(NamedTuple):
    """What the consumers of a queue declare as its limit, or as its rate."""

    queue: str
    limit: Limit | Rate


class Declarations:
    """Writes the declarations of consumers that run, each once a day.

    Args:
        store: Where they are kept.
        logger: Where it is told that they couldn't be written; nothing but a list of limits needs them.
    """

    def __init__(self, store: CoordinationStore, logger: Logger) -> None:
        self._store = store
        self._logger = logger
        self._written_s: dict[str, tuple[bytes, float]] = {}
        """What was written under each key, and when."""

    def renew(self, limits: Iterable[InForce[Any]]) -> None:
        """Write those that aren't written, or were so a day ago."""
        for limit in limits:
            key, value = _key(limit.queue, kind_of(limit.declared)), _encode(limit.declared)
            written, at_s = self._written_s.get(key, (b"", 0.0))
            if written == value and monotonic() - at_s < _RENEWED_AFTER_S:
                continue
            try:
                self._store.put(key, value, ttl_s=_KEPT_S)
            except JobsError as error:
                self._logger.debug("the limit of queue %s isn't written: %s", limit.queue, error)
                return
            self._written_s[key] = value, monotonic()


def read_declarations(store: CoordinationStore) -> list[Declaration]:
    """Return the declarations of all queues of the namespace, in one request; a damaged one isn't there."""
    found = []
    for key, record in store.scan(_PREFIX).items():
        queue, _, kind = key.removeprefix(_PREFIX).partition("/")
        limit = _decode(kind, record.value)
        if limit is not None:
            found.append(Declaration(queue, limit))
    return found


def delete_declarations(store: CoordinationStore, queue: str) -> None:
    """Forget those of a queue that is deleted."""
    store.delete(_key(queue, "limit"))
    store.delete(_key(queue, "rate"))


def _key(queue: str, kind: LimitKind) -> str:
    return f"{_PREFIX}{queue}/{kind}"


def _encode(limit: Limit | Rate) -> bytes:
    terms = {"count": limit.count, "by": limit.fields, "name": limit.name}
    return to_json(terms | ({"per_s": limit.per_s, "burst": limit.burst} if isinstance(limit, Rate) else {}))


def _decode(kind: str, value: bytes) -> Limit | Rate | None:
    try:
        fields = from_json(value)
        count, by, name = fields["count"], tuple(fields["by"]) or None, fields["name"]
        if kind == "rate":
            return Rate(count, per_s=fields["per_s"], burst=fields["burst"], by=by, name=name)
        return Limit(count, by=by, name=name)
    except (ValueError, TypeError, KeyError):  # InvalidInput is a ValueError
        return None
