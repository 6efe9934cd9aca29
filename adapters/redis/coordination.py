"""The coordination store in Redis: records, places and rates, each call in one script."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from struct import Struct
from typing import Any

from ...domain.bounds import check_name
from ...ports import CoordinationStore, KeyCount, Place, PlaceCount, PlaceWatch, Record, Reservation
from ..shared.chunks import in_chunks
from ..shared.error_messages import client_closed
from ..shared.server_settings import Password
from ..shared.turns import whole_microseconds
from .ended_jobs import look_up
from .keys import CoordinationKeys
from .place_reports import PlaceReports
from .requests import CHUNK_BYTES, CHUNK_JOBS, Senders
from .scripts import (
    COUNT_PLACES,
    DELETE_RECORD,
    GET_RECORDS,
    PUT_RECORD,
    RESERVE,
    SCAN_RECORDS,
    TAKE_PLACES,
    Script,
)
from .settings import ServerSettings, parsed_url
from .transport import Argument, RetryingConnection

_HEAD = Struct(">dd")
"""How a packed record begins: its version, and when its time is over."""
_SWEEP_S = 5.0
"""How long a wait for a report of a place lasts at most, where the store has a connection of its own."""
_LONGEST_S = 3e9
"""About a hundred years: more is cut to this, so that the server counts in microseconds without a loss."""


class SharedCoordinationStore(CoordinationStore):
    """The coordination store of a namespace, over a connection that belongs to somebody else.

    A write whose reply was lost is sent again under its number, so that it takes effect once (CRD-2). If the
    server doesn't answer in time, it raises BackendUnavailable.

    Args:
        redis: The connection to the server.
        namespace: Stores of the same namespace share their records, places and rates.
        sweep_s: How long one wait for a report of a place lasts at most.
    """

    def __init__(self, redis: RetryingConnection, namespace: str, sweep_s: float) -> None:
        super().__init__()
        self.keys = CoordinationKeys(namespace)
        self._redis = redis
        self._reports = PlaceReports(redis, self.keys, sweep_s)
        self.senders = Senders(redis, self.keys.last)
        self._closed = False

    def now(self) -> float:
        self._check_open()
        with self._redis.outages():
            seconds, micros = self._redis.command("TIME")
        return float(seconds + micros / 1e6)

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return {key: _record(packed) for key, packed in look_up(self._read, GET_RECORDS, keys)}

    def scan(self, prefix: str) -> dict[str, Record]:
        start, end = f"[{prefix}".encode(), b"(%b\xff" % prefix.encode()  # no key has this byte, in UTF-8
        found: dict[str, Record] = {}
        while True:
            behind, *page = self._read(SCAN_RECORDS, [start, end, str(CHUNK_JOBS), str(CHUNK_BYTES)])
            for key, packed in zip(page[::2], page[1::2], strict=True):
                found[key.decode()] = _record(packed)
            if not behind:
                return found
            start = b"(" + behind

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        arguments: list[Argument] = [key, _expected(expected), value, duration_us(ttl_s)]
        version: bytes = self._write(PUT_RECORD, self.keys.of(PUT_RECORD), arguments)
        return int(version) if version else None

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        arguments = [key, _expected(expected)]
        return bool(self._write(DELETE_RECORD, self.keys.of(DELETE_RECORD), arguments))

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        times = [duration_us(ttl_s), duration_us(ttl_s if waits_s is None else waits_s)]
        answers, left = b"", len(leaving)
        for chunk in in_chunks([*leaving, *places], CHUNK_JOBS):
            of_these = min(left, len(chunk))
            arguments: list[Argument] = [*times, self.keys.reports(""), str(of_these), *_packed(chunk)]
            answers += self._write(TAKE_PLACES, self._keys_of(chunk), arguments)
            left -= of_these
        return [letter == ord("1") for letter in answers]

    def leave_places(self, places: Sequence[Place]) -> None:
        self.take_places((), ttl_s=0.0, leaving=places)

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        names = [self.keys.line(""), self.keys.line_ends("")]
        return list(map(_place_count, self._read(COUNT_PLACES, [str(busiest), *names, *prefixes])))

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        self._check_open()
        return self._reports.watch(tell)

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        counts = {key: count}
        return self.reserve_each(counts, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)[key]

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        interval_us = whole_microseconds(interval_s)
        shared = [str(each) for each in (interval_us, (burst - 1) * interval_us, floor(_in_us(max_wait_s)))]
        reserved: dict[str, Reservation] = {}
        for chunk in in_chunks(counts.items(), CHUNK_JOBS):
            keys = [self.keys.rate(key) for key, _ in chunk]
            answer: bytes = self._write(RESERVE, keys, [*shared, *(str(count) for _, count in chunk)])
            numbers = list(map(int, answer.split()))
            for (key, count), turns, first_us in zip(chunk, numbers[::2], numbers[1::2], strict=True):
                reserved[key] = _reservation(turns, first_us, count, interval_us)
        return reserved

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reports.close()
            self.senders.end()

    def _keys_of(self, places: Sequence[Place]) -> list[str]:
        return [self.keys.lines, *(name for place in places for name in self.keys.places(place.key))]

    def _read(self, script: Script, arguments: Sequence[Argument]) -> Any:
        self._check_open()
        with self._redis.outages():
            return self._redis.run(script, self.keys.of(script), arguments)

    def _write(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        self._check_open()
        with self._redis.outages():
            return self.senders.run(script, keys, arguments)

    def _check_open(self) -> None:
        if self._closed:
            raise client_closed("RedisCoordinationStore")


def _reservation(turns: int, first_us: int, count: int, interval_us: int) -> Reservation:
    turns_s = [max(0, first_us + turn * interval_us) / 1e6 for turn in range(turns + 1)]
    retry_s = turns_s.pop()
    return Reservation(turns_s, 0.0 if turns >= count else retry_s)


class RedisCoordinationStore(SharedCoordinationStore):
    """A coordination store in a Redis server, version 7 or newer, for a broker that has none.

    Several clients may have it as their ``store``, and none closes it: close it after them. It connects when
    it is first used, and reconnects by itself; a process that was forked uses connections of its own. The
    store of a :class:`RedisClient` is its ``coordination``.

    Args:
        host: The server's host name.
        port: Its port.
        db: The number of its database.
        username: Whom to connect as; needs a password.
        password: The password; shown nowhere.
        namespace: Stores of the same namespace share their records, places and rates.
        ssl: Encrypt the connection, and verify the server's certificate.
        ssl_ca_certs: A file of certificates to verify it against; the system's by default.
        sentinels: Host and port of each Sentinel that is to say where the server is; in place of ``host``.
        sentinel_service: What the Sentinels call the server.
        sentinel_password: The Sentinels' own password, where they have one; shown nowhere.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails. It is short, as
            workers wait for it as well.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        *,
        username: str | None = None,
        password: Password = None,
        namespace: str = "default",
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        sentinels: Sequence[tuple[str, int]] = (),
        sentinel_service: str = "mymaster",
        sentinel_password: Password = None,
        retry_timeout_s: float = 2.0,
    ) -> None:
        who = (username, password, ssl, ssl_ca_certs)
        server = ServerSettings(host, port, db, *who, sentinels, sentinel_service, sentinel_password)
        self._server = server
        self._namespace = check_name("namespace", namespace)
        self._client_name = f"mindtrace-jobs-coordination-{secrets.token_hex(4)}"
        redis = server.connect(
            "RedisCoordinationStore",
            self._client_name,
            sweep_s=_SWEEP_S,
            retry_timeout_s=retry_timeout_s,
            logger=type(self).logger,
        )
        super().__init__(redis, namespace, _SWEEP_S)

    @classmethod
    def from_url(cls, url: str) -> "RedisCoordinationStore":
        """Make a store from a URL, as :meth:`RedisClient.from_url` makes a client.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        return cls(**parsed_url(url))

    def make_url(self, *, with_passwords: bool = False) -> str:
        """Return the URL of this store for another process, as :meth:`OrchestratorBackend.make_url` does.

        Raises:
            UnsupportedCapability: no URL leads there.
        """
        return self._server.url(self._namespace, with_passwords=with_passwords)

    def close(self) -> None:
        self._redis.start_closing()
        super().close()
        self._redis.close()


def duration_us(ttl_s: float | None) -> str:
    """Return for how long to keep a record, as the scripts take it."""
    return "" if ttl_s is None else str(ceil(_in_us(ttl_s)))


def _in_us(seconds: float) -> float:
    """Return microseconds, without the error of a float: by itself, 2.01 s would be 2,009,999.9999999998."""
    return round(min(seconds, _LONGEST_S) * 1e6, 3)


def _packed(places: Sequence[Place]) -> list[Argument]:
    return [each for _, limit, holder, watch in places for each in (str(limit), holder, watch)]


def _place_count(answer: Sequence[Any]) -> PlaceCount:
    held, waiting, keys, *busiest = answer
    named = zip(busiest[::3], busiest[1::3], busiest[2::3], strict=True)
    return PlaceCount(held, waiting, keys, [KeyCount(key.decode(), *counts) for key, *counts in named])


def _expected(version: int | None) -> str:
    return "" if version is None else str(version)


def _record(packed: bytes) -> Record:
    version, _ = _HEAD.unpack_from(packed)
    return Record(packed[_HEAD.size :], int(version))
