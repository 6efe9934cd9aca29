"""What the doctor says of a file: each fault is planted, and nothing is changed by looking."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindtrace.jobs import Finding, Queue, SQLiteClient, Verdict
from mindtrace.jobs.adapters.sqlite import diagnosis, schema, session
from mindtrace.jobs.ports import Durability, Message

GOOD, DOUBTFUL, WRONG = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.WRONG
MIB = 1024**2


@pytest.fixture(autouse=True)
def _disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room, wherever the tests run."""
    monkeypatch.setattr(diagnosis, "filesystem_of", lambda _: "ext4")
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000 * MIB))


def findings(path: Path, **options: object) -> dict[str, Finding]:
    """What is found, by subject."""
    with SQLiteClient(path, **options) as client:  # type: ignore[arg-type]
        found = client.diagnose()
    assert all(bool(finding.remedy) == (finding.verdict is not GOOD) for finding in found)
    assert len({finding.subject for finding in found}) == len(found)
    return {finding.subject: finding for finding in found}


def test_a_file_that_is_well_has_nothing_to_mend_and_stays_as_it_is(client: SQLiteClient, path: Path) -> None:
    """Its bytes included."""
    client.publish("points", [Message("job", b"{}")])
    client.close()
    before = path.read_bytes()
    found = findings(path)

    assert {finding.verdict for finding in found.values()} == {GOOD}
    assert found.keys() == {
        "reachable",
        "tables",
        "damage",
        "journal",
        "clock",
        "queues",
        "writable",
        "durability",
        "disk",
        "version",
    }
    assert found["queues"].what == "1 in namespace 'default'"
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_yet_to_be_made_is_well_and_is_not_made(path: Path) -> None:
    found = findings(path)
    assert {finding.verdict for finding in found.values()} == {GOOD}
    assert "its first use makes it" in found["reachable"].what
    assert list(path.parent.iterdir()) == []
    path.touch()
    assert "the first use makes them" in findings(path)["tables"].what
    assert path.stat().st_size == 0


def test_a_file_of_an_earlier_release_is_not_brought_up_to_date_by_a_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which workers of that release may have open."""
    with monkeypatch.context() as patch, SQLiteClient(path) as old:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        old.declare(Queue("points"))
    found = findings(path)

    assert found["tables"].what == "version 1; the next use brings them up to version 3"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchall() == [(1,)]


def test_tables_that_are_yet_to_be_added_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of the release before, which a look doesn't change."""
    with monkeypatch.context() as patch, SQLiteClient(path) as old:
        patch.setattr(schema, "ADDED_TABLES", {})
        old.declare(Queue("points"))
    for _ in range(2):
        assert findings(path)["tables"].what == "version 3; the next use adds record, place, turn, cancel"
    with SQLiteClient(path) as client:
        client.coordination.now()
    assert findings(path)["tables"].what == "version 3"


# -- files that can't be used ---------------------------------------------------------------------


def no_folder(path: Path) -> Path:
    return path.parent / "no" / "jobs.db"


def a_folder(path: Path) -> Path:
    return path.parent


def no_database(path: Path) -> Path:
    path.write_bytes(b"Dear diary, " * 1000)
    return path


