"""One transaction on one queue: its row is read at the beginning, and what changed is written at the end."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from ...domain.errors import QueueNotFound
from ...domain.limits import MAX_PRIORITY
from ...domain.queue import QueueKind
from .bells import ENDED, READY, ring
from .clock import FileClock
from .session import FileSettings, Session

AnswerT = TypeVar("AnswerT")

_LEVEL = 1 << 48
"""How far apart the priorities are in a rank; places are smaller."""


class Step:
    """What a transaction knows of its queue, and what it changes there.

    Raises:
        QueueNotFound: the queue isn't declared.
    """

    def __init__(self, db: sqlite3.Connection, clock: FileClock, namespace: str, queue: str) -> None:
        self.db = db
        row = db.execute(
            "SELECT key, kind, ready, delayed, leased, dead, ended FROM queue"
            " WHERE namespace = ? AND name = ?",
            (namespace, queue),
        ).fetchone()
        if row is None:
            raise QueueNotFound(f"queue {queue!r}: not declared; register its schema first")
        self.key: int = row[0]
        self.kind = QueueKind(row[1])
        self._before: tuple[int, ...] = row[2:]
        self.ready, self.delayed, self.leased, self.dead, self.ended = self._before
        self.now = clock.now()
        """In microseconds, as every moment here."""
        self.is_due_earlier = False
        """Whether a job is due before all that were delayed so far."""
        self.has_ended = False
        """Whether a job has ended."""

    def write_down(self) -> None:
        """Write the counts where they changed."""
        counts = (self.ready, self.delayed, self.leased, self.dead, self.ended)
        if counts != self._before:
            self.db.execute(
                "UPDATE queue SET ready = ?, delayed = ?, leased = ?, dead = ?, ended = ?, moment = ?"
                " WHERE key = ?",
                (*counts, self.now, self.key),
            )

    def rings(self) -> list[str]:
        """Which bells are to be rung once this is committed."""
        had_ready = self._before[0] > 0
        bells = [READY] if self.is_due_earlier or (self.ready and not had_ready) else []
        return [*bells, ENDED] if self.has_ended else bells

    # -- what several kinds of change share -------------------------------------------------------

    def tickets(self, count: int) -> int:
        """Take ``count`` numbers that nobody else is given, and return the one before the first."""
        ((last,),) = self.db.execute(
            "UPDATE file SET ticket = ticket + ? RETURNING ticket", (count,)
        ).fetchall()
        return int(last) - count

    def rank(self, place: int, priority: int) -> int:
        """Where a job stands that came in this place."""
        if self.kind is QueueKind.STACK:
            return -place
        return (MAX_PRIORITY - priority) * _LEVEL + place if self.kind is QueueKind.PRIORITY else place

    def make_ready(self, jobs: list[tuple[int, int]]) -> None:
        """Let jobs arrive, given by seq and priority, in this order."""
        place = self.tickets(len(jobs))
        self.put([(self.rank(place + n, priority), seq) for n, (seq, priority) in enumerate(jobs, 1)])

    def put(self, ranks: list[tuple[int, int]]) -> None:
        """Put jobs where they stand, given by rank and seq."""
        self.db.executemany(
            "INSERT INTO ready (queue, rank, seq) VALUES (?, ?, ?)",
            [(self.key, rank, seq) for rank, seq in ranks],
        )
        self.ready += len(ranks)

    def hold_back(self, jobs: list[tuple[int, int]]) -> None:
        """Let jobs wait until they are due, given by moment and seq."""
        first = self.first_due()
        self.db.executemany(
            "INSERT INTO delay (queue, due, seq) VALUES (?, ?, ?)",
            [(self.key, due, seq) for due, seq in jobs],
        )
        self.delayed += len(jobs)
        self.is_due_earlier |= first is None or min(jobs)[0] < first

    def first_due(self) -> int | None:
        """When the first delayed job is due."""
        return self._one("SELECT min(due) FROM delay WHERE queue = ?")

    def first_end(self) -> int | None:
        """When the first lease ends."""
        return self._one("SELECT min(ends) FROM lease WHERE queue = ?")

    def _one(self, query: str) -> int | None:
        found: int | None = self.db.execute(query, (self.key,)).fetchone()[0]
        return found


class QueueLink:
    """One queue, as one session reaches it."""

    def __init__(self, session: Session, settings: FileSettings, namespace: str, queue: str) -> None:
        self._session = session
        self._bells = settings.bells
        self._namespace = namespace
        self.queue = queue

    def change(self, work: Callable[[Step], AnswerT]) -> AnswerT:
        """Do work in one transaction, and wake those who wait for what it did; errors as of the session."""

        def transact(db: sqlite3.Connection, clock: FileClock) -> tuple[Step, AnswerT]:
            step = Step(db, clock, self._namespace, self.queue)
            answer = work(step)
            step.write_down()
            return step, answer

        step, answer = self._session.write(transact)
        for what in step.rings():
            ring(self._bells, step.key, what)
        return answer

    def look(self, work: Callable[[Step], AnswerT]) -> AnswerT:
        """Look without changing anything."""
        return self._session.read(lambda db, clock: work(Step(db, clock, self._namespace, self.queue)))
