"""The publisher of a soak: lets the backlog grow and shrink, until it is told to stop.

    python -m soak.publisher URL LEDGER SEED

Writes a line for each job once the broker has answered: its id, the answer, and how many attempts it is to
take.
"""

import random
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from mindtrace.jobs import Orchestrator, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable

from .errands import MAX_ATTEMPTS, SCHEMA, draw, draw_delay_s

_PAUSE_S = 0.1
_HIGHEST = 400
_LARGEST_BATCH = 60


class Published(NamedTuple):
    """A job, and what the broker said of it."""

    id: str
    status: PublishStatus
    attempts: int


def read(ledger: Path) -> list[Published]:
    """What was published so far."""
    lines = (line.split() for line in ledger.read_text("ascii").splitlines())
    return [Published(id_, PublishStatus(status), int(attempts)) for id_, status, attempts in lines]


def publish(orchestrator: Orchestrator, chance: random.Random) -> list[Published]:
    """Publish a batch of jobs that share a delay."""
    errands = [draw(chance) for _ in range(chance.randint(1, _LARGEST_BATCH))]
    jobs = [job_from_schema(SCHEMA, errand) for errand in errands]
    attempts = [1 if errand.rejected else min(errand.failures + 1, MAX_ATTEMPTS) for errand in errands]
    try:
        outcomes = orchestrator.publish_batch(SCHEMA.name, jobs, delay_s=draw_delay_s(chance))
        statuses = [outcome.status for outcome in outcomes]
    except BackendUnavailable:
        statuses = [PublishStatus.UNKNOWN] * len(jobs)
    return [Published(job.id, *rest) for job, *rest in zip(jobs, statuses, attempts, strict=True)]


def main() -> None:
    """Publish."""
    url, ledger, seed = sys.argv[1:]
    chance = random.Random(seed)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with Orchestrator(url) as orchestrator, Path(ledger).open("a", encoding="ascii", buffering=1) as lines:
        orchestrator.register(SCHEMA)
        most = 0
        while not stopped.wait(_PAUSE_S):
            try:
                waiting = orchestrator.count_queue_messages(SCHEMA.name)
            except BackendUnavailable:
                continue
            if waiting >= most:
                most = 0  # let it shrink
            if not most and waiting < _LARGEST_BATCH // 2:
                most = chance.randint(_LARGEST_BATCH, _HIGHEST)
            if most:
                published = publish(orchestrator, chance)
                lines.writelines(f"{each.id} {each.status} {each.attempts}\n" for each in published)


if __name__ == "__main__":
    main()
