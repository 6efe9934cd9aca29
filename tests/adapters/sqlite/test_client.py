"""The client of a file: how it is named, what lasts, and what is dropped in time."""

import gc
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mindtrace.jobs import Orchestrator, PublishStatus, Queue, QueueCounts, SQLiteClient
from mindtrace.jobs.adapters.sqlite import admin, settle
from mindtrace.jobs.adapters.sqlite import client as client_module
from mindtrace.jobs.domain.errors import InvalidInput, InvalidName, QueueNotFound
from mindtrace.jobs.ports import Ack, Dead, Durability, Message, Release, Retry, SettleOutcome

TABLES = ("ready", "delay", "lease", "dead", "job", "result", "ended")


def rows(path: Path) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(path)) as db:
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}


# -- naming it ------------------------------------------------------------------------------------


def test_a_url_names_a_relative_or_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes and four, as elsewhere; what is special is percent-encoded."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///my%20jobs.db", f"sqlite:///{tmp_path}/my%20jobs.db"):
        with SQLiteClient.from_url(url) as client:
            assert client._settings.path == tmp_path / "my jobs.db"


def test_a_relative_path_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folder the process goes to before it is first used."""
    monkeypatch.chdir(tmp_path)
    with SQLiteClient("jobs.db") as client:
        monkeypatch.chdir("/")
        client.declare(Queue("points"))

    assert (tmp_path / "jobs.db").exists()


def test_a_url_names_namespace_and_durability(tmp_path: Path) -> None:
    """And nothing else; an orchestrator takes it as it is."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    with SQLiteClient.from_url(f"{url}?namespace=team&durability=snapshot") as client:
        assert client.capabilities.durability is Durability.SNAPSHOT
        client.declare(Queue("points"))
        assert client._session._connection.execute("PRAGMA synchronous").fetchall() == [(1,)]
    with SQLiteClient(tmp_path / "jobs.db", namespace="team") as client:
        assert client.counts("points") == QueueCounts(0, 0, 0, 0)
        assert client._session._connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
    with pytest.raises(InvalidInput, match=r"takes no mode; it takes namespace, durability"):
        SQLiteClient.from_url(f"{url}?mode=ro")
    assert isinstance(Orchestrator(url).backend, SQLiteClient)


@pytest.mark.parametrize("url", ["sqlite://jobs.db", "sqlite://", "sqlite:///", "sqlite://host/jobs.db"])
def test_a_url_without_a_path_is_refused_with_one_that_has(url: str) -> None:
    """Two slashes are what most people write first."""
    with pytest.raises(InvalidInput, match=r"sqlite:///jobs\.db"):
        SQLiteClient.from_url(url)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SQLiteClient(""), "name a file"),
        (lambda: SQLiteClient(":memory:"), "or use LocalClient"),
        (lambda: SQLiteClient("a\0b"), "name a file"),
        (lambda: SQLiteClient("jobs.db", durability="replicated"), "'fsync' or 'snapshot'"),
        (lambda: SQLiteClient("jobs.db", namespace="a b"), "namespace"),
    ],
)
def test_what_can_be_no_file_is_refused_at_once(make: Callable[[], object], message: str) -> None:
    """With the rule, before anything is opened."""
    with pytest.raises((InvalidInput, InvalidName), match=message):
        make()


# -- what lasts -----------------------------------------------------------------------------------


def test_jobs_last_beyond_their_client_with_all_that_happened_to_them(
    client: SQLiteClient, path: Path
) -> None:
    """Attempts, deliveries, history, dead letters, results and kinds."""
    client.publish("points", [Message("a", b'"a"'), Message("b", b'"b"'), Message("c", b'"c"')])
    client.declare(Queue("pile", "stack"))
    with client.open_consumer("points") as consumer:
        a, b, c = consumer.receive(3, 0.0)
        consumer.settle([Retry(a.receipt, 0.0, "once"), Dead(b.receipt, "rejected", "no good")])
        consumer.settle([Ack(c.receipt, b"7")])
    client.close()

    with SQLiteClient(path) as again, again.open_consumer("points") as consumer:
        (a,) = consumer.receive(9, 0.0)
        assert (a.id, a.body, a.attempt, a.number, a.crashes) == ("a", b'"a"', 2, 2, 0)
        (letter,) = again.dead_letters("points")
        assert (letter.id, letter.reason, letter.error) == ("b", "rejected", "no good")
        assert again.result("points", "c").body == b"7"
        again.declare(Queue("pile", "stack"))


def test_a_receipt_is_never_good_for_another_delivery_of_the_job(client: SQLiteClient) -> None:
    """Not even where the two leases end at the same microsecond (LSE-4)."""
    client.publish("points", [Message("job", b"{}")])
    first, second = client.open_consumer("points"), client.open_consumer("points")
    (stale,) = first.receive(1, 0.0)
    thief = first._held.get(stale.receipt)
    assert thief is not None
    first.settle([Release(stale.receipt)])
    (held,) = second.receive(1, 0.0)
    heir = second._held.get(held.receipt)
    assert heir is not None
    first._held.replace(stale.receipt, thief._replace(ends=heir.ends))

    assert first.settle([Ack(stale.receipt)]).outcomes == [SettleOutcome.LOST]
    assert second.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]


