"""What a file, its disk and the processes that share it can suffer, and how the account stands afterwards.

What several backends can suffer alike is tried in ``faults/``; here is what is a file's own. Where a worker
is killed, it is a process, as a user runs it.
"""

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from background import Background
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, JobAudit, Totals
from mindtrace.jobs import (
    Job,
    Orchestrator,
    PublishStatus,
    Queue,
    QueueCounts,
    job_from_schema,
)
from mindtrace.jobs.adapters.sqlite import DiskFull, SQLiteClient, SQLiteConsumerBackend
from mindtrace.jobs.adapters.sqlite.admin import CHUNK
from mindtrace.jobs.adapters.sqlite.wakeups import FifoWaiter
from mindtrace.jobs.domain.errors import AccessDenied, BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Ack, Message

from .recording_worker import SCHEMA, Numbered
from .worker_process import WorkerProcess

QUEUE = SCHEMA.name
FOR_EVER_S = 3600.0
"""A wait that only what is tested can end."""
LEASES = "SELECT id, lease.number FROM lease JOIN job USING (seq)"


class Experiment:
    """One file, one queue, the producer's side of it, and the account of what becomes of its jobs."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.path = folder / "jobs.db"
        self.url = f"sqlite:///{self.path}"
        self.record = ExecutionRecord(folder / "record")
        self.audit = JobAudit()
        self.stack = stack
        self.backend = stack.enter_context(SQLiteClient(self.path, retry_timeout_s=LIMIT_S))
        self.orchestrator = Orchestrator(self.backend)
        self.orchestrator.register(SCHEMA)
        self._seen: set[tuple[str, int]] = set()

    def jobs(self, count: int) -> list[Job[Numbered]]:
        return [job_from_schema(SCHEMA, Numbered(number=number)) for number in range(count)]

    def publish(self, jobs: list[Job[Numbered]]) -> None:
        outcomes = [handle.outcome for handle in self.orchestrator.publish_batch(QUEUE, jobs)]
        assert {outcome.status for outcome in outcomes} == {PublishStatus.ACCEPTED}
        self.audit.confirmed |= {outcome.id for outcome in outcomes}

    def start_workers(self, count: int, **options: float) -> list[WorkerProcess]:
        """Start worker processes, and wait until each has run a job; one that comes late still finds some."""
        workers = [WorkerProcess(self.url, self.record, **options) for _ in range(count)]
        for worker in workers:
            self.stack.callback(worker.kill)
        pids = {worker.pid for worker in workers}

        def all_work() -> bool:
            if self.backend.counts(QUEUE).ready < 500:
                self.publish(self.jobs(500))
            return pids <= {run.pid for run in self.record.runs()}

        eventually(all_work, "each worker works")
        return workers

    @property
    def is_drained(self) -> bool:
        return self.backend.counts(QUEUE) == QueueCounts(0, 0, 0, 0)

    def note_fault(self) -> int:
        """Remember what is in flight of workers that are all dead now; return how many jobs that are."""
        leases = set(self.ask(LEASES))
        fresh = leases - self._seen
        self._seen |= leases
        self.audit.in_flight_at_faults.append({id_ for id_, _ in fresh})
        return len(fresh)

    def ask(self, query: str) -> list[tuple[str, int]]:
        """Ask the file, as it is."""
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query).fetchall()

    def check(self) -> Totals:
        """Demand that the account adds up, that the file is sound and its counts are what it holds."""
        assert self.ask("PRAGMA integrity_check") == [("ok",)]
        found = self.ask("SELECT (SELECT count(*) FROM ready), ready FROM queue")
        found += self.ask("SELECT (SELECT count(*) FROM delay), delayed FROM queue")
        found += self.ask("SELECT (SELECT count(*) FROM lease), leased FROM queue")
        found += self.ask("SELECT (SELECT count(*) FROM dead), dead FROM queue")
        assert all(there == counted for there, counted in found), found
        return self.audit.check(self.backend, QUEUE, self.record)


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    with ExitStack() as stack:
        yield Experiment(tmp_path, stack)


# -- processes that die or sleep ------------------------------------------------------------------


@pytest.mark.long
def test_killing_four_workers_at_random_loses_no_job_and_repeats_only_what_was_in_hand(
    experiment: Experiment,
) -> None:
    seed, lease_s = random.randrange(10**6), 10.0
    chance = random.Random(seed)
    in_flight = 0

    for _ in range(4):
        workers = experiment.start_workers(4, lease_s=lease_s, job_s=0.01)
        chance.shuffle(workers)
        for worker in workers:  # each at a moment of its own, beside those that are still at work
            time.sleep(chance.uniform(0, 0.04))
            worker.kill()
        in_flight += experiment.note_fault()
    assert in_flight, "the kills came too late to tell anything"
    last = [WorkerProcess(experiment.url, experiment.record, lease_s=lease_s) for _ in range(4)]
    for worker in last:
        experiment.stack.callback(worker.kill)
    eventually(lambda: experiment.is_drained, "every job is done")

    totals = experiment.check()
    print(f"seed {seed}: {totals}, {in_flight} in flight")
    assert totals.done == len(experiment.audit.confirmed)
    assert totals.ran_again <= in_flight
    assert sum(worker.end()["lost"] for worker in last) == 0


PRODUCER = """
import sys
from mindtrace.jobs.adapters.sqlite import SQLiteClient
from mindtrace.jobs.ports import Message
client = SQLiteClient(sys.argv[1])
for batch in range(10**6):
    client.publish("squares", [Message(f"{batch}-{n}", b"{}") for n in range(50)])
    print(batch, flush=True)
