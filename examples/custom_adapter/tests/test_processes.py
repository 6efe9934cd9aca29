"""What can't be staged within one process: workers that are killed, and many at once."""

import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mindtrace_jobs_spool import SpoolClient

from mindtrace.jobs import Queue, QueueCounts
from mindtrace.jobs.ports import Message

WORKER = """
import sys, time
from mindtrace.jobs.ports import Ack
from mindtrace_jobs_spool import SpoolClient

_, path, lease_s, work_s = sys.argv
consumer = SpoolClient(path).open_consumer("jobs", lease_s=float(lease_s))
while deliveries := consumer.receive(5, 3.0):
    print("took", *[delivery.id for delivery in deliveries], flush=True)
    time.sleep(float(work_s))
    for delivery, outcome in zip(deliveries, consumer.settle([Ack(d.receipt) for d in deliveries]).outcomes):
        print(outcome, delivery.id, flush=True)
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SpoolClient]:
    with SpoolClient(tmp_path) as client:
        client.declare(Queue("jobs"))
        yield client


@contextmanager
def worker(path: Path, *, lease_s: float, work_s: float) -> Generator[subprocess.Popen[str]]:
    """A process that takes jobs, works, acks them, and says so; it ends when there are none for a while."""
    command = [sys.executable, "-c", WORKER, str(path), str(lease_s), str(work_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def publish(client: SpoolClient, count: int) -> list[str]:
    ids = [f"job-{number}" for number in range(count)]
    client.publish("jobs", [Message(id_, b"{}") for id_ in ids])
    return ids


def test_the_jobs_of_a_worker_that_was_killed_come_back(client: SpoolClient, tmp_path: Path) -> None:
    publish(client, 2)
    with worker(tmp_path, lease_s=2.0, work_s=60.0) as doomed:
        assert doomed.stdout
        assert doomed.stdout.readline().split() == ["took", "job-0", "job-1"]
        doomed.kill()
        came = [client.open_consumer("jobs").receive(1, 60.0)[0] for _ in range(2)]

    assert [(delivery.id, delivery.crashes) for delivery in came] == [("job-0", 1), ("job-1", 1)]


def test_workers_share_a_queue_and_no_job_is_acked_twice_or_lost(client: SpoolClient, tmp_path: Path) -> None:
    ids = publish(client, 200)
    with (
        worker(tmp_path, lease_s=1.0, work_s=0.01) as first,
        worker(tmp_path, lease_s=1.0, work_s=0.01) as second,
        worker(tmp_path, lease_s=1.0, work_s=0.01) as third,
    ):
        assert first.stdout
        said = [first.stdout.readline() for _ in range(12)]
        first.kill()  # whatever it is at
        for process in (first, second, third):
            assert process.stdout
            said += process.stdout.read().splitlines()

    acked = [line.split()[1] for line in said if line.startswith("ok ")]
    assert len(acked) == len(set(acked))
    assert set(acked) <= set(ids)
    assert len(acked) >= len(ids) - 5, "the killed worker may have acked one batch without saying so"
    assert client.counts("jobs") == QueueCounts(ready=0, delayed=0, in_flight=0, dead=0)
