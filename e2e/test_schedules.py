"""Schedulers of the command line that are killed at random, on every backend with a coordination store.

Each slot has exactly one job. On RabbitMQ, whose store is another system, it has one or more.
"""

import random
import signal
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from conditions import LIMIT_S, eventually
from mindtrace.jobs import Job, JobInput, JobSchema, Orchestrator, errors

COMMAND = Path(sysconfig.get_path("scripts"), "mindtrace-jobs")
SECOND = timedelta(seconds=1)
BACKENDS = ["sqlite", "redis", "postgresql", "rabbitmq"]
"""All that several processes can share."""

WORKER = """
from datetime import timedelta

from mindtrace.jobs import Consumer, Every, JobInput, JobSchema


class Tick(JobInput):
    pass


class Ticker(Consumer):
    schema = JobSchema("ticks", Tick)
    schedule = Every(timedelta(seconds=1))

    def run(self, job):
        print("ran", job.id, flush=True)
"""


class Tick(JobInput):
    number: int = 0


SCHEMA = JobSchema("ticks", Tick)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place of its own on the backend of this run."""
    name, namespace = request.param, f"t{time.monotonic_ns()}"
    if name == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
    elif name == "redis":
        yield f"{request.getfixturevalue('redis_address').url}?namespace={namespace}"
    elif name == "rabbitmq":
        store = f"{request.getfixturevalue('redis_address').url}?namespace={namespace}"
        broker = request.getfixturevalue("rabbitmq_address").url
        yield f"{broker}?namespace={namespace}&store={quote(store, safe='')}"
    else:
        address = request.getfixturevalue("postgresql_address")
        yield address.url(namespace)
        with address.connect(autocommit=True) as admin:
            admin.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')


@pytest.fixture
def jobs(url: str) -> Iterator[Orchestrator]:
    with Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator
        with suppress(errors.JobsError):
            orchestrator.schedules.remove("tick")
        with suppress(errors.JobsError):
            orchestrator.delete_queue(SCHEMA.name)


class SchedulerProcess:
    """``mindtrace-jobs scheduler`` as a process."""

    def __init__(self, url: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            words = [COMMAND, "scheduler", "--backend", url]
            self._popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=stderr)

    @property
    def is_ready(self) -> bool:
        """Whether it looks for what is due."""
        return b"scheduler on" in self._log.read_bytes()

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill it wherever it is; it mustn't have ended by itself."""
        assert self._popen.poll() is None, self._log.read_text("utf-8")
        self._popen.kill()
        self._popen.wait()

    def wait(self) -> int:
        return self._popen.wait(LIMIT_S)

    def close(self) -> None:
        self._popen.kill()
        self._popen.wait()


class Schedulers:
    """Scheduler processes, of which as many run as were asked for, whoever kills them."""

    def __init__(self, url: str, count: int, folder: Path) -> None:
        self._url, self._folder, self._started = url, folder, 0
        self.running = [self._start() for _ in range(count)]
        self.kills = 0

    def _start(self) -> SchedulerProcess:
        self._started += 1
        return SchedulerProcess(self._url, self._folder / f"scheduler-{self._started}.log")

    @property
    def ready(self) -> list[SchedulerProcess]:
        return [each for each in self.running if each.is_ready]

    def kill(self, these: Sequence[SchedulerProcess]) -> None:
        """Kill some at once, and start others in their places."""
        for each in these:
            each.kill()
            self.kills += 1
        self.running = [self._start() if each in these else each for each in self.running]

    def stop(self) -> None:
        """Stop all gracefully."""
        eventually(lambda: self.ready == self.running, "all can be told to stop")
        for each in self.running:
            each.send(signal.SIGTERM)
        assert [each.wait() for each in self.running] == [0] * len(self.running)


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Callable[[int], Schedulers]]:
    started: list[Schedulers] = []

    def make(count: int) -> Schedulers:
        started.append(Schedulers(url, count, tmp_path))
        return started[-1]

    yield make
    for schedulers in started:
        for each in schedulers.running:
            each.close()


def supported(jobs: Orchestrator) -> bool:
    """Whether the backend has a store; else schedules must be refused."""
    if jobs.backend.capabilities.coordination:
        return True
    with pytest.raises(errors.UnsupportedCapability, match="schedules need a coordination store"):
        jobs.schedule("tick", SCHEMA, every=SECOND)
    return False