"""


@pytest.mark.long
def test_a_producer_that_is_killed_leaves_whole_batches_and_every_one_that_was_confirmed(
    experiment: Experiment,
) -> None:
    for _ in range(5):
        command = [sys.executable, "-c", PRODUCER, experiment.path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
            assert producer.stdout is not None
            producer.stdout.readline()
            time.sleep(random.uniform(0, 0.1))
            producer.kill()
            confirmed = 1 + len(producer.stdout.read().splitlines())
        there = experiment.ask("SELECT id, 1 FROM job")
        batches = {id_.partition("-")[0] for id_, _ in there}
        assert len(there) == 50 * len(batches), "a batch is there in part"
        assert confirmed <= len(batches) <= confirmed + 1
        assert experiment.backend.purge(QUEUE) == len(there)


OPENER = """
import os, sys, time
from mindtrace.jobs.adapters.sqlite import SQLiteClient
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import Message
folder = sys.argv[1]
print("ready", flush=True)
while not os.path.exists(folder + "/go"):
    time.sleep(0.001)
for number in range(20):
    with SQLiteClient(f"{folder}/{number}.db", retry_timeout_s=60.0) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message(str(os.getpid()), b"{}")])
"""


def test_many_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENER, tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(6)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 6
    (tmp_path / "go").touch()
    errors = [process.communicate(timeout=LIMIT_S)[1] for process in processes]

    assert errors == [""] * 6
    for number in range(20):
        with SQLiteClient(tmp_path / f"{number}.db") as client:
            assert client.counts("jobs") == QueueCounts(6, 0, 0, 0)


def wake_by_a_publish(backend: SQLiteClient) -> None:
    """Have a consumer wait for a job that nothing but the wake-up of its publish can tell it of."""
    with backend.open_consumer(QUEUE) as consumer, Background() as thread:
        waiting = thread.submit(consumer.receive, 1, FOR_EVER_S)
        eventually(lambda: is_waiting(consumer), "it waits")
        backend.publish(QUEUE, [Message(f"job-{time.monotonic_ns()}", b"{}")])
        (delivery,) = waiting.result(LIMIT_S)
        consumer.settle([Ack(delivery.receipt)])


def is_waiting(consumer: SQLiteConsumerBackend) -> bool:
    waiter = consumer._waiter
    return isinstance(waiter, FifoWaiter) and waiter._waiting.locked()


def listens(worker: WorkerProcess, fifos: Path) -> bool:
    """Whether a worker has a FIFO open, which it has from its first wait on."""
    open_files = []
    for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            open_files.append(descriptor.readlink())
    return any(file.parent == fifos for file in open_files)


@pytest.mark.long
def test_a_waiter_that_is_killed_swallows_no_wake_up_and_leaves_nothing_that_grows(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifos = Path(f"{experiment.path}-wakeups")
    settings = replace(experiment.backend._settings, look_s=FOR_EVER_S)
    monkeypatch.setattr(experiment.backend, "_settings", settings)
    experiment.publish(experiment.jobs(2))
    for _ in range(3):
        workers = [WorkerProcess(experiment.url, experiment.record) for _ in range(2)]
        for worker in workers:
            experiment.stack.callback(worker.kill)
            eventually(lambda worker=worker: listens(worker, fifos), "it waits")
        eventually(lambda: experiment.is_drained, "they have nothing else to do")
        for worker in workers:
            worker.kill()

        for _ in range(3):
            wake_by_a_publish(experiment.backend)
        assert len(list(fifos.iterdir())) == 1


# -- forks ----------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], object]) -> str:
    """Do ``work`` in a forked process that ends as Python ends, and return what it returned, as text."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(sink, answer.encode())
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def test_a_forked_process_has_connections_of_its_own_and_leaves_its_parents_alone(
    experiment: Experiment,
) -> None:
    experiment.backend.publish(QUEUE, [Message("a", b"{}"), Message("b", b"{}")])
    consumer = experiment.backend.open_consumer(QUEUE)
    (held,) = consumer.receive(1, 1.0)

    def publish_and_close() -> str:
        status = experiment.backend.publish(QUEUE, [Message("c", b"{}")])[0].status
        consumer.close()
        experiment.backend.close()
        return str(status)

    assert in_a_fork(publish_and_close) == "'accepted'"
    assert in_a_fork(lambda: consumer.receive(1, 0.0)).startswith("Closed: ")
    assert experiment.backend.counts(QUEUE) == QueueCounts(2, 0, 1, 0)
    assert consumer.settle([Ack(held.receipt)]).outcomes == ["ok"]
    assert experiment.ask("PRAGMA integrity_check") == [("ok",)]


