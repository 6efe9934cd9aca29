"""Limits on every backend, over processes that are killed: the log is judged by the store's own clock."""

import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from whole_lines import whole_lines

from conditions import eventually
from mindtrace.jobs import Consumer, JobInput, JobSchema, Limit, Orchestrator, Rate
from mindtrace.jobs.ports import Lease

from .limited_worker import LIMIT, SCHEMA, Frame

WORKER = Path(__file__).with_name("limited_worker.py")
PROCESSES = 4
KEYS = 10
JOBS = 1_000
KILLS = 4
LEASE_S = 3.0


class Tick(JobInput):
    camera: int = 0


RATED = JobSchema("rated", Tick, rate=Rate(100, per_s=10))
ORDERED = JobSchema("ordered", Tick, concurrency_limit=Limit(1, by="camera"))


def url_of(backend: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Where a namespace of this test's own is."""
    namespace = f"limits-{uuid.uuid4().hex[:12]}"
    if backend == "sqlite":
        return f"sqlite:///{folder}/jobs.db?namespace={namespace}"
    if backend == "memory":
        return f"memory://{namespace}"
    address = request.getfixturevalue(f"{backend}_address")
    if backend == "postgresql":
        return str(address.url(namespace))
    url = f"{address.url}?namespace={namespace}"
    if backend == "rabbitmq":
        store = f"{request.getfixturevalue('redis_address').url}?namespace={namespace}"
        url += f"&store={quote(store, safe='')}"
    return url


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on, left as it was."""
    url = url_of(request.param, request, tmp_path)
    with Orchestrator(url) as orchestrator:
        yield url
        for schema in (SCHEMA, RATED, ORDERED):
            orchestrator.register(schema)
            orchestrator.backend.purge(schema.name)
            orchestrator.backend.delete(schema.name)


between_processes = ["sqlite", "redis", "postgresql", "rabbitmq"]
on_all = pytest.mark.parametrize("url", ["memory", *between_processes], indirect=True)
on_all_between_processes = pytest.mark.parametrize("url", between_processes, indirect=True)


class Run(NamedTuple):
    """One execution of a job, and until when its lease stood at least."""

    camera: str
    job: str
    began: float
    ended: float


@pytest.mark.long
@on_all_between_processes
def test_sixty_four_consumers_some_of_which_are_killed_never_run_more_than_the_limit(
    url: str, tmp_path: Path, record_property: Any
) -> None:
    """Four processes of four consumers with four threads each, ten cameras, three places a camera (CRD-5)."""
    record = tmp_path / "record"
    record.touch()
    with Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        outcomes = orchestrator.publish_batch("limited", [Frame(camera=n % KEYS) for n in range(JOBS)])
        killed = work_off(orchestrator, url, record)
        counts = orchestrator.counts("limited")
        is_timed = orchestrator.backend.capabilities.lease is Lease.TIMED
    runs = read(record, killed, LEASE_S / 2 if is_timed else 0.0)

    assert {run.job for run in runs} == {outcome.id for outcome in outcomes}
    assert counts.dead == 0
    most = {
        camera: most_at_once(run for run in runs if run.camera == camera) for camera in map(str, range(KEYS))
    }
    record_property("seen", f"{KILLS} kills, {len(runs)} runs, at most {max(most.values())} at once")
    assert max(most.values()) <= LIMIT
    assert max(most.values()) == LIMIT, "they do run side by side"


def work_off(orchestrator: Orchestrator, url: str, record: Path) -> dict[str, float]:
    """Run the workers, kill some and replace them; return when which process was killed, by the store."""
    command = [sys.executable, str(WORKER), url, str(record), str(LEASE_S)]
    workers = [subprocess.Popen(command) for _ in range(PROCESSES)]
    killed: dict[str, float] = {}
    store = orchestrator.backend.coordination

    def ended() -> int:
        """How many jobs are done: some run twice, as their worker was killed before the ack."""
        lines = (line.split() for line in whole_lines(record))
        return len({job for what, _, job, _, _ in lines if what == "end"})

    try:
        for number in range(KILLS):
            wanted = JOBS * (number + 1) // (KILLS + 2)
            eventually(lambda wanted=wanted: ended() >= wanted, f"{wanted} jobs are done")
            victim = workers.pop(0)
            killed[str(victim.pid)] = store.now()  # first: it may start a job until it is dead
            victim.kill()
            victim.wait()
            workers.append(subprocess.Popen(command))

        def is_empty() -> bool:
            counts = orchestrator.counts("limited")
            return counts.waiting == 0 and not counts.in_flight and ended() >= JOBS

        eventually(is_empty, "every job is done")
    finally:
        for worker in workers:  # one may run a job again whose worker was killed before the ack
            killed[str(worker.pid)] = store.now()
            worker.kill()
            worker.wait()
    return killed


def read(record: Path, killed: dict[str, float], lease_s: float) -> list[Run]:
    """Return what ran. The lease of a job whose worker was killed stood for so long at least."""
    began: dict[tuple[str, str], tuple[str, float]] = {}
    runs = []
    for line in whole_lines(record):
        what, camera, job, process, moment = line.split()
        if what == "start":
            began[job, process] = (camera, float(moment))
        else:
            camera, start = began.pop((job, process))
            runs.append(Run(camera, job, start, float(moment)))
    for (job, process), (camera, start) in began.items():
        runs.append(Run(camera, job, start, killed[process] + lease_s))
    return runs


def most_at_once(runs: Any) -> int:
    changes = [change for run in runs for change in ((run.began, 1), (run.ended, -1))]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


@on_all
def test_jobs_never_start_faster_than_the_rate(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four consumers, three of which run several jobs at once.

    The first turn comes when the first was asked for, at the earliest. The first start may come later than
    its turn on a busy machine, and says nothing.
    """
    starts: list[float] = []
    asked: list[float] = []
    with Orchestrator(url) as orchestrator:
        orchestrator.register(RATED)
        orchestrator.publish_batch("rated", [Tick()] * 30)
        store = orchestrator.backend.coordination
        reserve = store.reserve

        def watched_reserve(*arguments: Any, **options: Any) -> Any:
            if not asked:
                asked.append(store.now())
            return reserve(*arguments, **options)

        monkeypatch.setattr(store, "reserve", watched_reserve)

        class Ticks(Consumer[Tick]):
            schema = RATED

            def run(self, job: Any) -> None:
                starts.append(store.now())

        consume(orchestrator, Ticks, [1, 2, 3, 4])
    starts.sort()

    assert len(starts) == 30
    early_s = 0.02
    assert starts[-1] - min(asked) >= 29 * RATED.rate.interval_s - early_s  # type: ignore[union-attr]


@on_all
def test_with_one_place_the_jobs_of_a_key_start_in_their_order(url: str) -> None:
    """By one consumer of several threads, and several keys side by side."""
    started: dict[int, list[str]] = defaultdict(list)
    with Orchestrator(url) as orchestrator:
        orchestrator.register(ORDERED)
        frames = [Tick(camera=n % 3) for n in range(45)]
        ids = [outcome.id for outcome in orchestrator.publish_batch("ordered", frames)]

        class Ticks(Consumer[Tick]):
            schema = ORDERED

            def run(self, job: Any) -> None:
                started[job.payload.camera].append(job.id)

        consume(orchestrator, Ticks, [8])

    assert started == {camera: ids[camera::3] for camera in range(3)}


def consume(orchestrator: Orchestrator, cls: type[Consumer[Any]], concurrencies: list[int]) -> None:
    """Run the jobs of a queue with consumers of so many threads each, until none is left."""

    def work(concurrency: int) -> None:
        with cls() as consumer:
            consumer.connect(orchestrator, concurrency=concurrency, poll_timeout_s=0.5)
            consumer.consume_until_empty()

    threads = [threading.Thread(target=work, args=(each,)) for each in concurrencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
