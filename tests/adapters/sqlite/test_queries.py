"""What each query costs: it goes straight to its rows, however many others there are."""

import sqlite3
from functools import partial

import pytest

from mindtrace.jobs import Progress, Queue, QueueKind, SQLiteClient
from mindtrace.jobs.ports import ABSENT, Ack, Dead, Guard, Message, Place, Release, Retry


def live_through_everything(client: SQLiteClient, queue: str) -> None:
    """Take jobs through every state, and call every method of the ports."""
    messages = [Message(f"job-{n}", b"{}") for n in range(7)]
    client.publish(queue, [*messages, messages[0], Message("later", b"{}", 0, 0.001)])
    with client.open_consumer(queue, lease_s=0.001) as consumer:
        consumer.receive(1, 0.0)
    with client.open_consumer(queue) as consumer:
        held = consumer.receive(8, 0.1)
        consumer.extend([each.receipt for each in held])
        consumer.report(held[0].receipt, Progress(1, 2))
        assert client.progress(queue) == {held[0].id: Progress(1, 2)}
        kinds = [
            lambda receipt: Ack(receipt),
            lambda receipt: Ack(receipt, b"7"),
            lambda receipt: Retry(receipt, 60.0, "no"),
            lambda receipt: Retry(receipt, 0.0, "no"),
            Release,
            lambda receipt: Release(receipt, 60.0),
            lambda receipt: Dead(receipt, "rejected", "no"),
        ]
        consumer.settle([kind(each.receipt) for kind, each in zip(kinds, held, strict=False)], take=2)
    client.publish(queue, [Message("job-1", b"{}")])
    client.result(queue, "job-0")
    client.dead_letters(queue)
    client.redrive(queue, [letter.id for letter in client.dead_letters(queue)])
    client.redrive(queue)
    client.discard(queue)
    client.counts(queue)
    client.queues()
    client.purge(queue)
    coordinate(client, queue)


def coordinate(client: SQLiteClient, queue: str) -> None:
    """Call every method of the coordination store."""
    store = client.coordination
    version = store.put("key", b"1", expected=ABSENT, ttl_s=60.0)
    assert version is not None
    assert store.get(["key", "other"]).keys() == store.scan("k").keys() == {"key"}
    assert store.delete("key", expected=version)
    places = [Place("limit", 1, "first"), Place("limit", 1, "second")]
    assert store.take_places(places, ttl_s=60.0)[1] is False
    store.leave_places(places)
    store.reserve("rate", 2, interval_s=60.0)
    client.publish_guarded(queue, Message("guarded", b"{}"), Guard(f"slot/{queue}", ABSENT, b"1"))


def test_no_query_reads_a_table_from_end_to_end_or_sorts(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where SQLite was told how large the tables are."""
    statements: set[str] = set()
    connect = sqlite3.connect

    class Traced(sqlite3.Connection):
        def execute(self, statement: str, *rest: object) -> sqlite3.Cursor:
            statements.add(statement)
            return super().execute(statement, *rest)  # type: ignore[arg-type]

        def executemany(self, statement: str, *rest: object) -> sqlite3.Cursor:
            statements.add(statement)
            return super().executemany(statement, *rest)  # type: ignore[arg-type]

    path = client._settings.path
    with monkeypatch.context() as patch, SQLiteClient(path) as traced:
        patch.setattr(sqlite3, "connect", partial(connect, factory=Traced))
        for kind in QueueKind:
            traced.declare(Queue(kind, kind))
            live_through_everything(traced, kind)
            traced.delete(kind)
    queries = [each for each in statements if each.split()[0] in ("SELECT", "DELETE", "UPDATE", "INSERT")]
    assert len(queries) > 40

    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(3000)])
    client.close()
    for analyzed in (False, True):
        db = connect(path)
        if analyzed:
            db.execute("ANALYZE")
        for query in queries:
            if (
                " FROM file" in query
                or "UPDATE file" in query
                or "sqlite_master" in query
                or "max(moment)" in query
            ):
                continue  # one row, or once when the file is opened
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}", [None] * query.count("?")).fetchall()
            steps = [step[3] for step in plan]
            # What json_each goes through is no table, but the list that the query was given.
            own = [step for step in steps if "json_each" not in step]
            wasteful = [step for step in own if step.startswith("SCAN") or "TEMP B-TREE" in step]
            assert not wasteful, f"{query}: {steps}"
        db.close()
