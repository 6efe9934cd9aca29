"""The database: its tables, its clock, and transactions whose outcome is known."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

from mindtrace.jobs.adapters.shared.error_messages import client_closed
from mindtrace.jobs.domain.errors import BackendUnavailable

AnswerT = TypeVar("AnswerT")
Work = Callable[[sqlite3.Connection, int], AnswerT]
"""What one transaction does, given the connection and the time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (
    key INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given out again, so that a deleted queue has no heir
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    last_place INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name));
CREATE TABLE IF NOT EXISTS jobs (
    queue INTEGER NOT NULL REFERENCES queues ON DELETE CASCADE,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,                    -- delayed, ready, leased or dead: all four are live
    place INTEGER NOT NULL,                 -- in the order of arrival; a leased job keeps its place
    until INTEGER,                          -- when its delay or lease ends, or when it died
    token TEXT UNIQUE,                      -- of its lease: no two leases have the same
    attempt INTEGER NOT NULL DEFAULT 1,
    number INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    history TEXT NOT NULL DEFAULT '[]',
    reason TEXT,
    error BLOB,                             -- bytes, as a text of a database may hold no NUL
    PRIMARY KEY (queue, id));
CREATE INDEX IF NOT EXISTS jobs_by_place ON jobs (queue, state, priority DESC, place);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (queue, state, until);
CREATE TABLE IF NOT EXISTS results (
    queue INTEGER NOT NULL REFERENCES queues ON DELETE CASCADE,
    id TEXT NOT NULL,
    body BLOB,
    until INTEGER NOT NULL,
    PRIMARY KEY (queue, id));
CREATE INDEX IF NOT EXISTS results_by_time ON results (queue, until);
CREATE TABLE IF NOT EXISTS commits (mark TEXT PRIMARY KEY, time INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS commits_by_time ON commits (time);
"""
NOW = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
"""Milliseconds since 1970, by the database's clock: no other counts."""
_MARKS_KEPT_MS = 86_400_000
_inherited: list[sqlite3.Connection | None] = []


class CommitUnknown(BackendUnavailable):
    """The database went away during a commit, and can't say yet whether it was made."""


class _Doubt(NamedTuple):
    """A commit that got no answer."""

    mark: str
    answer: Any
    if_late: Callable[[Any], object]


class Database:
    """One connection, made when it is needed. Any thread may use it; one at a time does."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self.changes = 0
        """How many there were: read it, look for work, then wait for one more."""
        self.connection: sqlite3.Connection | None = None
        self._doubt: _Doubt | None = None

    @property
    def lock(self) -> Any:
        """Makes several calls one step; reentrant."""
        if os.getpid() != self._pid:  # forked: the lock and the connection are the parent's
            _inherited.append(self.connection)  # not closed, which would end the parent's session
            self._begin()
        return self._lock

    def run(self, work: Work[AnswerT], if_late: Callable[[AnswerT], object] = lambda _: None) -> AnswerT:
        """Run ``work`` in one transaction, and return its answer once that is committed.

        Args:
            work: What to do. If the connection breaks it may run twice, and takes effect once.
            if_late: Is given the answer by a later call, where this one raises CommitUnknown and the commit
                turns out to be made.

        Raises:
            CommitUnknown: it was committed or not.
            BackendUnavailable: the database is away, and nothing changed.
        """
        with self.lock:
            is_second = False
            while True:
                try:
                    if (late := self._doubt) and self._was_committed(late.mark):
                        late.if_late(late.answer)
                    return self._transact(work, if_late)
                except sqlite3.Error as error:
                    self._drop()
                    if is_second:
                        raise BackendUnavailable(f"{self.path}: {error}") from error
                    is_second = True

    def _transact(self, work: Work[AnswerT], if_late: Callable[[AnswerT], object]) -> AnswerT:
        db, mark = self._connected(), token_hex(16)
        try:
            db.execute("BEGIN IMMEDIATE")
            ((now,),) = db.execute(NOW).fetchall()
            before = db.total_changes
            answer = work(db, now)
            if db.total_changes == before:
                db.rollback()
                return answer
            db.execute("DELETE FROM commits WHERE time < ?", (now - _MARKS_KEPT_MS,))
            db.execute("INSERT INTO commits VALUES (?, ?)", (mark, now))
        except BaseException:
            with suppress(sqlite3.Error):
                db.rollback()
            raise
        self._doubt = _Doubt(mark, answer, if_late)
        try:
            self.commit(db)
        except sqlite3.Error as error:
            self._drop()
            try:
                committed = self._was_committed(mark)
            except sqlite3.Error:
                raise CommitUnknown(f"{self.path}: {error}") from error
            if not committed:
                raise
        self._doubt = None
        self.notify()  # only now: who is woken before the commit finds nothing, and sleeps on
        return answer

    def commit(self, db: sqlite3.Connection) -> None:
        """Commit."""
        db.commit()

    def _was_committed(self, mark: str) -> bool:
        """Try to make a mark; return whether its transaction was committed, and so has made it before."""
        db = self._connected()
        ((now,),) = db.execute(NOW).fetchall()
        made = db.execute("INSERT OR IGNORE INTO commits VALUES (?, ?)", (mark, now)).rowcount
        self._doubt = None
        return not made

    def _connected(self) -> sqlite3.Connection:
        if self.closed:
            raise client_closed("TableClient")
        if self.connection is None:
            self.connection = db = sqlite3.connect(
                self.path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(SCHEMA)
        return self.connection

    def _drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        """Close it for good; whoever waits is woken."""
        with self.lock:
            self.closed = True
            self._drop()
        self.notify()

    # -- waiting ----------------------------------------------------------------------------------

    def notify(self) -> None:
        """Wake the threads of this process that wait."""
        with self._changed:
            self.changes += 1
            self._changed.notify_all()

    def wait(self, changes: int, timeout_s: float) -> None:
        """Wait until there were more than ``changes``, or ``timeout_s`` is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.changes != changes, timeout_s)
