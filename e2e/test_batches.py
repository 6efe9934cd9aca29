"""Batches on every backend: what becomes of each job, also where some of them kill their worker."""

import os
import signal
import subprocess
import sys
import sysconfig
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from whole_lines import whole_lines

from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    BatchConsumer,
    Dead,
    Done,
    Job,
    JobFailed,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    Retry,
    RetryPolicy,
)
from mindtrace.jobs.domain.dead_reasons import DeadReason
from mindtrace.jobs.ports import Message

from .batch_worker import BATCH_SIZE, KILLER, SCHEMA, Image

WORKER = Path(__file__).with_name("batch_worker.py")
LEASE_S = 3.0


class Number(JobInput):
    x: int


class Square(JobOutput):
    y: int


SQUARES = JobSchema("squares", Number, Square, retry=RetryPolicy(max_attempts=2, base_delay_s=0))


def url_of(backend: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Where a namespace of this test's own is."""
    namespace = f"batches-{uuid.uuid4().hex[:12]}"
    if backend == "sqlite":
        return f"sqlite:///{folder}/jobs.db?namespace={namespace}"
    if backend == "memory":
        return f"memory://{namespace}"
    return f"{request.getfixturevalue(f'{backend}_address').url}?namespace={namespace}"


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on, left as it was."""
    url = url_of(request.param, request, tmp_path)
    with Orchestrator(url) as orchestrator:
        yield url
        for schema in (SCHEMA, SQUARES):
            orchestrator.register(schema)
            orchestrator.backend.purge(schema.name)
            orchestrator.backend.delete(schema.name)


on_all = pytest.mark.parametrize("url", ["memory", "sqlite", "redis", "rabbitmq"], indirect=True)
on_all_between_processes = pytest.mark.parametrize("url", ["sqlite", "redis", "rabbitmq"], indirect=True)


@on_all
def test_each_job_of_a_batch_has_an_outcome_of_its_own(url: str) -> None:
    """Results, retries and dead letters, a job each; batches are as large as they may be."""
    sizes: list[int] = []

    class Squarer(BatchConsumer[Number, Square]):
        schema = SQUARES
        batch_size = 7

        def run_batch(self, jobs: Sequence[Job[Number]]) -> list[Any]:
            sizes.append(len(jobs))
            return [self.outcome(job) for job in jobs]

        def outcome(self, job: Job[Number]) -> Any:
            x = job.payload.x
            special: dict[int, Any] = {
                3: Retry(0.01, "busy"),
                5: Dead("five"),
                8: {"y": "no number"},
                9: None,
            }
            return special.get(x, Square(y=x**2) if x % 2 else Done({"y": x**2}))

    with Orchestrator(url) as orchestrator, Squarer() as consumer:
        consumer.connect(orchestrator, batch_wait_s=LIMIT_S)
        ids = [each.id for each in orchestrator.publish_batch("squares", [{"x": x} for x in range(13)])]
        orchestrator.backend.publish("squares", [Message("torn", b"no job")])
        assert consumer.consume(14, block=True) == 14
        assert consumer.consume(1, block=True) == 1  # the second attempt of 3

        assert sizes[:2] == [7, 6]
        letters = {
            letter.id: (letter.reason, letter.error) for letter in orchestrator.dead_letters("squares")
        }
        assert letters["torn"][0] == DeadReason.MALFORMED
        assert letters[ids[3]] == (DeadReason.ATTEMPTS, "busy")
        assert letters[ids[5]] == (DeadReason.REJECTED, "five")
        assert letters[ids[8]][0] == DeadReason.RESULT
        assert letters[ids[8]][1].startswith("InvalidPayload: result")
        assert len(letters) == 4
        assert (consumer.stats.done, consumer.stats.dead) == (10, 4)
        if orchestrator.backend.capabilities.results:
            done = {x: orchestrator.result(SQUARES, ids[x], timeout_s=LIMIT_S) for x in (0, 1, 2, 9, 12)}
            assert {x: result and result.y for x, result in done.items()} == {
                0: 0,
                1: 1,
                2: 4,
                9: None,
                12: 144,
            }
            with pytest.raises(JobFailed, match="five"):
                orchestrator.result(SQUARES, ids[5])


@pytest.mark.long
@on_all_between_processes
def test_of_a_thousand_jobs_two_that_kill_their_worker_are_dead_and_the_others_done(
    url: str, tmp_path: Path, record_property: Any
) -> None:
    """Two workers, each replaced when it dies. No other job is charged with more than one crash (RTY-3).

    On RabbitMQ each death may charge one more: a job that was being sent as its consumer asked for no more.
    """
    record = tmp_path / "record"
    record.touch()
    with Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        notes = [KILLER if number in (340, 707) else "" for number in range(1000)]
        ids = [each.id for each in orchestrator.publish_batch("embed", [Image(note=note) for note in notes])]
        killers = {ids[340], ids[707]}
        deaths = work_off(orchestrator, url, record)

        assert {letter.id for letter in orchestrator.dead_letters("embed")} == killers
        assert {letter.reason for letter in orchestrator.dead_letters("embed")} == {DeadReason.CRASHES}
        assert orchestrator.counts("embed").waiting == 0
    lines = [line.split() for line in whole_lines(record)]
    finished = Counter(id_ for word, *batch in lines if word == "finished" for id_ in batch)
    crashes: Counter[str] = Counter()
    for delivery in (each for word, *deliveries in lines if word == "received" for each in deliveries):
        id_, _, charged = delivery.rpartition(":")
        crashes[id_] = max(crashes[id_], int(charged))
    started = [batch for word, *batch in lines if word == "started"]
    record_property("seen", f"{deaths} deaths, {sum(map(bool, crashes.values()))} jobs charged")

    assert finished.keys() == set(ids) - killers
    assert set(finished.values()) == {1}, "a batch that was done isn't run again"
    assert {crashes.pop(killer) for killer in killers} == {3}
    charged_again = sum(count - 1 for count in crashes.values() if count)
    assert charged_again <= (deaths if url.startswith("amqp") else 0)
    assert sum(crashes.values()) - charged_again < 2 * BATCH_SIZE
    assert max(map(len, started)) == BATCH_SIZE
    for killer in killers:
        assert [len(batch) for batch in started if killer in batch][1:] == [1, 1], "the second time alone"


def work_off(orchestrator: Orchestrator, url: str, record: Path) -> int:
    """Run two workers, and replace those that die, until every job has ended; return how many died."""
    command = [sys.executable, str(WORKER), url, str(record), str(LEASE_S)]
    workers = [subprocess.Popen(command) for _ in range(2)]
    deaths = 0

    def ended() -> bool:
        nonlocal deaths
        for place, worker in enumerate(workers):
            if worker.poll() is not None:
                assert worker.returncode == -signal.SIGKILL
                deaths += 1
                workers[place] = subprocess.Popen(command)
        done = sum(line.count(" ") for line in whole_lines(record) if line[0] == "f")
        return done >= 998 and orchestrator.counts("embed").dead == 2

    try:
        eventually(ended, "every job is done or dead")
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        ends = {worker.wait(60) for worker in workers}
        assert ends <= {0, -signal.SIGTERM}, "or by the signal, if it was replaced just now"
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return deaths


HUNGRY = """
import resource
from mindtrace.jobs import BatchConsumer, JobInput, JobSchema, Orchestrator

class Hungry(BatchConsumer):
    schema = JobSchema(name="hungry", input=JobInput)

    def run_batch(self, jobs):
        sizes.append(len(jobs))
        bytearray(len(jobs) * 2**26)
        return [None] * len(jobs)

sizes = []
with Orchestrator("memory://") as orchestrator, Hungry() as hungry:
    hungry.connect(orchestrator)
    orchestrator.publish_batch("hungry", [{}] * 64)
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + 15 * 2**26  # threads that start reserve address space, too
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    hungry.consume(64)
    print(hungry.stats.done, hungry.stats.retried, *sizes)
"""


@pytest.mark.long
def test_a_batch_for_which_the_process_has_no_memory_is_run_in_halves() -> None:
    """Of 64 MiB a job, in a process that may have fifteen times as much."""
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY], capture_output=True, encoding="utf-8", timeout=LIMIT_S
    )

    assert done.returncode == 0, done.stderr
    finished, retried, *sizes = map(int, done.stdout.split())
    assert (finished, retried) == (64, 0)
    assert sizes == [32, 16] + [8] * 8
    assert done.stderr.count("memory ran out with") == 2


TASKS = """
from mindtrace.jobs import BatchConsumer, JobInput, JobSchema, batch_handler

class Item(JobInput):
    pass

class Sizes(BatchConsumer):
    schema = JobSchema(name="sizes", input=Item)
    batch_size = 2

    def run_batch(self, jobs):
        with open("sizes", "a") as file:
            print(len(jobs), file=file)
        return [None] * len(jobs)

@batch_handler(JobSchema(name="items", input=Item), batch_size=3)
def count(jobs):
    with open("items", "a") as file:
        print(len(jobs), file=file)
    return [None] * len(jobs)
"""


def test_the_command_runs_batches(tmp_path: Path) -> None:
    """Of a class and of a function, by their own sizes or by that of the option."""
    tmp_path.joinpath("tasks.py").write_text(TASKS, "utf-8")
    tmp_path.joinpath("jobs.jsonl").write_text("{}\n" * 6, "utf-8")
    command = Path(sysconfig.get_path("scripts"), "mindtrace-jobs")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MINDTRACE_JOBS_")
    }

    def run(*words: str) -> None:
        done = subprocess.run(
            [command, *words], cwd=tmp_path, env=environment, capture_output=True, timeout=120, text=True
        )
        assert done.returncode == 0, done.stderr

    for options, sizes, items in (
        ([], "2\n2\n2\n", "3\n3\n"),
        (["--batch-size", "6", "--batch-wait", "60"], "6\n", "6\n"),
    ):
        run("publish", "sizes", "--file", "jobs.jsonl", "--schema", "tasks:Sizes")
        run("publish", "items", "--file", "jobs.jsonl", "--schema", "tasks:count")
        run("worker", "tasks:Sizes", "tasks:count", "--burst", *options)
        for name, expected in (("sizes", sizes), ("items", items)):
            assert tmp_path.joinpath(name).read_text("utf-8") == expected
            tmp_path.joinpath(name).unlink()