def run_slots(jobs: Orchestrator, running: Schedulers, slots: int) -> Counter[str]:
    """Take jobs off the queue until so many slots were published by schedulers that are killed meanwhile.

    After a job one of them is killed, or all are, within half a second. There are at least two kills to five
    slots. Jobs are done at once, so that no dedupe hides a second one.

    Returns:
        How often each job came.
    """
    chooser, came = random.Random(7), Counter[str]()
    while len(came) < slots or running.kills < slots * 2 // 5:
        known = len(came)
        for job in arriving(jobs):
            came[job.id] += 1
            if len(came) > known:
                break
        time.sleep(chooser.uniform(0, 0.5))  # the kill comes at any moment, before, in or after a publish
        ready = running.ready
        running.kill(ready if chooser.random() < 0.2 else ready[-1:])
        chooser.shuffle(running.running)
    running.stop()
    jobs.schedules.pause("tick")
    came.update(job.id for job in iter(lambda: jobs.receive_message(SCHEMA), None))
    return came


def arriving(jobs: Orchestrator) -> Iterator[Job[Tick]]:
    """Take jobs off the queue as they come."""
    give_up = time.monotonic() + LIMIT_S
    while True:
        if (job := jobs.receive_message(SCHEMA)) is not None:
            yield job
            give_up = time.monotonic() + LIMIT_S
        else:
            assert time.monotonic() < give_up, "nothing is published any more"
            time.sleep(0.02)


@pytest.mark.timeout(1200)  # 60 slots take a minute, and more on a busy machine
@pytest.mark.parametrize(
    ("url", "slots", "schedulers"),
    [
        pytest.param("sqlite", 15, 4, id="15 slots-sqlite"),
        *[
            pytest.param(url, 15, 4, id=f"15 slots-{url}", marks=pytest.mark.long)
            for url in BACKENDS
            if url != "sqlite"
        ],
        *[
            pytest.param(url, 60, 8, id=f"60 slots-{url}", marks=[pytest.mark.long, pytest.mark.begins_first])
            for url in BACKENDS
        ],
    ],
    indirect=["url"],
)
def test_each_slot_has_one_job_whichever_scheduler_is_killed(
    jobs: Orchestrator, start: Callable[[int], Schedulers], slots: int, schedulers: int
) -> None:
    """However close to its publish a kill comes (CRD-4)."""
    if not supported(jobs):
        return
    first = jobs.schedule("tick", SCHEMA, {"number": 7}, every=SECOND, misfire="all").next_slot
    running = start(schedulers)
    came = run_slots(jobs, running, slots)
    last = jobs.schedules.list()[0].last_slot
    assert last is not None
    count = (last - first) // SECOND + 1
    *ids, after = [f"tick.{first + number * SECOND:%Y%m%dT%H%M%S}Z" for number in range(count + 1)]
    guarded = jobs.backend.capabilities.guarded_publish
    if not guarded:  # the last kill may have come between the publish of a slot and its record
        came.pop(after, None)
    doubles = came.total() - len(ids)
    print(f"{len(ids)} slots, {running.kills} kills, {doubles} doubles")

    assert came.keys() == set(ids)
    assert doubles <= (0 if guarded else running.kills)


@pytest.mark.parametrize("url", BACKENDS, indirect=True)
def test_a_worker_publishes_what_its_consumers_are_scheduled_for(
    jobs: Orchestrator, url: str, tmp_path: Path
) -> None:
    """With ``--schedules``, in each of its processes, and each slot once."""
    if not supported(jobs):
        return
    tmp_path.joinpath("tasks.py").write_text(WORKER, "utf-8")
    words = [COMMAND, "worker", "tasks:Ticker", "--schedules", "--processes", "2", "--backend", url]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        try:
            ran = [worker.stdout.readline().decode().split()[1] for _ in range(3)]
        finally:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0
    jobs.schedules.remove("ticks")

    assert len(set(ran)) == 3
    assert all(job_id.startswith("ticks.20") for job_id in ran)


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_scheduler_that_was_stopped_for_a_while_doubles_nothing(
    jobs: Orchestrator, start: Callable[[int], Schedulers]
) -> None:
    """By a signal, wherever it was: it goes on with what the store says then."""
    if not supported(jobs):
        return
    jobs.schedule("tick", SCHEMA, every=SECOND, misfire="all")
    running = start(3)
    eventually(lambda: running.ready == running.running, "all have started")
    came = Counter[str]()
    stopped = running.running[0]
    for job in arriving(jobs):
        stopped.send(signal.SIGCONT)
        came[job.id] += 1
        if len(came) == 10:
            break
        stopped = running.running[len(came) % 3]
        stopped.send(signal.SIGSTOP)
    running.stop()
    came.update(job.id for job in iter(lambda: jobs.receive_message(SCHEMA), None))

    assert set(came.values()) == {1}
