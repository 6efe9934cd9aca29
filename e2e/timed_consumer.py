"""Consumers for ``mindtrace-jobs worker``, whose jobs take too long, expire, snooze or die, as they say."""

import os
import time
from pathlib import Path
from typing import Any

from mindtrace.jobs import (
    Consumer,
    DeadJob,
    Job,
    JobInput,
    JobSchema,
    Orchestrator,
    Reject,
    RetryPolicy,
    Snooze,
    Then,
)
from mindtrace.jobs.domain.job import new_job_id

HANG = "hang"
REJECTED = "reject me"
SNOOZE = "snooze"
DEAD_TTL_S = 1.0


class Task(JobInput):
    number: int
    note: str = ""


class Alert(JobInput):
    job_id: str


ALERTS = JobSchema("alerts", Alert)


def alert(dead: DeadJob[Task]) -> Then:
    """Publish one with an id that was never used, so that a second one shows."""
    return Then(ALERTS, Alert(job_id=dead.id), id=new_job_id())


RETRY = RetryPolicy(max_attempts=2, base_delay_s=0.05, max_crashes=20)
TIMED = JobSchema("timed", Task, retry=RETRY, kill_after_s=0.5, on_expired="dead")
MORTAL = JobSchema("mortal", Task, retry=RETRY, dead_ttl_s=DEAD_TTL_S, on_dead=alert)


class Timed(Consumer[Task, Any]):
    schema = TIMED

    def __init__(self) -> None:
        super().__init__()
        names = ("STARTED", "FINISHED", "RECEIVED", "SNOOZED")
        self._files = {name: os.open(os.environ[name], os.O_WRONLY | os.O_APPEND) for name in names}

    def connect(self, orchestrator: Orchestrator, **options: Any) -> None:
        from recording_worker import record_calls  # by this name in a worker only, whose --app-dir has it

        super().connect(orchestrator, **options)
        record_calls(self.consumer_backend, self._files["RECEIVED"], lambda point: None)

    def _note(self, name: str, job: Job[Task]) -> None:
        os.write(self._files[name], f"{os.getpid()} {job.id}\n".encode())

    def run(self, job: Job[Task]) -> None:
        note = job.payload.note
        if note == SNOOZE and not Path(os.environ["GO"]).exists():
            self._note("SNOOZED", job)
            raise Snooze(0.2)
        self._note("STARTED", job)
        if note == HANG:
            time.sleep(3600)
        if note == REJECTED:
            raise Reject("as it asked")
        time.sleep(0.01)
        self._note("FINISHED", job)

    def close(self) -> None:
        super().close()
        for descriptor in self._files.values():
            os.close(descriptor)


class Mortal(Timed):
    schema = MORTAL