FORKER = """
import os, sys, threading
from mindtrace.jobs import Orchestrator
from e2e.recording_worker import SCHEMA
orchestrator = Orchestrator(sys.argv[1])
orchestrator.register(SCHEMA)
stopping = threading.Event()
def publish():
    while not stopping.is_set():
        orchestrator.publish(SCHEMA, {"number": 1})
def look():
    while not stopping.is_set():
        orchestrator.queues()
threads = [threading.Thread(target=each) for each in [publish] * 4 + [look] * 2]
for thread in threads:
    thread.start()
children = []
for _ in range(12):
    child = os.fork()
    if child == 0:
        orchestrator.publish(SCHEMA, {"number": 2})
        orchestrator.close()
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stopping.set()
for thread in threads:
    thread.join()
print(codes.count(0))
"""


def test_a_child_forked_while_other_threads_use_the_file_can_use_it_too(experiment: Experiment) -> None:
    """SQLite would hold the locks of the threads that the child doesn't have."""
    command = [sys.executable, "-W", "ignore", "-c", FORKER, experiment.url]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_S)

    assert (done.stdout, done.stderr) == ("12\n", "")
    assert experiment.ask("PRAGMA integrity_check") == [("ok",)]


def test_what_a_child_writes_after_its_parent_closed_the_file_is_kept(tmp_path: Path) -> None:
    """A lock that the child only believed to have would not keep the parent from removing the log."""
    path, (go, start) = tmp_path / "jobs.db", os.pipe()
    client = SQLiteClient(path)
    client.declare(Queue(QUEUE))
    child = os.fork()
    if child == 0:
        os.close(start)
        client.publish(QUEUE, [Message("a", b"{}")])
        os.read(go, 1)
        client.publish(QUEUE, [Message("b", b"{}")])
        os._exit(0)
    os.close(go)
    with SQLiteClient(path) as other:
        eventually(lambda: other.counts(QUEUE).ready == 1, "the child has the file open")
    client.close()
    os.close(start)
    assert os.waitpid(child, 0)[1] == 0
    with SQLiteClient(path) as again:
        assert again.counts(QUEUE).ready == 2


