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
from mindtrace.jobs import Consumer, JobInput, JobSchema, Limit, Orchestrator, Rate, job_from_schema
from mindtrace.jobs.ports import Lease

from .limited_worker import LIMIT, SCHEMA, SHARING, Frame

WORKER = Path(__file__).with_name("limited_worker.py")
PROCESSES = 4
KEYS = 10
JOBS = 1_000
KILLS = 4
LEASE_S = 15.0
"""A busy machine may stop a process for seconds, and what lost its lease then runs beside its successor."""
STANDS_S = LEASE_S / 3
"""For how long the lease of a job stands at least once its worker was killed."""


class Tick(JobInput):
    camera: int = 0


RATED = JobSchema("rated", Tick, rate=Rate(100, per_s=10))
BY_KEY = JobSchema("by-key", Tick, rate=Rate(10, per_s=2, by="camera"))
HOURLY = JobSchema("hourly", Tick, rate=Rate(1, per_s=3600, by="camera"))
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
        for schema in (SCHEMA, RATED, BY_KEY, HOURLY, ORDERED, *SHARING):
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
        killed = work_off(orchestrator, url, record, [SCHEMA.name], PROCESSES)
        counts = orchestrator.counts("limited")
        is_timed = orchestrator.backend.capabilities.lease is Lease.TIMED
    runs = read(record, killed, STANDS_S if is_timed else 0.0)

    assert {run.job for run in runs} == {f"limited/{outcome.id}" for outcome in outcomes}
    assert counts.dead == 0
    most = {
        camera: most_at_once(run for run in runs if run.camera == camera) for camera in map(str, range(KEYS))
    }
    record_property("seen", f"{KILLS} kills, {len(runs)} runs, at most {max(most.values())} at once")
    assert max(most.values()) <= LIMIT
    assert max(most.values()) == LIMIT, "they do run side by side"


