"""Reports from the server: which watch of a store is next in line for a place of a limit (CRD-7)."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from ...ports import PlaceWatch
from ..shared.place_watches import PlaceWatches
from .keys import CoordinationKeys
from .transport import RetryingConnection

_KEPT_MS = "60000"
"""How long a stream of reports lasts after the last of them."""


class PlaceReports:
    """Reads a stream that ``take_places.lua`` writes to, on a thread that the first watch starts.

    An entry stays in the stream until long after it was read, so none is missed between two reads. After an
    outage the stream may be gone, and all watches are told that reports may be.

    Args:
        redis: The connection to the server.
        keys: The keys of the store.
        sweep_s: How long one read waits at most.
    """

    def __init__(self, redis: RetryingConnection, keys: CoordinationKeys, sweep_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._sweep_s = sweep_s
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._watches = PlaceWatches()
        self._thread: threading.Thread | None = None

    def watch(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        """Tell of places from now on."""
        with self._lock:
            if self._pid != os.getpid():  # a parent process keeps what it opened
                self._begin()
            watch = self._watches.add(tell)
            thread = self._new_thread()
        if thread is not None:
            thread.start()  # without the lock: a signal handler that runs meanwhile may need it
        return watch

    def _new_thread(self) -> threading.Thread | None:
        """Return a thread that is yet to be started; None if there is one."""
        if self._thread is not None:
            return None
        self._thread = threading.Thread(
            target=self._read, args=(self._closed,), name="mindtrace-jobs-places", daemon=True
        )
        return self._thread

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closed.set()
            self._watches.clear()
            if self._thread is None or self._pid != os.getpid():
                return
            stream = self._keys.reports(self._watches.token)
            with suppress(Exception):  # the thread ends after its present read, whatever fails here
                self._redis.command("XADD", stream, "MAXLEN", "1", "*", "end", "1", retry_timeout_s=0.0)
                self._redis.command("PEXPIRE", stream, _KEPT_MS, retry_timeout_s=0.0)

    def _read(self, closed: threading.Event) -> None:
        watches = self._watches
        stream, last = self._keys.reports(watches.token), "0-0"
        while not closed.is_set() and self._redis.is_open:
            entries = self._redis.listen(stream, last, self._sweep_s)
            if entries is None:
                last = "0-0"  # a successor may count by another clock
                watches.tell_of_missed()
                continue
            for id_, fields in entries:
                last = id_.decode()
                for number, line in _pairs(fields):
                    watches.tell(number, self._keys.key_of_line(line))


def _pairs(fields: list[bytes]) -> Iterator[tuple[str, str]]:
    return ((name.decode(), value.decode()) for name, value in zip(fields[::2], fields[1::2], strict=True))
