"""Telling consumers that some running job of their queue is to be cancelled, so that they ask which at once.

The record of a queue says no more than that. Who looks for pauses reads it in the same round trip.
"""

from ...ports import CoordinationStore, Record

_PREFIX = "cancels/"
_KEPT_S = 60.0
"""For how long an announcement is kept; a consumer that doesn't look by then extends its leases sooner."""


def key_of(queue: str) -> str:
    """Return the key of a queue's record."""
    return _PREFIX + queue


def announce(store: CoordinationStore, queue: str, *, kept_s: float = _KEPT_S) -> None:
    """Have the consumers of a queue ask which of their jobs are to be cancelled.

    Args:
        store: Where to say so.
        queue: The queue's name.
        kept_s: For how many seconds to say so.
    """
    store.put(key_of(queue), b"1", ttl_s=kept_s)


def versions_of(records: dict[str, Record]) -> dict[str, int]:
    """Return the versions of the announcements among some records, by queue."""
    return {
        key.removeprefix(_PREFIX): record.version
        for key, record in records.items()
        if key.startswith(_PREFIX)
    }
