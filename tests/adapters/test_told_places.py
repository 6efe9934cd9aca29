"""Watches of places: a signal handler may watch, too, while the thread that reads reports is started."""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol, cast

import pytest

from mindtrace.jobs.adapters.postgresql.connection import Connection
from mindtrace.jobs.adapters.postgresql.errors import ConnectFailed
from mindtrace.jobs.adapters.postgresql.session import Session
from mindtrace.jobs.adapters.postgresql.wakeups import Wakeups
from mindtrace.jobs.adapters.redis.keys import CoordinationKeys
from mindtrace.jobs.adapters.redis.place_reports import PlaceReports as RedisPlaceReports
from mindtrace.jobs.adapters.redis.transport import RetryingConnection
from mindtrace.jobs.adapters.shared.place_watches import PlaceWatches
from mindtrace.jobs.adapters.sqlite.place_reports import PlaceReports as SQLitePlaceReports
from mindtrace.jobs.ports import PlaceWatch


class Reader(Protocol):
    def close(self) -> None: ...


class NoServer:
    """A connection to Redis that was closed."""

    is_open = False


class NoSession:
    """The way to a PostgreSQL that isn't there."""

    def connect(self) -> Connection:
        raise ConnectFailed("no server")


Watch = Callable[[Callable[[str | None], None]], PlaceWatch]


def of_postgresql(_: Path) -> tuple[Reader, Watch]:
    wakeups = Wakeups(cast("Session", NoSession()), "jobs", logging.getLogger())
    return wakeups, wakeups.watch_places


def of_redis(_: Path) -> tuple[Reader, Watch]:
    reports = RedisPlaceReports(cast("RetryingConnection", NoServer()), CoordinationKeys("jobs"), 1.0)
    return reports, reports.watch


def of_sqlite(folder: Path) -> tuple[Reader, Watch]:
    reports = SQLitePlaceReports(folder)
    return reports, reports.watch


@pytest.mark.parametrize("make", [of_postgresql, of_redis, of_sqlite])
def test_a_handler_that_runs_while_the_thread_is_started_can_watch(
    make: Callable[[Path], tuple[Reader, Watch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, watch = make(tmp_path)
    names: list[str] = []
    start = threading.Thread.start

    def start_after_a_handler(thread: threading.Thread) -> None:
        names.append(watch(lambda key: None).name)  # this hangs if the lock is held
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_after_a_handler)
    with closing(reader):
        names.append(watch(lambda key: None).name)

    assert len(set(names)) == 2


def test_a_watch_is_told_of_its_own_places_until_it_is_closed() -> None:
    watches, told = PlaceWatches(), list[tuple[str, str | None]]()
    first = watches.add(lambda key: told.append(("first", key)))
    second = watches.add(lambda key: told.append(("second", key)))
    token, _, number = first.name.partition("-")
    assert (token, second.name.partition("-")[0]) == (watches.token, watches.token)

    watches.tell(number, "camera 7")
    second.close()
    watches.tell_of_missed()
    first.close()
    watches.tell(number, "camera 8")

    assert told == [("first", "camera 7"), ("first", None)]
