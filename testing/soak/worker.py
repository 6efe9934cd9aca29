"""A worker of a soak, as a user would write it: consumes until it is told to stop.

python -m soak.worker URL STARTED FINISHED PREFETCH COORDINATED_URL
"""

import faulthandler
import logging
import signal
import sys
import time
from pathlib import Path

from job_audit import ExecutionRecord
from mindtrace.jobs import Consumer, Job, Orchestrator, Reject
from mindtrace.jobs.domain.errors import BackendUnavailable

from .coordinated import coordinating
from .jobs import LEASE_S, SCHEMA, SoakInput, SoakOutput


class Interrupted(Exception):
    """A signal of the program's own came."""


class Runner(Consumer):
    """Does what a job says, and writes down when it began and that it was done.

    Outside its handler, SIGUSR2 makes it raise: in whatever the library does at that moment.
    """

    schema = SCHEMA

    def __init__(self, started: str, finished: str) -> None:
        super().__init__()
        self._is_up = False
        self._runs_handler = False
        self._strikes_left = 0
        """How often a signal may raise yet: the second time perhaps while the first is seen to."""
        self._started = ExecutionRecord(Path(started)).writer()
        self._finished = ExecutionRecord(Path(finished)).writer()

    def run(self, job: Job[SoakInput]) -> SoakOutput:
        """Work, and end as the job says."""
        if not self._is_up:
            self._is_up = True
            print("up", flush=True)
        self._runs_handler = True
        try:
            return self._work(job)
        finally:
            self._runs_handler = False

    def _work(self, job: Job[SoakInput]) -> SoakOutput:
        ExecutionRecord.write(self._started, job.id)
        time.sleep(job.payload.work_s)
        if job.payload.rejected:
            raise Reject("as it was to be")
        if job.attempt <= job.payload.failures:
            raise RuntimeError("as it was to be")
        ExecutionRecord.write(self._finished, job.id)
        return SoakOutput(attempt=job.attempt)

    def on_signal(self, *_: object) -> None:
        """Raise, unless a handler runs, which would fail by it."""
        if self._strikes_left and not self._runs_handler:
            self._strikes_left -= 1
            raise Interrupted

    def consume_through_interrupts(self) -> None:
        """Consume until told to stop, again after each interrupt."""
        while True:
            try:
                try:
                    self._strikes_left = 2
                    self.consume()
                    return
                except Interrupted:
                    self._strikes_left = 0
            except Interrupted:
                pass


def main() -> None:
    """Consume."""
    faulthandler.register(signal.SIGUSR1)  # tells where it hangs
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(threadName)s %(message)s")
    url, started, finished, prefetch, coordinated_url = sys.argv[1:]
    with (
        Orchestrator(url) as orchestrator,
        coordinating(coordinated_url, Path(started).parent),
        Runner(started, finished) as runner,
    ):
        signal.signal(signal.SIGUSR2, runner.on_signal)
        while True:
            try:
                runner.connect(orchestrator, lease_s=LEASE_S, prefetch=int(prefetch), poll_timeout_s=1.0)
                break
            except BackendUnavailable:  # a supervisor would start it again
                time.sleep(0.5)
        runner.consume_through_interrupts()


if __name__ == "__main__":
    main()
