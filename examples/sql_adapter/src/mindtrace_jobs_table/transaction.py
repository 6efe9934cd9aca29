"""One transaction on one queue: every statement that moves a job from one state to another."""

import json
import sqlite3
from math import ceil
from typing import Any

from mindtrace.jobs.adapters.shared.error_messages import not_declared
from mindtrace.jobs.adapters.shared.records import MAX_HISTORY, parse_history
from mindtrace.jobs.domain.queue import QueueKind
from mindtrace.jobs.ports import Ack, Dead, Message, PublishStatus, Release, Retry, Settlement


class Transaction:
    """A transaction on one queue, at one moment. Raises QueueNotFound if it isn't declared."""

    def __init__(self, db: sqlite3.Connection, now: int, namespace: str, name: str) -> None:
        query = "SELECT key, kind FROM queues WHERE namespace = ? AND name = ?"
        found = db.execute(query, (namespace, name)).fetchone()
        if found is None:
            raise not_declared(name)
        self.key, self.kind = found
        self._db, self._now = db, now
        self.catch_up()

    def execute(self, statement: str, **values: object) -> sqlite3.Cursor:
        """Execute a statement, which may use ``:queue`` and ``:now``."""
        return self._db.execute(statement, {"queue": self.key, "now": self._now} | values)

    def after(self, seconds: float) -> int:
        """The time in so many seconds, and never earlier."""
        return self._now + ceil(seconds * 1000)

    def catch_up(self) -> None:
        """Do what time brings: leases end, what is due arrives, results expire."""
        self.execute(
            "UPDATE jobs SET state = 'ready', token = NULL, crashes = crashes + 1"
            " WHERE queue = :queue AND state = 'leased' AND until <= :now"
        )
        due = self.execute(
            "SELECT id FROM jobs WHERE queue = :queue AND state = 'delayed' AND until <= :now"
            " ORDER BY until, place"
        )
        for (id_,) in due.fetchall():
            place = self._next_place()
            self.execute(
                "UPDATE jobs SET state = 'ready', place = :place WHERE queue = :queue AND id = :id",
                id=id_,
                place=-place if self.kind == QueueKind.STACK else place,  # a stack counts backwards
            )
        self.execute("DELETE FROM results WHERE queue = :queue AND until <= :now")

    def _next_place(self) -> int:
        statement = "UPDATE queues SET last_place = last_place + 1 WHERE key = :queue RETURNING last_place"
        ((place,),) = self.execute(statement).fetchall()
        return int(place)

    def publish(self, message: Message) -> PublishStatus:
        """Add a delayed job; one without a delay is due when :meth:`catch_up` is called next."""
        added = self.execute(
            "INSERT INTO jobs (queue, id, body, priority, state, place, until)"
            " VALUES (:queue, :id, :body, :priority, 'delayed', :place, :until) ON CONFLICT DO NOTHING",
            id=message.id,
            body=message.body,
            priority=message.priority,
            place=self._next_place(),
            until=self.after(message.delay_s),
        ).rowcount
        if not added:  # the id is live: its row is there, in whatever state
            return PublishStatus.DUPLICATE
        self.execute("DELETE FROM results WHERE queue = :queue AND id = :id", id=message.id)
        return PublishStatus.ACCEPTED

    def take(self, count: int, lease_s: float) -> list[tuple[Any, ...]]:
        """Lease the first ``count`` jobs; return token, id, body, attempt, number and crashes of each."""
        rows = self.execute(
            "UPDATE jobs SET state = 'leased', token = hex(randomblob(16)), until = :until,"
            " number = number + 1 WHERE queue = :queue AND id IN ("
            " SELECT id FROM jobs WHERE queue = :queue AND state = 'ready'"
            " ORDER BY priority DESC, place LIMIT :count)"
            " RETURNING -priority, place, token, id, body, attempt, number, crashes",
            until=self.after(lease_s),
            count=count,
        )
        return [row[2:] for row in sorted(rows.fetchall())]  # what RETURNING returns is in no order

    def extend(self, token: str, lease_s: float) -> bool:
        """Extend a lease; return whether it still held."""
        statement = "UPDATE jobs SET until = :until WHERE token = :token"
        return self.execute(statement, token=token, until=self.after(lease_s)).rowcount == 1

    def settle(self, token: str, settlement: Settlement) -> bool:
        """End a lease; return whether it still held. If not, no row has its token."""
        match settlement:
            case Ack(_, result, ttl_s):
                statement = "DELETE FROM jobs WHERE token = :token RETURNING id"
                done = self.execute(statement, token=token).fetchall()
                for (id_,) in done:
                    statement = "INSERT INTO results VALUES (:queue, :id, :body, :until)"
                    self.execute(statement, id=id_, body=result, until=self.after(ttl_s))
                return bool(done)
            case Retry(_, delay_s, error):
                return self._retry(token, delay_s, _storable(error).decode())
            case Dead(_, reason, error):
                statement = (
                    "UPDATE jobs SET state = 'dead', token = NULL, until = :now, place = :place,"
                    " reason = :reason, error = :error WHERE token = :token"
                )
                place, stored = self._next_place(), _storable(error)
                dead = self.execute(statement, token=token, place=place, reason=reason, error=stored)
                return dead.rowcount == 1
            case Release(_, delay_s) if delay_s > 0:
                statement = (
                    "UPDATE jobs SET state = 'delayed', token = NULL, until = :until, place = :place"
                    " WHERE token = :token"
                )
                until, place = self.after(delay_s), self._next_place()
                return self.execute(statement, token=token, until=until, place=place).rowcount == 1
            case _:  # a release at once: the job has kept its place
                statement = "UPDATE jobs SET state = 'ready', token = NULL WHERE token = :token"
                return self.execute(statement, token=token).rowcount == 1

    def _retry(self, token: str, delay_s: float, error: str) -> bool:
        statement = "SELECT attempt, history FROM jobs WHERE token = :token"
        held = self.execute(statement, token=token).fetchall()
        for attempt, history in held:
            failures = [(failure.attempt, failure.error) for failure in parse_history(history)]
            self.execute(
                "UPDATE jobs SET state = 'delayed', token = NULL, until = :until, place = :place,"
                " attempt = attempt + 1, history = :history WHERE token = :token",
                token=token,
                until=self.after(delay_s),
                place=self._next_place(),
                history=json.dumps([*failures, (attempt, error)][-MAX_HISTORY:]),
            )
        return bool(held)


def _storable(error: str) -> bytes:
    """Any text as bytes, also one that UTF-8 can't encode."""
    return error.encode("utf-8", "replace")