@pytest.mark.long
@on_all_between_processes
def test_three_queues_that_share_a_limit_never_run_more_than_it_allows(
    url: str, tmp_path: Path, record_property: Any
) -> None:
    """Eight processes with a consumer of each queue, some of which are killed, and jobs of the same ids."""
    record = tmp_path / "record"
    record.touch()
    with Orchestrator(url) as orchestrator:
        for schema in SHARING:
            orchestrator.register(schema)
            ids = map(str, range(JOBS // len(SHARING)))
            jobs = [job_from_schema(schema, Frame(camera=0), id=each) for each in ids]
            orchestrator.publish_batch(schema.name, jobs)
        queues = [schema.name for schema in SHARING]
        killed = work_off(orchestrator, url, record, queues, 2 * PROCESSES)
        dead = sum(orchestrator.counts(queue).dead for queue in queues)
        is_timed = orchestrator.backend.capabilities.lease is Lease.TIMED
    runs = read(record, killed, STANDS_S if is_timed else 0.0)

    assert len({run.job for run in runs}) == JOBS // len(SHARING) * len(SHARING)
    assert dead == 0
    most = most_at_once(runs)
    record_property("seen", f"{KILLS} kills, {len(runs)} runs, at most {most} at once")
    assert most == LIMIT, "no more, and they do run side by side"
    assert {run.job.partition("/")[0] for run in runs} == set(queues)


def work_off(
    orchestrator: Orchestrator, url: str, record: Path, queues: list[str], processes: int
) -> dict[str, float]:
    """Run the workers, kill some and replace them; return when which process was killed, by the store."""
    which = "sharing" if len(queues) > 1 else "one"
    command = [sys.executable, str(WORKER), url, str(record), str(LEASE_S), which]
    workers = [subprocess.Popen(command) for _ in range(processes)]
    killed: dict[str, float] = {}
    store = orchestrator.backend.coordination
    published = sum(orchestrator.counts(queue).ready for queue in queues)

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
            counts = [orchestrator.counts(queue) for queue in queues]
            left = sum(each.waiting + (each.in_flight or 0) for each in counts)
            return not left and ended() >= published

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
            assert (job, process) not in began, f"{job} runs twice at once in process {process}"
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
def test_each_key_starts_at_its_rate_whatever_the_others_do(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three consumers, a key with a long backlog in front, and nine with jobs behind it.

    As above, time counts from when the first turn of a key was asked for.
    """
    starts: dict[int, list[float]] = defaultdict(list)
    asked: dict[int, float] = {}
    with Orchestrator(url) as orchestrator:
        orchestrator.register(BY_KEY)
        store = orchestrator.backend.coordination
        reserve_each = store.reserve_each

        def watched_reserve_each(counts: Any, **options: Any) -> Any:
            now = store.now()
            for key in counts:
                asked.setdefault(int(key.rpartition("/")[2].strip("[]")), now)
            return reserve_each(counts, **options)

        monkeypatch.setattr(store, "reserve_each", watched_reserve_each)
        orchestrator.publish_batch("by-key", [Tick(camera=n) for n in [0] * 20 + [*range(1, 10)] * 5])

        class Ticks(Consumer[Tick]):
            schema = BY_KEY

            def run(self, job: Any) -> None:
                starts[job.payload.camera].append(store.now())

        consume(orchestrator, Ticks, [1, 2, 4])

    assert {camera: len(each) for camera, each in starts.items()} == {0: 20, **dict.fromkeys(range(1, 10), 5)}
    interval_s = BY_KEY.rate.interval_s  # type: ignore[union-attr]
    for camera, each in starts.items():
        early_s = 0.02
        assert max(each) - asked[camera] >= (len(each) - 1) * interval_s - early_s, f"key {camera}"
    assert min(starts[9]) < max(starts[0]), "the long backlog holds up no other"


@on_all
def test_with_one_place_the_jobs_of_a_key_start_in_their_order(url: str) -> None:
    """By one consumer of several threads, and several keys side by side."""
    started: dict[int, list[str]] = defaultdict(list)
    with Orchestrator(url) as orchestrator:
        orchestrator.register(ORDERED)
        frames = [Tick(camera=n % 3) for n in range(45)]
        ids = [handle.id for handle in orchestrator.publish_batch("ordered", frames)]

        class Ticks(Consumer[Tick]):
            schema = ORDERED

            def run(self, job: Any) -> None:
                started[job.payload.camera].append(job.id)

        consume(orchestrator, Ticks, [8])

    assert started == {camera: ids[camera::3] for camera in range(3)}


@on_all
def test_receive_message_takes_no_job_of_a_key_whose_place_is_taken(url: str) -> None:
    """It returns the next job of another key; the job that it passed over is the next one again."""
    received: list[str | None] = []
    with Orchestrator(url) as orchestrator:
        orchestrator.register(ORDERED)
        ids = [handle.id for handle in orchestrator.publish_batch("ordered", [*map(on_camera, [0, 0, 0, 1])])]

        def receive() -> None:
            job = orchestrator.receive_message(ORDERED)
            received.append(None if job is None else job.id)

        class Ticks(Consumer[Tick]):
            schema = ORDERED

            def run(self, job: Any) -> None:
                receive()
                receive()

        with Ticks() as consumer:
            consumer.connect(orchestrator, prefetch=1)
            consumer.consume(1)
        receive()
        receive()
        receive()

    assert received == [ids[3], None, ids[1], ids[2], None]


@on_all
def test_receive_message_takes_a_turn_of_the_rate(url: str) -> None:
    """And takes no job of a key whose next turn has yet to come."""
    with Orchestrator(url) as orchestrator:
        orchestrator.register(HOURLY)
        ids = [handle.id for handle in orchestrator.publish_batch("hourly", [*map(on_camera, [0, 0, 1])])]
        jobs = [orchestrator.receive_message(HOURLY) for _ in range(3)]
        assert [None if job is None else job.id for job in jobs] == [ids[0], ids[2], None]
        assert orchestrator.counts("hourly").ready == 1


def on_camera(camera: int) -> Tick:
    return Tick(camera=camera)


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
