"""The publisher of a soak: lets the backlog grow and shrink, until it is told to stop.

    python -m soak.publisher URL PUBLISH_LOG SEED COORDINATED_URL

Writes a line for each job once the broker has answered: its id, the answer, and how many attempts it is to
take.
"""

import random
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from whole_lines import whole_lines

from mindtrace.jobs import Orchestrator, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable

from .coordinated_publisher import CoordinatedPublisher
from .jobs import MAX_ATTEMPTS, SCHEMA, random_delay_s, random_input

_PAUSE_S = 0.1
_HIGHEST = 400
_LARGEST_BATCH = 60


class Published(NamedTuple):
    """A job, and what the broker said of it."""

    id: str
    status: PublishStatus
    attempts: int


def read_log(publish_log: Path) -> list[Published]:
    """What was published so far."""
    lines = (line.split() for line in whole_lines(publish_log))
    return [Published(id_, PublishStatus(status), int(attempts)) for id_, status, attempts in lines]


def publish(orchestrator: Orchestrator, rng: random.Random) -> list[Published]:
    """Publish a batch of jobs that share a delay."""
    inputs = [random_input(rng) for _ in range(rng.randint(1, _LARGEST_BATCH))]
    jobs = [job_from_schema(SCHEMA, data) for data in inputs]
    attempts = [1 if data.rejected else min(data.failures + 1, MAX_ATTEMPTS) for data in inputs]
    try:
        handles = orchestrator.publish_batch(SCHEMA.name, jobs, delay_s=random_delay_s(rng))
        statuses = [handle.outcome.status for handle in handles]
    except BackendUnavailable:
        statuses = [PublishStatus.UNKNOWN] * len(jobs)
    return [Published(job.id, *rest) for job, *rest in zip(jobs, statuses, attempts, strict=True)]


def main() -> None:
    """Publish."""
    url, publish_log, seed, coordinated_url = sys.argv[1:]
    rng = random.Random(seed)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with (
        Orchestrator(url) as orchestrator,
        Orchestrator(coordinated_url) as coordinated,
        Path(publish_log).open("a", encoding="ascii", buffering=1) as lines,
    ):
        orchestrator.register(SCHEMA)
        beside = CoordinatedPublisher(coordinated, Path(publish_log).parent, random.Random(f"{seed} beside"))
        most = 0
        while not stopped.wait(_PAUSE_S):
            beside.step()
            try:
                waiting = orchestrator.count_queue_messages(SCHEMA.name)
            except BackendUnavailable:
                continue
            if waiting >= most:
                most = 0  # let it shrink
            if not most and waiting < _LARGEST_BATCH // 2:
                most = rng.randint(_LARGEST_BATCH, _HIGHEST)
            if most:
                published = publish(orchestrator, rng)
                lines.writelines(f"{each.id} {each.status} {each.attempts}\n" for each in published)
        beside.end()


if __name__ == "__main__":
    main()
