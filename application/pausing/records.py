"""The records of pauses, one for each queue that is paused."""

import os
import socket
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic_core import from_json, to_json

from ...ports import ABSENT, CoordinationStore, Record

_PREFIX = "pauses/"
MAX_REASON_CHARS = 1024


class Pause(NamedTuple):
    """Why a queue gives out no jobs, and since when."""

    since: datetime
    """By the store's clock, in UTC."""
    reason: str | None
    """Why, as the last call of ``pause`` that gave a reason said."""
    by: str
    """The host and the process that paused it."""

    def __str__(self) -> str:
        reason = "" if self.reason is None else f": {self.reason}"
        return f"paused since {self.since:%Y-%m-%d %H:%M:%S} UTC by {self.by}{reason}"


def key_of(queue: str) -> str:
    """Return the key of a queue's record."""
    return _PREFIX + queue


def write_pause(store: CoordinationStore, queue: str, reason: str | None) -> Pause:
    """Pause a queue, and return its pause; of one that is paused, replace the reason if one is given."""
    key = key_of(queue)
    while True:
        record = store.get([key]).get(key)
        if record is None:
            fields = {"since": store.now(), "reason": reason, "by": f"{socket.gethostname()}/{os.getpid()}"}
        elif reason is None:
            return _decode(record.value)
        else:
            fields = from_json(record.value) | {"reason": reason}
        value = to_json(fields)
        if store.put(key, value, expected=ABSENT if record is None else record.version) is not None:
            return _decode(value)


def delete_pause(store: CoordinationStore, queue: str) -> bool:
    """Resume a queue, and return whether it was paused."""
    return store.delete(key_of(queue))


def read_pauses(store: CoordinationStore, queues: list[str]) -> dict[str, Pause]:
    """Return the pauses of those of these queues that are paused, in one round trip."""
    records = store.get([key_of(queue) for queue in queues]) if queues else {}
    return pauses_among(records)


def pauses_among(records: dict[str, Record]) -> dict[str, Pause]:
    """Return the pauses among some records, by the names of their queues."""
    return {
        key.removeprefix(_PREFIX): _decode(record.value)
        for key, record in records.items()
        if key.startswith(_PREFIX)
    }


def _decode(value: bytes) -> Pause:
    fields = from_json(value)
    return Pause(datetime.fromtimestamp(fields["since"], UTC), fields["reason"], fields["by"])
