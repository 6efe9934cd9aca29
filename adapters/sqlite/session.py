"""The way to the file: a connection, transactions on it, and what stands in their way."""

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

from ...domain.errors import BrokerUnsuitable
from ..shared.error_messages import client_closed
from .clock import FileClock, read_clock, set_clock
from .errors import CommitUnknown, is_busy, leaves_open, translated
from .filesystem import make_private, refuse_network_share
from .forks import close_at_forks
from .schema import OLDEST_SQLITE, is_current, migrate
from .wakeups import LOOK_S, SUFFIX

AnswerT = TypeVar("AnswerT")
Work = Callable[[sqlite3.Connection, FileClock], AnswerT]
"""What one transaction does. It may run again if the transaction failed, so it changes only the file."""

_CACHE_KIB = 8192
_CHECKPOINT_PAGES = 2000
LOG_LIMIT = 64 * 1024 * 1024
"""The most bytes that the log may keep on the disk once all of it is in the file."""
_LOG_CHECKED = 256
"""After how many commits the log's size is looked at."""
_PAUSE_S = (0.0002, 0.005)
"""The shortest and the longest pause between two tries, while another process or thread holds a lock."""

_inherited: list[sqlite3.Connection] = []
"""Connections of the process that forked this one, if a signal handler did so in a transaction: to close
one here would disturb it there."""


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Which file, and how it is used."""

    path: Path
    synchronous: str
    """What SQLite calls it: FULL or NORMAL."""
    retry_timeout_s: float
    """How long a transaction waits for its turn."""
    look_s: float = LOOK_S
    """The longest time that anyone waits without looking."""
    wakeups: Path = field(init=False)
    """The folder of its wake-ups."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "wakeups", Path(f"{self.path}{SUFFIX}"))


