"""What stands in the way of a transaction, and what the caller is told."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from background import Background
from mindtrace.jobs import PublishStatus, Queue, QueueCounts, SQLiteClient
from mindtrace.jobs.adapters.sqlite import FileDamaged, session
from mindtrace.jobs.adapters.sqlite.filesystem import filesystem_of, refuse_network_share
from mindtrace.jobs.domain.errors import BackendUnavailable, BrokerUnsuitable, Closed
from mindtrace.jobs.ports import Ack, Message, SettleOutcome


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It may be a disk that isn't mounted yet, so a worker goes on trying."""
    with (
        SQLiteClient(tmp_path / "no" / "jobs.db") as client,
        pytest.raises(BackendUnavailable, match=r"no folder .*/no for jobs.db: create it"),
    ):
        client.declare(Queue("points"))


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    former = os.umask(request.param)
    yield
    os.umask(former)


def modes(path: Path) -> dict[str, int]:
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.rglob("*")}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "folders"), [(None, 0o700), (0o660, 0o770), (0o640, 0o750)])
def test_who_may_read_the_file_may_read_what_lies_beside_it(
    path: Path,
    mode: int | None,
    folders: int,
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    """By default nobody but its owner, whatever the umask; the mode of a file that exists stays."""
    if mode is not None:
        path.touch()
        path.chmod(mode)
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        client.publish("points", [Message("a", b"{}")])
        with client.open_consumer("points") as consumer, Background() as thread:
            assert consumer.receive(2, timeout_s=0.0)
            waits = thread.submit(consumer.receive, 1, 60.0)
            eventually(lambda: any(path.parent.rglob("*-ready")))
            consumer.interrupt()
            assert waits.result(60.0) == []
            found = modes(path)

    fifos = {name for name in found if name.endswith("-ready")}
    files = {"jobs.db", "jobs.db-wal", "jobs.db-shm", *fifos}
    assert found == dict.fromkeys(files, mode or 0o600) | {"jobs.db-wakeups": folders}


def test_a_link_to_a_file_that_is_not_there_yet_is_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "there.db")
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))

    assert modes(path)["there.db"] == 0o600


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """And says what to do."""
    with SQLiteClient(tmp_path) as client, pytest.raises(BrokerUnsuitable, match="is a folder: name a file"):
        client.declare(Queue("points"))


def test_a_sqlite_that_is_too_old_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version that is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with SQLiteClient(path) as client, pytest.raises(BrokerUnsuitable, match=r"3\.35\.0 is needed"):
        client.declare(Queue("points"))


def test_a_damaged_file_is_told_with_the_way_to_save_what_is_left(client: SQLiteClient, path: Path) -> None:
    """And never mended in silence."""
    client.publish("points", [Message(f"job-{n}", b"{}") for n in range(2000)])
    client.close()
    damaged = bytearray(path.read_bytes())
    for start in range(8192, len(damaged), 4096):
        damaged[start : start + 200] = b"\xff" * 200
    path.write_bytes(damaged)

    with SQLiteClient(path) as again, pytest.raises(FileDamaged, match=r"is damaged .* \.recover"):
        again.counts("points")
    assert path.read_bytes()[8192:8392] == b"\xff" * 200


def test_a_file_that_stays_locked_is_told_of_however_often_it_was_tried(
    client: SQLiteClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a process is stopped in the midst of a transaction."""
    monkeypatch.setattr(session, "_PAUSE_S", (0.0, 0.0))
    with closing(sqlite3.connect(path)) as other, SQLiteClient(path, retry_timeout_s=0.5) as waiting:
        waiting.counts("points")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match="locked"):
            waiting.declare(Queue("more"))


@pytest.fixture
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Lock the file until the test ends."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:

        def lock() -> None:
            other.execute("BEGIN IMMEDIATE")

        yield lock


def test_closing_a_client_of_a_locked_file_takes_one_patience_however_many_consumers_it_has(
    client: SQLiteClient, path: Path, locked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program can end while another hangs (CON-2)."""
    retry_timeout_s, count = 1.0, 8
    pauses_s: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)
        time.sleep(pause_s)

    client.publish("points", [Message(f"job-{number}", b"{}") for number in range(count)])
    waiting = SQLiteClient(path, retry_timeout_s=retry_timeout_s)
    for consumer in [waiting.open_consumer("points") for _ in range(count)]:
        assert len(consumer.receive(1, 0.0)) == 1
    locked()

    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    waiting.close()
    assert 0.0 < sum(pauses_s) < retry_timeout_s * count / 2  # all that it chose to wait


