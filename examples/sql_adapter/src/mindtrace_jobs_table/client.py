"""The client: publishes, counts, and administers queues in a table."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit
from weakref import WeakSet

from mindtrace.jobs import ports
from mindtrace.jobs.adapters.shared.error_messages import kind_conflict
from mindtrace.jobs.adapters.shared.records import parse_history
from mindtrace.jobs.domain.bounds import check_name
from mindtrace.jobs.domain.errors import InvalidInput
from mindtrace.jobs.domain.queue import Queue, QueueKind

from .consumer_backend import POLL_S, TableConsumerBackend
from .database import CommitUnknown, Database
from .transaction import Transaction

AnswerT = TypeVar("AnswerT")


class TableClient(ports.OrchestratorBackend):
    """Queues in tables of a database, which any number of processes of one machine may share.

    Args:
        path: The file of the database.
        namespace: Clients of one database and one namespace share their queues.
    """

    def __init__(self, path: str, *, namespace: str = "default") -> None:
        super().__init__()
        self._namespace = check_name("namespace", namespace)
        self.database = Database(path)
        self._consumers: WeakSet[TableConsumerBackend] = WeakSet()

    @classmethod
    def from_url(cls, url: str) -> "TableClient":
        """Make a client from a URL such as ``table:///var/lib/jobs.db?namespace=tests``."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.netloc or not parts.path or query.keys() - {"namespace"}:
            raise InvalidInput("a URL of tables is table:///path/of/file.db, with ?namespace=… or without")
        return cls(unquote(parts.path), **query)

    def make_url(self, *, with_passwords: bool = False) -> str:
        return f"table://{quote(self.database.path)}?namespace={self._namespace}"

    @property
    def capabilities(self) -> ports.Capabilities:
        return ports.Capabilities(
            stack=True,
            priority=True,
            dedupe=True,
            results=True,
            lease=ports.Lease.TIMED,
            redelivery=ports.Redelivery.IN_ORDER,
            durability=ports.Durability.FSYNC,
            delay_resolution_s=0.05,
            counts_in_flight=True,
        )

    def declare(self, queue: Queue) -> None:
        def work(db: sqlite3.Connection, _now: int) -> None:
            names = (self._namespace, queue.name)
            statement = "INSERT OR IGNORE INTO queues (namespace, name, kind) VALUES (?, ?, ?)"
            db.execute(statement, (*names, queue.kind))
            query = "SELECT kind FROM queues WHERE namespace = ? AND name = ?"
            ((found,),) = db.execute(query, names).fetchall()
            if found != queue.kind:
                raise kind_conflict(queue, found)

        self.database.run(work)

    def queues(self) -> list[Queue]:
        query = "SELECT name, kind FROM queues WHERE namespace = ? ORDER BY name"
        found = self.database.run(lambda db, _: db.execute(query, (self._namespace,)).fetchall())
        return [Queue(name, QueueKind(kind)) for name, kind in found]

    def publish(self, queue: str, messages: Sequence[ports.Message]) -> list[ports.PublishOutcome]:
        def work(tx: Transaction) -> list[ports.PublishStatus]:
            statuses = [tx.publish(message) for message in messages]
            tx.catch_up()
            return statuses

        error: CommitUnknown | None = None
        try:
            statuses = self._run(queue, work)
        except CommitUnknown as unknown:  # too late to raise: the jobs may be in the queue
            error, statuses = unknown, [ports.PublishStatus.UNKNOWN] * len(messages)
        return [
            ports.PublishOutcome(message.id, status, error)
            for message, status in zip(messages, statuses, strict=True)
        ]

    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> TableConsumerBackend:
        with self.database.lock:  # so that `close` can't miss it
            self.counts(queue)  # raises where there is no such queue
            consumer = TableConsumerBackend(self.database, self._namespace, queue, lease_s)
            self._consumers.add(consumer)
        return consumer

    def counts(self, queue: str) -> ports.QueueCounts:
        query = "SELECT state, count(*) FROM jobs WHERE queue = :queue GROUP BY state"
        found = dict(self._run(queue, lambda tx: tx.execute(query).fetchall()))
        return ports.QueueCounts(*(found.get(state, 0) for state in ("ready", "delayed", "leased", "dead")))

    def purge(self, queue: str) -> int:
        statement = "DELETE FROM jobs WHERE queue = :queue AND state IN ('ready', 'delayed')"
        return self._run(queue, lambda tx: tx.execute(statement).rowcount)

    def delete(self, queue: str) -> None:
        self._run(queue, lambda tx: tx.execute("DELETE FROM queues WHERE key = :queue").rowcount)

    def dead_letters(self, queue: str, *, limit: int = 2**31 - 1, offset: int = 0) -> list[ports.DeadLetter]:
        query = (
            "SELECT id, body, reason, error, attempt, crashes, until, history FROM jobs"
            " WHERE queue = :queue AND state = 'dead' ORDER BY place LIMIT :limit OFFSET :offset"
        )
        rows = self._run(queue, lambda tx: tx.execute(query, limit=limit, offset=offset).fetchall())
        return [
            ports.DeadLetter(
                id_,
                body,
                reason,
                error.decode(),
                attempt,
                crashes,
                datetime.fromtimestamp(died / 1000, UTC),
                parse_history(history),
            )
            for id_, body, reason, error, attempt, crashes, died, history in rows
        ]

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        statement = (
            "UPDATE jobs SET state = 'delayed', until = :now, attempt = 1, crashes = 0, history = '[]'"
            " WHERE queue = :queue AND state = 'dead'"
            " AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))"
        )

        def work(tx: Transaction) -> int:
            redriven = tx.execute(statement, ids=_as_json(ids)).rowcount
            tx.catch_up()
            return redriven

        return self._run(queue, work)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        statement = (
            "DELETE FROM jobs WHERE queue = :queue AND state = 'dead'"
            " AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))"
        )
        return self._run(queue, lambda tx: tx.execute(statement, ids=_as_json(ids)).rowcount)

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> ports.JobResult | None:
        give_up = monotonic() + timeout_s
        while True:
            changes = self.database.changes
            found = self.results(queue, [job_id]).get(job_id)
            left_s = give_up - monotonic()
            if found is not None or left_s <= 0:
                return found
            self.database.wait(changes, min(left_s, POLL_S))

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, ports.JobResult]:
        query = (
            "SELECT id, body, NULL FROM results"
            " WHERE queue = :queue AND id IN (SELECT value FROM json_each(:ids))"
            " UNION ALL SELECT id, NULL, error FROM jobs"
            " WHERE queue = :queue AND state = 'dead' AND id IN (SELECT value FROM json_each(:ids))"
        )
        rows = self._run(queue, lambda tx: tx.execute(query, ids=_as_json(ids)).fetchall())
        return {id_: _result(body, error) for id_, body, error in rows}

    def close(self) -> None:
        for consumer in list(self._consumers):
            consumer.close()
        self.database.close()

    def _run(self, queue: str, work: Callable[[Transaction], AnswerT]) -> AnswerT:
        return self.database.run(lambda db, now: work(Transaction(db, now, self._namespace, queue)))


def _as_json(ids: Sequence[str] | None) -> str | None:
    return None if ids is None else json.dumps(list(ids))


def _result(body: bytes | None, error: bytes | None) -> ports.JobResult:
    if error is None:
        return ports.JobResult(ports.ResultStatus.DONE, body)
    return ports.JobResult(ports.ResultStatus.FAILED, error=error.decode())
