"""Which files are taken, which are refused, and how one of an earlier release is brought up to date."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mindtrace.jobs import Progress, Queue, QueueCounts, SQLiteClient
from mindtrace.jobs.adapters.sqlite import schema
from mindtrace.jobs.domain.errors import BackendError, BrokerUnsuitable
from mindtrace.jobs.ports import Ack, Message, SettleOutcome


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def another_applications(path: Path) -> None:
    change(path, "CREATE TABLE invoices (id INTEGER)")


def another_format(path: Path) -> None:
    change(path, "PRAGMA application_id = 7")


def no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)


@pytest.mark.parametrize("make", [another_applications, another_format, no_database])
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], None]
) -> None:
    """With the mend: another name."""
    make(path)
    before = path.read_bytes()

    with SQLiteClient(path) as client, pytest.raises(BrokerUnsuitable, match=r"name (a|another) file"):
        client.declare(Queue("points"))

    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_empty_file_is_taken(path: Path) -> None:
    """As whoever makes files ahead of time, with their modes, leaves them."""
    path.touch()
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        assert client.counts("points") == QueueCounts(0, 0, 0, 0)


def test_a_file_of_a_newer_release_is_refused(client: SQLiteClient, path: Path) -> None:
    """It may hold what this one would not understand."""
    client.close()
    change(path, f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")

    with SQLiteClient(path) as again, pytest.raises(BrokerUnsuitable, match="upgrade mindtrace-jobs"):
        again.counts("points")


def test_a_file_of_an_earlier_release_is_brought_up_to_date_with_its_jobs(
    client: SQLiteClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is first opened, in one step."""
    client.publish("points", [Message("job", b"{}")])
    client.close()
    later = (*schema.MIGRATIONS, ("CREATE TABLE more (n INTEGER)", "INSERT INTO more VALUES (7)"))
    monkeypatch.setattr(schema, "MIGRATIONS", later)

    for _ in range(2):
        with SQLiteClient(path) as again:
            assert again.counts("points").ready == 1

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT n FROM more").fetchall() == [(7,)]
        assert db.execute("PRAGMA user_version").fetchall() == [(len(later),)]


def test_a_file_of_the_first_version_keeps_its_queues_and_the_jobs_in_hand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a worker of the earlier release goes on beside the new one."""
    with SQLiteClient(path) as old, SQLiteClient(path) as new:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
            old.declare(Queue("points"))
            old.publish("points", [Message("job", b"{}"), Message("other", b"{}")])
            worker = old.open_consumer("points")
            held, _ = worker.receive(2, 0.0)
        assert new.queues() == [Queue("points")]
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchall() == [(1,)], "it was only looked at"

        assert new.counts("points") == QueueCounts(0, 0, 2, 0)
        assert new.progress("points") == {}
        worker.report(held.receipt, Progress(1, 2))
        assert new.progress("points") == {"job": Progress(1, 2)}
        assert worker.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
        assert new.counts("points") == QueueCounts(0, 0, 1, 0)


def test_a_release_without_coordination_goes_on_beside_one_that_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with clients that it opens afterwards, as the file's version is the same."""
    with SQLiteClient(path) as old, SQLiteClient(path) as new:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "ADDED_TABLES", {})
            old.declare(Queue("points"))
            old.publish("points", [Message("job", b"{}"), Message("other", b"{}")])
            worker = old.open_consumer("points")
            held, _ = worker.receive(2, 0.0)
            assert new.queues() == [Queue("points")]
            assert tables(path).isdisjoint({"record", "place", "turn"})

        assert new.coordination.get(["key"]) == {}
        assert new.coordination.put("key", b"1") is not None
        assert {"record", "place", "turn"} <= tables(path)
        with monkeypatch.context() as patch:
            patch.setattr(schema, "ADDED_TABLES", {})
            assert worker.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
            with SQLiteClient(path) as later:
                later.publish("points", [Message("more", b"{}")])
                assert later.counts("points") == QueueCounts(1, 0, 1, 0)
                later.delete("points")
        assert new.coordination.get(["key"])["key"].value == b"1"


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_step_to_a_later_release_that_fails_leaves_the_file_as_it_was(
    client: SQLiteClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the earlier release still reads it."""
    client.publish("points", [Message("job", b"{}")])
    client.close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE more (n)", "NO SQL")))
        with SQLiteClient(path) as again, pytest.raises(BackendError, match="NO"):
            again.counts("points")

    with SQLiteClient(path) as again:
        assert again.counts("points").ready == 1
    with closing(sqlite3.connect(path)) as db:
        assert not db.execute("SELECT * FROM sqlite_master WHERE name = 'more'").fetchall()
