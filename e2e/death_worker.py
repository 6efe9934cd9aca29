"""A worker process whose jobs all die: by their handler, or with their worker. Each death publishes an alert.

Every alert gets an id that was never used. So one that was published twice shows, though most brokers would
drop a second one of the same id.
"""

import logging
import os
import signal
import sys
import time

from mindtrace.jobs import (
    DeadJob,
    Job,
    JobInput,
    JobSchema,
    Orchestrator,
    Reject,
    RetryPolicy,
    Then,
    job_handler,
)
from mindtrace.jobs.domain.job import new_job_id

WORK_S = 0.02
"""How long a job takes, so that workers are killed while others wait."""


class Doomed(JobInput):
    kills: bool = False


class Alert(JobInput):
    job_id: str
    reason: str


ALERTS = JobSchema("alerts", Alert)


def alert(dead: DeadJob[Doomed]) -> Then:
    return Then(ALERTS, Alert(job_id=dead.id, reason=dead.reason), id=new_job_id())


DOOMED = JobSchema("doomed", Doomed, retry=RetryPolicy(max_crashes=2), on_dead=alert)


@job_handler(DOOMED)
def die(job: Job[Doomed]) -> None:
    if job.payload.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(WORK_S)
    raise Reject("all of these die")


def main(url: str, lease_s: str) -> None:
    logging.disable(logging.ERROR)  # that a job is dead is no news here
    with Orchestrator(url) as orchestrator, die.consumer() as consumer:
        orchestrator.register(ALERTS)
        consumer.connect(orchestrator, lease_s=float(lease_s), poll_timeout_s=0.5)
        consumer.consume()


if __name__ == "__main__":
    main(*sys.argv[1:])