# -- files that are in the way, or gone -----------------------------------------------------------


def test_a_process_that_hangs_in_a_transaction_is_waited_for_and_then_told_of(experiment: Experiment) -> None:
    (worker,) = experiment.start_workers(1, job_s=0.001)
    with closing(sqlite3.connect(experiment.path, isolation_level=None, timeout=LIMIT_S)) as hanging:
        hanging.execute("BEGIN IMMEDIATE")
        with SQLiteClient(experiment.path, retry_timeout_s=0.3) as impatient:
            (outcome,) = impatient.publish(QUEUE, [Message("late", b"{}")])
            assert outcome.status is PublishStatus.REJECTED
            assert isinstance(outcome.error, BackendUnavailable)
            assert "locked for longer than retry_timeout_s" in str(outcome.error)
            assert impatient.counts(QUEUE).dead == 0, "readers wait for nobody"
    eventually(lambda: experiment.is_drained, "the worker goes on")
    assert worker.end()["lost"] == 0
    assert experiment.check().done == len(experiment.audit.confirmed)


def test_a_file_that_is_removed_while_it_is_open_takes_no_job_with_it_unseen(experiment: Experiment) -> None:
    consumer = experiment.backend.open_consumer(QUEUE)
    for file in experiment.path.parent.glob("jobs.db*"):
        if file.is_file():
            file.unlink()

    with pytest.raises(QueueNotFound):
        experiment.backend.publish(QUEUE, [Message("a", b"{}")])
    with pytest.raises(QueueNotFound):
        consumer.receive(1, 0.0)
    experiment.backend.declare(Queue(QUEUE))
    experiment.backend.publish(QUEUE, [Message("a", b"{}")])
    assert [delivery.id for delivery in consumer.receive(1, 0.0)] == ["a"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_written_is_refused_with_the_mend(open_folder: Path) -> None:
    folder, path = open_folder, open_folder / "jobs.db"
    with SQLiteClient(path) as client:
        client.declare(Queue(QUEUE))

    def use(name: str) -> object:
        if os.geteuid() == 0:
            os.setuid(65534)  # nobody: nothing is denied to root
        with SQLiteClient(folder / name) as client:
            return client.publish(QUEUE, [Message("a", b"{}")])

    path.chmod(0o444)
    folder.chmod(0o777)
    read_only_file = in_a_fork(lambda: use("jobs.db"))
    path.chmod(0o666)
    folder.chmod(0o555)
    read_only_folder = in_a_fork(lambda: use("jobs.db"))
    no_file_in_a_read_only_folder = in_a_fork(lambda: use("other.db"))
    folder.chmod(0o644)
    folder_that_none_may_enter = in_a_fork(lambda: use("jobs.db"))

    for answer in (read_only_file, read_only_folder, no_file_in_a_read_only_folder):
        assert answer.startswith(f"{AccessDenied.__name__}: "), answer
        assert "let this user write the file and its folder" in answer
    assert folder_that_none_may_enter.startswith(f"{AccessDenied.__name__}: "), folder_that_none_may_enter


# -- a disk without room --------------------------------------------------------------------------


def fill(client: SQLiteClient) -> tuple[list[str], str]:
    """Publish until no more is taken; return what was confirmed, and the error."""
    confirmed: list[str] = []
    for number in range(2000):
        (outcome,) = client.publish(QUEUE, [Message(f"job-{number}", b'"' + b"x" * 20_000 + b'"')])
        if outcome.status is PublishStatus.ACCEPTED:
            confirmed.append(outcome.id)
        else:
            return confirmed, f"{outcome.status} {type(outcome.error).__name__}: {outcome.error}"
    raise AssertionError("it never was full")


def test_a_full_file_takes_no_more_loses_nothing_and_is_drained(experiment: Experiment) -> None:
    backend = experiment.backend
    backend.counts(QUEUE)
    connection = backend._session._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 300").fetchall()

    confirmed, error = fill(backend)

    assert error.startswith(f"rejected {DiskFull.__name__}: no room for {experiment.path} to grow")
    assert len(confirmed) > 10
    assert backend.counts(QUEUE).ready == len(confirmed)
    with backend.open_consumer(QUEUE) as consumer:
        deliveries = consumer.receive(1000, 0.0)
        assert [delivery.id for delivery in deliveries] == confirmed
        consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
    assert backend.publish(QUEUE, [Message("after", b"{}")])[0].status is PublishStatus.ACCEPTED


def test_a_disk_that_refuses_to_write_takes_no_more_and_loses_nothing(experiment: Experiment) -> None:
    """As its quota does: the limit is the kernel's, on the size of a file."""

    def fill_up() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
        with SQLiteClient(experiment.path) as client:
            return fill(client)

    confirmed, error = eval(in_a_fork(fill_up))

    assert error.startswith(("rejected DiskFull", "rejected BackendUnavailable")), error
    assert len(confirmed) > 10
    assert experiment.ask("PRAGMA integrity_check") == [("ok",)]
    with experiment.backend.open_consumer(QUEUE) as consumer:
        assert [delivery.id for delivery in consumer.receive(1000, 0.0)] == confirmed


# -- what goes on for long ------------------------------------------------------------------------


class Measured(sqlite3.Connection):
    """Notes how many rows each of its transactions changes."""

    changes: ClassVar[list[int]] = []
    before = 0

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        if statement.startswith("BEGIN"):
            self.before = self.total_changes
        elif statement == "COMMIT":
            self.changes.append(self.total_changes - self.before)
        return super().execute(statement, *rest)


@pytest.mark.long
def test_dropping_many_jobs_keeps_nobody_waiting_for_long(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes many short transactions, between which others have their turn."""
    for start in range(0, 100_000, 5000):
        experiment.backend.publish(QUEUE, [Message(f"job-{start + n}", b"{}") for n in range(5000)])
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Measured))
    with SQLiteClient(experiment.path, retry_timeout_s=LIMIT_S) as purger:
        purger.counts(QUEUE)
        monkeypatch.undo()
        Measured.changes.clear()
        with SQLiteClient(experiment.path, retry_timeout_s=LIMIT_S) as other, Background() as thread:
            other.declare(Queue("other"))
            purging = thread.submit(purger.purge, QUEUE)
            number = 0
            while not purging.done():
                (outcome,) = other.publish("other", [Message(f"job-{number}", b"{}")])
                assert outcome.status is PublishStatus.ACCEPTED
                number += 1
            assert purging.result() == 100_000

    print(f"{number} publishes beside a purge of 100,000 jobs in {len(Measured.changes)} transactions")
    assert max(Measured.changes) <= 3 * CHUNK
    assert experiment.backend.counts(QUEUE) == QueueCounts(0, 0, 0, 0)


@pytest.mark.long
def test_the_log_stays_small_beside_a_reader_that_never_ends(experiment: Experiment) -> None:
    """While a reader keeps the log from beginning anew it grows; once it is gone the log shrinks again."""
    log = Path(f"{experiment.path}-wal")
    body = b'"' + b"x" * 50_000 + b'"'
    with closing(sqlite3.connect(experiment.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchall()
        for number in range(40):
            experiment.backend.publish(QUEUE, [Message(f"job-{number}-{n}", body) for n in range(40)])
    assert log.stat().st_size > 64 * 1024 * 1024

    with experiment.backend.open_consumer(QUEUE) as consumer:
        deliveries = consumer.receive(40, 0.0)
        while deliveries:
            deliveries = consumer.settle([Ack(each.receipt) for each in deliveries], take=40).deliveries
    for number in range(300):
        experiment.backend.publish(QUEUE, [Message(f"small-{number}", b"{}")])

    assert log.stat().st_size <= 64 * 1024 * 1024