def test_one_receipt_twice_in_a_batch_settles_once(client: SQLiteClient) -> None:
    """As the first says (SET-1)."""
    client.publish("points", [Message("job", b"{}")])
    with client.open_consumer("points") as consumer:
        (held,) = consumer.receive(1, 0.0)
        settled = consumer.settle([Ack(held.receipt), Retry(held.receipt, 0.0, "no")])

    assert settled.outcomes == [SettleOutcome.OK, SettleOutcome.ALREADY]
    assert client.counts("points") == QueueCounts(0, 0, 0, 0)


def test_a_large_batch_takes_several_transactions_and_keeps_its_order(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in number and in bytes."""
    monkeypatch.setattr(client_module, "_CHUNK_JOBS", 7)
    monkeypatch.setattr(client_module, "_CHUNK_BYTES", 50)
    messages = [Message(f"job-{n}", b"x" * (n % 40)) for n in range(60)]

    outcomes = client.publish("points", [*messages, messages[3]])

    assert [outcome.id for outcome in outcomes] == [*(message.id for message in messages), "job-3"]
    assert [outcome.status for outcome in outcomes] == [PublishStatus.ACCEPTED] * 60 + [
        PublishStatus.DUPLICATE
    ]
    with client.open_consumer("points") as consumer:
        assert [delivery.id for delivery in consumer.receive(99, 0.0)] == [each.id for each in messages]


def test_a_large_batch_whose_queue_is_deleted_on_the_way_is_answered_to_its_end(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised once anything was sent (PUB-4)."""
    monkeypatch.setattr(client_module, "_CHUNK_JOBS", 2)

    class Deleting(list[Message]):
        def __iter__(self) -> Iterator[Message]:
            for number, message in enumerate(super().__iter__()):
                if number == 4:
                    client.delete("points")
                yield message

    outcomes = client.publish("points", Deleting(Message(f"job-{n}", b"{}") for n in range(6)))

    assert [outcome.status for outcome in outcomes[:2]] == [PublishStatus.ACCEPTED] * 2
    assert [outcome.status for outcome in outcomes[-2:]] == [PublishStatus.REJECTED] * 2
    assert isinstance(outcomes[-1].error, QueueNotFound)


# -- what goes ------------------------------------------------------------------------------------


def test_a_queue_that_is_deleted_leaves_no_row(client: SQLiteClient, path: Path) -> None:
    """In any table, in whatever state its jobs were (ADM-3)."""
    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(5)])
    client.publish("points", [Message("later", b"{}", 0, 60.0)])
    consumer = client.open_consumer("points")
    dead, done, ended, *_ = consumer.receive(4, 0.0)
    consumer.settle([Dead(dead.receipt, "rejected", "no"), Ack(done.receipt, b"7"), Ack(ended.receipt)])
    assert min(rows(path).values()) >= 1

    client.delete("points")

    assert rows(path) == dict.fromkeys(TABLES, 0)


def test_what_a_killed_deletion_left_is_dropped_by_the_next_who_declares(
    client: SQLiteClient, path: Path
) -> None:
    """And is out of sight until then."""
    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(5)])
    client._queue("points").write(admin.mark_deleted)
    client.declare(Queue("points"))
    assert client.counts("points") == QueueCounts(0, 0, 0, 0)
    for _ in range(3):
        client.declare(Queue("points"))

    assert rows(path) == dict.fromkeys(TABLES, 0)


def test_results_are_dropped_once_their_time_is_over(client: SQLiteClient, path: Path) -> None:
    """By those who store new ones, so that they don't grow."""
    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(21)])
    with client.open_consumer("points") as consumer:
        deliveries = consumer.receive(21, 0.0)
        consumer.settle([Ack(each.receipt, b"7", 0.01) for each in deliveries[:20]])
        assert rows(path)["result"] == 20
        time.sleep(0.05)
        consumer.settle([Ack(deliveries[20].receipt, b"8", 60.0)])

    assert rows(path)["result"] == 1


def test_of_jobs_without_a_result_the_last_that_ended_are_remembered(
    client: SQLiteClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a number."""
    monkeypatch.setattr(settle, "REMEMBERED_ENDS", 3)
    ids = [f"job-{n}" for n in range(5)]
    client.publish("points", [Message(id_, b"{}") for id_ in ids])
    with client.open_consumer("points") as consumer:
        consumer.settle([Ack(each.receipt) for each in consumer.receive(5, 0.0)])

    assert [client.result("points", id_) is not None for id_ in ids] == [False, False, True, True, True]
    assert rows(path)["ended"] == 3


def test_a_closed_client_leaves_one_file(client: SQLiteClient, path: Path) -> None:
    """Its log is in it, and gone; fifos are made by those who wait only."""
    client.publish("points", [Message("job", b"{}")])
    client.open_consumer("points").receive(1, 0.0)
    client.close()

    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_client_that_nobody_closed_closes_itself_when_it_is_collected(path: Path) -> None:
    """Or Python 3.13 warns of each connection, which is an error here."""
    client = SQLiteClient(path)
    client.declare(Queue("points"))
    consumer = client.open_consumer("points")
    consumer.receive(1, 0.0)
    del client, consumer
    gc.collect()

    assert [file.name for file in path.parent.iterdir()] == [path.name]