def test_a_consumer_of_a_locked_file_closes_though_another_thread_waits_for_its_turn(
    client: SQLiteClient, path: Path, locked: Callable[[], None]
) -> None:
    """That thread's call raises Closed (CON-2)."""
    client.publish("points", [Message("job", b"{}")])
    with SQLiteClient(path, retry_timeout_s=0.5) as waiting, Background() as thread:
        consumer = waiting.open_consumer("points")
        (held,) = consumer.receive(1, 0.0)
        locked()
        consumer._session._settings = replace(consumer._session._settings, retry_timeout_s=30.0)
        began = threading.Event()
        change = consumer._queue.write
        consumer._queue.write = lambda work: began.set() or change(work)  # type: ignore[method-assign]
        settling = thread.submit(consumer.settle, [Ack(held.receipt)])
        assert began.wait(10)
        consumer.close()

        assert isinstance(settling.exception(10), Closed)


class FailingDisk(sqlite3.Connection):
    """A connection whose next commits end with an error of the disk."""

    failures = 0
    code = sqlite3.SQLITE_IOERR_FSYNC

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.in_transaction and FailingDisk.failures:
            FailingDisk.failures -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self.code
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return super().execute(statement, *rest)


@pytest.fixture
def failing(client: SQLiteClient, monkeypatch: pytest.MonkeyPatch) -> SQLiteClient:
    connect = sqlite3.connect
    monkeypatch.setattr(
        session.sqlite3, "connect", lambda *a, **options: connect(*a, factory=FailingDisk, **options)
    )
    monkeypatch.setattr(FailingDisk, "failures", 0)
    client._session._drop()
    return client


def test_a_publish_whose_commit_the_disk_failed_is_unknown_and_safe_to_repeat(failing: SQLiteClient) -> None:
    """Under the same id it is one job, whatever became of the first (PUB-4, PUB-5)."""
    failing.counts("points")
    FailingDisk.failures = 1

    statuses = [failing.publish("points", [Message("job", b"{}")])[0].status for _ in range(3)]

    assert statuses == [PublishStatus.UNKNOWN, PublishStatus.ACCEPTED, PublishStatus.DUPLICATE]
    assert failing.counts("points") == QueueCounts(1, 0, 0, 0)


def test_a_settlement_whose_commit_the_disk_failed_can_be_repeated(failing: SQLiteClient) -> None:
    """What is held is what the file says, not what was asked of it."""
    failing.publish("points", [Message("job", b"{}")])
    with failing.open_consumer("points") as consumer:
        (held,) = consumer.receive(1, 0.0)
        FailingDisk.failures = 1
        with pytest.raises(BackendUnavailable, match="failed at a commit"):
            consumer.settle([Ack(held.receipt)])

        assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
        assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.ALREADY]


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /mnt/team rw,relatime - nfs4 server:/team rw
31 22 0:41 / /mnt/my\040files rw,relatime shared:9 master:2 - cifs //server/x rw
32 30 0:42 / /mnt/team/local rw - xfs /dev/vdb rw
33 22 0:43 / /mnt/over rw - nfs server:/y rw
34 33 0:44 / /mnt/over rw - tmpfs tmpfs rw
""".strip()


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/var/lib/jobs.db", "ext4"),
        ("/mnt/team/jobs.db", "nfs4"),
        ("/mnt/teams/jobs.db", "ext4"),
        ("/mnt/my files/jobs.db", "cifs"),
        ("/mnt/team/local/jobs.db", "xfs"),
        ("/mnt/over/jobs.db", "tmpfs"),
    ],
)
def test_a_network_share_is_refused_by_the_type_of_its_file_system(
    tmp_path: Path, file: str, kind: str
) -> None:
    """Of the mount that holds the file, and the last over its point."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)

    assert filesystem_of(Path(file), mounts) == kind
    if kind in ("nfs4", "cifs"):
        with pytest.raises(BrokerUnsuitable, match=rf"on a network share \({kind}\).* use a server such as"):
            refuse_network_share(Path(file), mounts)
    else:
        refuse_network_share(Path(file), mounts)


def test_where_the_system_does_not_say_every_file_is_taken(tmp_path: Path) -> None:
    """Better than refusing all."""
    refuse_network_share(Path("/mnt/team/jobs.db"), tmp_path / "none")
