"""One transaction on one queue: reads the queue's row first, and writes its counts last."""

import logging
import sqlite3
from collections.abc import Callable
from math import ceil, inf
from typing import TypeVar

from ...domain.bounds import MAX_PRIORITY
from ...domain.dead_reasons import DeadReason
from ...domain.errors import BackendError
from ...domain.queue import QueueKind
from ..shared.error_messages import not_declared
from .clock import FileClock
from .session import FileSettings, Session
from .wakeups import ENDED, READY, wake

AnswerT = TypeVar("AnswerT")

_LOGGER = logging.getLogger(__name__)

_LEVEL = 1 << 48
"""How far apart the priorities are in a rank; places are smaller."""
NEVER_US = 10 * 366 * 86_400 * 1_000_000
"""Nothing waits for as long as that, ten years."""
CHUNK = 1000
"""The most jobs that one transaction drops, so that nobody waits for long behind it."""
_LARGEST = 1 << 53
"""No count is as large as that."""


class Transaction:
    """A transaction on one queue: what it knows of the queue, and what it changes there.

    Raises:
        QueueNotFound: the queue isn't declared.
    """

    def __init__(self, db: sqlite3.Connection, clock: FileClock, namespace: str, queue: str) -> None:
        self.db = db
        self.name = queue
        self.namespace = namespace
        self._clock = clock
        row = db.execute(
            "SELECT key, kind, CAST(ready AS INTEGER), CAST(delayed AS INTEGER), CAST(leased AS INTEGER),"
            " CAST(dead AS INTEGER), CAST(ended AS INTEGER) FROM queue WHERE namespace = ? AND name = ?",
            (namespace, queue),
        ).fetchone()
        if row is None:
            raise not_declared(queue)
        self.key: int = row[0]
        self.kind = _kind(queue, row[1])
        self._before: tuple[int, ...] = row[2:]
        self.ready, self.delayed, self.leased, self.dead, self.ended = self._before
        self.ended %= _LARGEST
        self.now = clock.now()
        """In microseconds, as every moment here."""
        self.is_due_earlier = False
        """Whether a job is due before all that were delayed so far."""
        self.has_ended = False
        """Whether a job has ended."""
        self.messages: list[str] = []
        """What to log about this queue once the transaction is committed."""
        self.others: dict[str, Transaction] = {}
        """What the same transaction knows of, and changes in, other queues, by name."""

    def of(self, queue: str) -> "Transaction":
        """Return what this transaction knows of a queue, this one or another.

        Raises:
            QueueNotFound: the queue isn't declared.
        """
        if queue == self.name:
            return self
        if queue not in self.others:
            self.others[queue] = Transaction(self.db, self._clock, self.namespace, queue)
        return self.others[queue]

    def log(self, message: str) -> None:
        """Have a message about this queue logged once the transaction is committed."""
        self.messages.append(message)

    def save_counts(self) -> None:
        """Write the counts where they changed."""
        counted = (self.ready, self.delayed, self.leased, self.dead)
        if min(counted) < 0 or max(counted) >= _LARGEST:
            self.recount()
        counts = (self.ready, self.delayed, self.leased, self.dead, self.ended)
        if counts != self._before:
            self.db.execute(
                "UPDATE queue SET ready = ?, delayed = ?, leased = ?, dead = ?, ended = ?, moment = ?"
                " WHERE key = ?",
                (*counts, self.now, self.key),
            )

    def wakeups(self) -> list[str]:
        """Say whom to wake once this is committed."""
        had_ready = self._before[0] > 0
        ready = [READY] if self.is_due_earlier or (self.ready and not had_ready) else []
        return [*ready, ENDED] if self.has_ended else ready

    # -- what several kinds of change share -------------------------------------------------------

    def take_numbers(self, count: int) -> int:
        """Take ``count`` numbers that nobody else is given, and return the one before the first."""
        ((last, latest),) = self.db.execute(
            "UPDATE file SET ticket = CAST(ticket AS INTEGER) + ?"
            " RETURNING ticket, (SELECT coalesce(max(seq), 0) FROM job)",
            (count,),
        ).fetchall()
        if latest <= last - count < _LEVEL:
            return int(last) - count
        return self._restart_numbers(count, latest)

    def _restart_numbers(self, count: int, latest: int) -> int:
        """Go on after the highest number that any job or place has, as the file's own can't be right."""
        self.log("the file's count of numbers was wrong, and is right again")
        ((place,),) = self.db.execute(
            "SELECT max(abs(CAST(rank AS INTEGER) % ?))"
            " FROM (SELECT rank FROM ready UNION ALL SELECT rank FROM lease)",
            (_LEVEL,),
        ).fetchall()
        before = max(latest % _LEVEL, place or 0)
        self.db.execute("UPDATE file SET ticket = ?", (before + count,))
        return int(before)

    def rank(self, place: int, priority: int) -> int:
        """Where a job stands that came in this place."""
        if self.kind is QueueKind.STACK:
            return -place
        priority = min(max(priority, 0), MAX_PRIORITY)
        return (MAX_PRIORITY - priority) * _LEVEL + place if self.kind is QueueKind.PRIORITY else place

    def make_ready(self, jobs: list[tuple[int, int]]) -> None:
        """Let jobs arrive, given by seq and priority, in this order."""
        if not jobs:
            return
        place = self.take_numbers(len(jobs))
        self.put([(self.rank(place + n, priority), seq) for n, (seq, priority) in enumerate(jobs, 1)])

    def put(self, ranks: list[tuple[int, int]]) -> None:
        """Put jobs where they stand, given by rank and seq."""
        put = self.db.executemany(
            "INSERT OR IGNORE INTO ready (queue, rank, seq) VALUES (?, ?, ?)",
            [(self.key, rank, seq) for rank, seq in ranks],
        ).rowcount
        self.ready += put
        if put < len(ranks):
            self._make_displaced_dead(ranks)

    def _make_displaced_dead(self, ranks: list[tuple[int, int]]) -> None:
        """Bury those jobs in whose place there is another, as no two ever should be in one."""
        for rank, seq in ranks:
            ((there,),) = self.db.execute(
                "SELECT seq FROM ready WHERE queue = ? AND rank = ?", (self.key, rank)
            ).fetchall()
            if there != seq:
                self.make_dead(seq, DeadReason.MALFORMED, "another job stands in its place")
                self.log(f"job number {seq} is dead: malformed: another job stands in its place")

    def make_dead(self, seq: int, reason: str, error: str, ttl_s: float | None = None) -> int:
        """Make a job, which stands nowhere any more, a dead letter; return the number of its death."""
        expires = None if ttl_s is None else self.now + ceil(ttl_s * 1_000_000)
        made = self.db.execute(
            "INSERT OR IGNORE INTO dead (queue, seq, reason, error, died, expires) VALUES (?, ?, ?, ?, ?, ?)",
            (self.key, seq, reason, error, self.now, expires),
        )
        self.dead += made.rowcount
        self.has_ended = True
        return made.lastrowid or 0

    def delay(self, jobs: list[tuple[int, int]]) -> None:
        """Let jobs wait until they are due, given by moment and seq."""
        first = self.first_due()
        self.delayed += self.db.executemany(
            "INSERT OR IGNORE INTO delay (queue, due, seq) VALUES (?, ?, ?)",
            [(self.key, due, seq) for due, seq in jobs],
        ).rowcount
        self.is_due_earlier |= first is None or min(jobs)[0] < first

    def first_due(self) -> float | None:
        """When the first delayed job is due; never, where that can't be read."""
        return self._first("SELECT min(due) FROM delay WHERE queue = ?")

    def first_end(self) -> float | None:
        """When the first lease ends; never, where that can't be read."""
        return self._first("SELECT min(ends) FROM lease WHERE queue = ?")

    def _first(self, query: str) -> float | None:
        found = self.db.execute(query, (self.key,)).fetchone()[0]
        is_moment = isinstance(found, int | float) and found < self.now + NEVER_US
        return found if found is None or is_moment else inf

    def has_rows(self, table: str) -> bool:
        """Whether any job of the queue stands in ``table``."""
        query = f"SELECT 1 FROM {table} WHERE queue = ? LIMIT 1"  # noqa: S608
        return self.db.execute(query, (self.key,)).fetchone() is not None

    def recount(self) -> None:
        """Count the jobs anew, as the counts can't be right."""
        before = (self.ready, self.delayed, self.leased, self.dead)
        found = tuple(map(self._count, ("ready", "delay", "lease", "dead")))
        self.ready, self.delayed, self.leased, self.dead = found
        if found != before:
            self.log("its counts were wrong, and are right again")

    def _count(self, table: str) -> int:
        query = f"SELECT count(*) FROM {table} WHERE queue = ?"  # noqa: S608
        return int(self.db.execute(query, (self.key,)).fetchone()[0])


