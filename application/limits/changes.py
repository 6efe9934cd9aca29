"""The records of changes of limits, one for each limit or rate that allows something else than declared."""

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

from pydantic_core import from_json, to_json

from ...domain.limits import Limit, Rate
from ...ports import CoordinationStore, Record

LimitKind = Literal["limit", "rate"]
_PREFIX = "changed-limits/"


def rate_terms(count: int, per_s: float, burst: int) -> str:
    """Say how fast jobs may start."""
    return f"{count} per {per_s:g} s" + ("" if burst == 1 else f", {burst} at once")


@dataclass(frozen=True, slots=True)
class LimitChange:
    """What a limit, or a rate, was changed to while programs run; see :meth:`Orchestrator.change_limit`."""

    count: int
    """How many run at once; of a rate, how many start in ``per_s`` seconds."""
    per_s: float | None
    """How many seconds that is; None of a limit."""
    burst: int | None
    """How many may start at once; None of a limit."""
    since: datetime
    """By the store's clock, in UTC."""
    by: str
    """The host and the process that changed it."""

    @property
    def terms(self) -> str:
        """What is allowed, in words."""
        return str(self.count) if self.per_s is None else rate_terms(self.count, self.per_s, self.burst or 1)

    def __str__(self) -> str:
        return f"changed to {self.terms} since {self.since:%Y-%m-%d %H:%M:%S} UTC by {self.by}"


def kind_of(limit: Limit | Rate) -> LimitKind:
    """Return what a limit is called in records."""
    return "rate" if isinstance(limit, Rate) else "limit"


class LimitIdentity(NamedTuple):
    """Which limit it is: all queues whose limits have one name share it."""

    kind: LimitKind
    name: str
    """The limit's name; that of its queue if it has none."""
    is_named: bool
    """Whether it has a name of its own."""

    @property
    def key(self) -> str:
        """The key of the record that changes it. No queue has an empty name."""
        return f"{_PREFIX}{self.kind}/{'/' * self.is_named}{self.name}"


def identity(queue: str, limit: Limit | Rate) -> LimitIdentity:
    """Return which limit the jobs of a queue have."""
    named = limit.name is not None
    return LimitIdentity(kind_of(limit), queue if limit.name is None else limit.name, named)


def write_change(
    store: CoordinationStore, limit: LimitIdentity, count: int, per_s: float | None, burst: int | None
) -> LimitChange:
    """Change a limit, and return the change."""
    by = f"{socket.gethostname()}/{os.getpid()}"
    change = LimitChange(count, per_s, burst, datetime.fromtimestamp(store.now(), UTC), by)
    store.put(limit.key, to_json(asdict(change) | {"since": change.since.timestamp()}))
    return change


def delete_change(store: CoordinationStore, limit: LimitIdentity) -> bool:
    """Allow again what the code declares, and return whether something else was allowed."""
    return store.delete(limit.key)


def delete_changes_of_queue(store: CoordinationStore, queue: str) -> None:
    """Forget the changes of a queue's limits that have no name: the queue is deleted."""
    for kind in get_args(LimitKind):
        store.delete(LimitIdentity(kind, queue, False).key)


def all_changes(store: CoordinationStore) -> dict[str, LimitChange]:
    """Return all changes of the namespace by their keys, in one request."""
    return changes_among(store.scan(_PREFIX))


def changes_among(records: Mapping[str, Record]) -> dict[str, LimitChange]:
    """Return the changes among these records by their keys; a damaged one changes nothing."""
    found = ((key, _decode(each.value)) for key, each in records.items() if key.startswith(_PREFIX))
    return {key: change for key, change in found if change is not None}


def identity_of(key: str) -> "LimitIdentity | None":
    """Return whose change is kept under a key; None if it is none of this release's."""
    kind, _, rest = key.removeprefix(_PREFIX).partition("/")
    if kind not in get_args(LimitKind) or not rest:
        return None
    known: LimitKind = "rate" if kind == "rate" else "limit"
    return LimitIdentity(known, rest.removeprefix("/"), rest.startswith("/"))


def _decode(value: bytes) -> LimitChange | None:
    try:
        fields = from_json(value)
        count, per_s, burst = int(fields["count"]), fields["per_s"], fields["burst"]
        since = datetime.fromtimestamp(fields["since"], UTC)
        return LimitChange(
            count,
            None if per_s is None else float(per_s),
            None if burst is None else int(burst),
            since,
            str(fields["by"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None