def another_applications(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE invoices (id INTEGER)")
    return path


def damaged(path: Path) -> Path:
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        client.publish("points", [Message(f"job-{n}", b"{}") for n in range(2000)])
    content = bytearray(path.read_bytes())
    content[-4096:-3896] = b"\xff" * 200
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("plant", "subject", "what"),
    [
        (no_folder, "reachable", "no folder"),
        (a_folder, "file", "is a folder"),
        (no_database, "file", "no SQLite database"),
        (another_applications, "file", "another application"),
        (damaged, "damage", "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_all_there_is_to_say(
    path: Path, plant: Callable[[Path], Path], subject: str, what: str
) -> None:
    """With the reason; a doctor asks no more of it."""
    (finding,) = findings(plant(path)).values()

    assert (finding.subject, finding.verdict) == (subject, WRONG)
    assert what in finding.what


def test_a_network_share_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindtrace.jobs.adapters.sqlite.filesystem.filesystem_of", lambda *_: "nfs4")
    assert "on a network share (nfs4)" in findings(path)["file"].what


def test_a_sqlite_that_is_too_old_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert "3.35.0 is needed" in findings(path)["file"].what


def test_a_client_that_is_closed_is_a_finding_too(client: SQLiteClient) -> None:
    client.close()
    assert client.diagnose()[0].verdict is WRONG


# -- what weakens it ------------------------------------------------------------------------------


@pytest.fixture
def other(client: SQLiteClient, path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def test_one_who_hangs_in_a_transaction_is_found(path: Path, other: sqlite3.Connection) -> None:
    """After the patience of a call."""
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    finding = findings(path, retry_timeout_s=0.2)["writable"]

    assert finding.verdict is WRONG
    assert "end it if it hangs in a transaction" in finding.what
    assert time.monotonic() - began >= 0.2


def test_a_reader_that_never_ends_is_found_by_the_log_that_it_keeps(
    client: SQLiteClient, path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (session, diagnosis):
        monkeypatch.setattr(module, "LOG_LIMIT", MIB)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM job").fetchall()
    client.publish("points", [Message(f"job-{n}", b"x" * 10_000) for n in range(300)])

    finding = findings(path)["journal"]
    assert finding.verdict is DOUBTFUL
    assert "reading in one transaction for long" in finding.what


def test_another_journal_is_found(client: SQLiteClient, path: Path) -> None:
    client.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchall()

    assert findings(path)["journal"].verdict is DOUBTFUL
    with SQLiteClient(path) as again:  # as the mend says
        again.counts("points")
    assert findings(path)["journal"].verdict is GOOD


def test_a_calendar_that_was_set_is_found(path: Path, other: sqlite3.Connection) -> None:
    other.execute("UPDATE file SET base = base - 3600000000")
    finding = findings(path)["clock"]

    assert finding.verdict is DOUBTFUL
    assert "set by +3,600 s" in finding.what
    other.execute("UPDATE file SET boot = 'earlier'")
    assert findings(path)["clock"].verdict is GOOD


def test_jobs_that_nobody_takes_back_are_found(
    client: SQLiteClient, path: Path, other: sqlite3.Connection
) -> None:
    """Their worker died, and no other has come; a lease that ended just now is nothing yet."""
    client.publish("points", [Message("1", b"{}"), Message("2", b"{}")])
    consumer = client.open_consumer("points", lease_s=0.01)
    consumer.receive(2, 0.0)
    time.sleep(0.05)
    assert "leases" not in findings(path)
    other.execute("UPDATE lease SET ends = ends - 120000000")

    finding = findings(path)["leases"]
    assert finding.verdict is DOUBTFUL
    assert finding.what.startswith("queue 'points': 2 jobs still with workers whose lease ended up to")
    with client.open_consumer("points") as next_worker:  # as the mend says
        next_worker.receive(1, 0.0)
    assert "leases" not in findings(path)


@pytest.mark.parametrize(("free", "verdict"), [(10 * MIB, WRONG), (500 * MIB, DOUBTFUL), (5000 * MIB, GOOD)])
def test_a_disk_that_is_nearly_full_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert findings(path)["disk"].verdict is verdict


def test_a_weak_durability_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was asked for, or the file is in memory."""
    assert findings(path, durability=Durability.SNAPSHOT)["durability"].verdict is DOUBTFUL
    monkeypatch.setattr(diagnosis, "filesystem_of", lambda _: "tmpfs")
    assert "in memory (tmpfs)" in findings(path)["durability"].what


def test_a_look_at_a_large_file_ends_in_time_and_holds_nobody_up(
    client: SQLiteClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it could not look at, it says."""
    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(3000)])
    monkeypatch.setattr(diagnosis, "_CHECK_S", 0.0)
    monkeypatch.setattr(diagnosis, "_STEPS", 100)
    looking = threading.Thread(target=lambda: [findings(path) for _ in range(20)])
    looking.start()
    for n in range(20):
        assert client.publish("points", [Message(f"more-{n}", b"{}")])[0].status == "accepted"
    looking.join()

    found = findings(path)
    assert "which wasn't enough for all of the file" in found["damage"].what
    assert found["writable"].verdict is GOOD