_KINDS = {kind.value.encode(): kind for kind in QueueKind}


def _kind(queue: str, raw: bytes) -> QueueKind:
    try:
        return _KINDS[raw]
    except KeyError:
        raise BackendError(
            f"queue {queue!r} is of an unknown kind, {raw!r:.40}: did another program write to the file?"
        ) from None


class QueueSession:
    """One queue, as one session reaches it."""

    def __init__(self, session: Session, settings: FileSettings, namespace: str, queue: str) -> None:
        self._session = session
        self._wakeups = settings.wakeups
        self._namespace = namespace
        self.name = queue

    def write(self, work: Callable[[Transaction], AnswerT]) -> AnswerT:
        """Do work in one transaction, and wake those who wait for what it did; errors as of the session."""

        def transact(db: sqlite3.Connection, clock: FileClock) -> tuple[tuple[Transaction, ...], AnswerT]:
            tx = Transaction(db, clock, self._namespace, self.name)
            answer = work(tx)
            if not tx.others:
                tx.save_counts()
                return (tx,), answer
            touched = (tx, *tx.others.values())
            for each in touched:
                each.save_counts()
            return touched, answer

        touched, answer = self._session.write(transact)
        for each in touched:
            for message in each.messages:
                _LOGGER.error("queue %s: %s", each.name, message)
            for what in each.wakeups():
                wake(self._wakeups, each.key, what)
        return answer

    def read(self, work: Callable[[Transaction], AnswerT]) -> AnswerT:
        """Look without changing anything."""
        return self._session.read(lambda db, clock: work(Transaction(db, clock, self._namespace, self.name)))