def check_suitable(path: Path) -> None:
    """Refuse a file that had better not be opened here.

    Raises:
        BrokerUnsuitable: this Python's SQLite is too old, or the file is on a network share.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise BrokerUnsuitable(
            f"SQLite {sqlite3.sqlite_version}: this Python has one that is too old, {oldest} is needed"
        )
    refuse_network_share(path)


class Session:
    """One connection to the file, made when it is first used; any thread may call, one at a time.

    Args:
        settings: The file.
        owner: What errors say is closed, once it is.
    """

    def __init__(self, settings: FileSettings, owner: str) -> None:
        self._settings = settings
        self._owner = owner
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._clock = FileClock(0)
        self._inode = (0, 0)
        self._commits = 0
        self._ends = inf
        self._closed = False
        self._pid = os.getpid()
        close_at_forks(self)

    def write(self, work: Work[AnswerT]) -> AnswerT:
        """Run ``work`` in a transaction: no other process writes meanwhile, and it takes effect whole or not.

        Raises:
            BackendUnavailable: others kept the file busy for ``retry_timeout_s``, or the disk failed.
            DiskFull: there is no room; nothing was done.
            CommitUnknown: the disk failed just when the transaction was to be made safe.
            BackendError: the file can't be used; the kind of error and its message say why.
            Closed: the session was closed.
        """
        return self._run("BEGIN IMMEDIATE", work)

    def read(self, work: Work[AnswerT]) -> AnswerT:
        """Run ``work``, which changes nothing, on one snapshot of the file; otherwise as :meth:`write`."""
        return self._run("BEGIN", work)

    def set_deadline(self, moment: float) -> None:
        """Have no call from now on wait for its turn longer than up to a moment of the monotonic clock."""
        self._ends = moment

    def close(self) -> None:
        """Close the connection; calls to come, and those that wait for their turn, raise Closed."""
        self._leave_parent()
        self._closed = True
        with self._lock:
            self._drop()

    def hold(self) -> None:
        self._lock.acquire()
        if self._connection is not None and not self._connection.in_transaction:
            self._drop()

    def let_go(self) -> None:
        self._lock.release()

    def __del__(self) -> None:
        """Close what nobody closed: Python 3.13 and newer warn of connections that are collected open."""
        self._leave_parent()
        self._drop()

    def _run(self, begin: str, work: Work[AnswerT]) -> AnswerT:
        self._leave_parent()
        give_up = min(time.monotonic() + self._settings.retry_timeout_s, self._ends)
        try:
            return _call_once_unlocked(partial(self._try_once, begin, work), give_up)
        except sqlite3.Error as error:
            raise translated(error, self._settings.path) from error

    def _try_once(self, begin: str, work: Work[AnswerT]) -> AnswerT:
        with self._lock:  # not while it waits for others: a fork would have to wait for as long
            if self._closed:
                raise client_closed(self._owner)
            try:
                return self._transact(self._connected(), begin, work)
            except sqlite3.Error as error:
                if not is_busy(error):
                    self._drop()
                raise

    def _transact(self, db: sqlite3.Connection, begin: str, work: Work[AnswerT]) -> AnswerT:
        try:
            db.execute(begin)  # in here: an interrupt just after it must not leave the file locked
            answer = work(db, self._clock)
            try:
                db.execute("COMMIT")
            except sqlite3.Error as error:
                if leaves_open(error):
                    self._drop()
                    raise CommitUnknown(
                        f"the disk of {self._settings.path} failed at a commit, done or not: {error}"
                    ) from error
                raise
        except BaseException:
            if self._connection is db and db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._bound_log(db)
        return answer

    def _bound_log(self, db: sqlite3.Connection) -> None:
        """Begin the log anew where readers have kept others from it for long."""
        self._commits += 1
        if self._commits % _LOG_CHECKED:
            return
        log = Path(f"{self._settings.path}-wal")
        try:
            if log.stat().st_size > LOG_LIMIT:
                db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except (OSError, sqlite3.Error):  # the next time, then: what was committed is safe as it is
            return

    # -- the connection ---------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != self._found_inode():
            self._drop()  # the file was removed or replaced: what is written to it now, nobody would find
        if self._connection is None:
            self._connection = self._connect()
            self._inode = self._found_inode()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        settings = self._settings
        check_suitable(settings.path)
        make_private(settings.path)
        db = sqlite3.connect(
            settings.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        settings, path = self._settings, str(self._settings.path)
        db.execute("BEGIN")  # so that another process that makes the tables just now is seen as done or not
        current = is_current(db, path)
        db.execute("COMMIT")
        ((mode,),) = db.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise BrokerUnsuitable(f"{path}: its file system can't hold a log that processes share; move it")
        for name, value in (
            ("synchronous", settings.synchronous),
            ("fullfsync", int(settings.synchronous == "FULL")),  # without it a Mac doesn't sync
            ("cache_size", -_CACHE_KIB),
            ("wal_autocheckpoint", _CHECKPOINT_PAGES),
            ("journal_size_limit", LOG_LIMIT),
        ):
            db.execute(f"PRAGMA {name} = {value}").fetchall()
        clock = read_clock(db) if current else None
        if clock is None:
            db.execute("BEGIN IMMEDIATE")
            migrate(db, path)
            clock = set_clock(db)
            db.execute("COMMIT")
        self._clock = clock
        # Text that isn't UTF-8, which somebody else wrote, must not fail a whole query.
        db.text_factory = bytes

    def _found_inode(self) -> tuple[int, int]:
        try:
            found = self._settings.path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _leave_parent(self) -> None:
        """After a fork: leave a connection that is still there to the process that made it."""
        if os.getpid() == self._pid:
            return
        self._pid = os.getpid()
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None


def _call_once_unlocked(call: Callable[[], AnswerT], give_up: float) -> AnswerT:
    """Repeat a call for as long as others hold a lock that it needs.

    Args:
        call: What to repeat.
        give_up: Until when, of ``monotonic``.

    Raises:
        sqlite3.Error: what the call raised; that the file is busy only if that lasted until ``give_up``.
    """
    shortest_s, longest_s = _PAUSE_S
    pause_s = shortest_s
    while True:
        try:
            return call()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= give_up:
                raise
        pause_s = min(longest_s, 2 * pause_s)
        time.sleep(random.uniform(shortest_s, pause_s))  # noqa: S311
