"""A consumer for ``mindtrace-jobs worker``, some of whose jobs kill the process that runs them."""

import os
import signal

from recording_worker import SCHEMA, Numbered, Square, Worker

from mindtrace.jobs import Job, RetryPolicy

KILLER = "kill me"


class CrashingConsumer(Worker):
    schema = SCHEMA
    retry = RetryPolicy(max_crashes=2)

    def __init__(self) -> None:
        super().__init__(os.environ["STARTED"], 0.01, os.environ["FINISHED"], os.environ["RECEIVED"])

    def run(self, job: Job[Numbered]) -> Square:
        if job.payload.note != KILLER:
            return super().run(job)
        self.note_start(job)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")
