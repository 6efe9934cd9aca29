"""One trial: a queue on a backend, its producer, its workers, and the account of every job."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from brokers.account import Account, Fault, Record, Totals
from brokers.proxy import Proxy
from mindtrace.jobs import Job, Orchestrator, OrchestratorBackend, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable, JobsError

from ..worker import SCHEMA, Numbered
from ..workers import eventually
from .rigs import LIMIT_S, Books, Rig, Working

QUEUE = SCHEMA.name
PATIENCE_S = 1.0
"""That of the producer which works while harm is done."""


class Trial:
    """What is done to a backend, and what becomes of the jobs."""

    def __init__(self, rig: Rig, folder: Path, stack: ExitStack) -> None:
        self.rig = rig
        self.namespace = f"t{time.monotonic_ns()}"
        self.stack = stack
        self.books = Books(*(Record(folder / name) for name in Books._fields))
        self.received, self.started, self.finished = self.books
        self.account = Account()
        self.workers: list[Working] = []
        self.totals: Totals | None = None
        self.backend = stack.enter_context(rig.client(self.namespace))
        self.orchestrator = self.producer(self.backend)
        stack.callback(self._clean_up)

    def _clean_up(self) -> None:
        for worker in self.workers:
            worker.kill()
        with suppress(JobsError):
            self.backend.delete(QUEUE)

    # -- producing --------------------------------------------------------------------------------

    def producer(self, backend: OrchestratorBackend) -> Orchestrator:
        """Somebody who publishes by way of ``backend``."""
        orchestrator = Orchestrator(backend)
        eventually(lambda: _registers(orchestrator), LIMIT_S, "the broker answers")
        return orchestrator

    def jobs(self, count: int, *, note: str = "", **options: Any) -> list[Job[Numbered]]:
        payloads = [Numbered(number=number, note=note) for number in range(count)]
        return [job_from_schema(SCHEMA, payload, **options) for payload in payloads]

    def publish(self, count: int, *, note: str = "", by: Orchestrator | None = None) -> list[Job[Numbered]]:
        """Publish jobs, and note which are confirmed.

        Those that may be in the queue or not are published again, where that makes no second job (PUB-5),
        and are else left open (PUB-4).
        """
        jobs = self.jobs(count, note=note)
        self.send(jobs, by or self.orchestrator)
        return jobs

    def send(self, jobs: Sequence[Job[Numbered]], by: Orchestrator) -> None:
        left = list(jobs)
        while left:
            self.account.unconfirmed.update(job.id for job in left)
            try:
                outcomes = by.publish_batch(QUEUE, left)
            except BackendUnavailable:  # nothing was sent
                self.account.unconfirmed.difference_update(job.id for job in left)
                return
            rejected = {o.id for o in outcomes if o.status is PublishStatus.REJECTED}
            unknown = {o.id for o in outcomes if o.status is PublishStatus.UNKNOWN}
            confirmed = {o.id for o in outcomes} - rejected - unknown
            self.account.confirmed |= confirmed
            self.account.unconfirmed -= confirmed | rejected
            if not by.backend.capabilities.dedupe:
                return
            left = [job for job in left if job.id in unknown]

    @contextmanager
    def producing(self, by: Orchestrator | None = None) -> Iterator[None]:
        """Publish small batches all the time."""
        if by is None:
            client = self.stack.enter_context(self.rig.client(self.namespace, retry_timeout_s=PATIENCE_S))
            by = self.producer(client)
        over, errors = threading.Event(), list[BaseException]()

        def produce() -> None:
            try:
                while not over.wait(0.01):
                    self.publish(5, by=by)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(LIMIT_S)
        assert not errors, repr(errors[0])
        assert not thread.is_alive(), "the producer hangs"

    # -- working ----------------------------------------------------------------------------------

    def start_worker(self, *, via: Proxy | None = None, feed: bool = False, **options: Any) -> Working:
        """Start a worker, and wait until it works.

        Args:
            via: What it reaches the broker through.
            feed: Publish a job whenever none is left for it, as others work, too.
            options: Those of ``worker.py``.
        """
        worker = self.rig.worker(self.namespace, self.books, via=via, **options)
        self.workers.append(worker)

        def works() -> bool:
            if feed and not self.backend.counts(QUEUE).waiting:
                self.publish(1)
            return worker.has_ended or any(run.pid == worker.pid for run in self.started.runs())

        eventually(works, LIMIT_S, "a worker starts to work")
        return worker

    def done(self) -> int:
        """How many of the confirmed jobs have run to their end, however often."""
        return len({run.job_id for run in self.finished.runs()} & self.account.confirmed)

    def ran(self, count: int) -> None:
        """Wait until ``count`` more jobs have run."""
        goal = self.done() + count
        eventually(lambda: self.done() >= goal, LIMIT_S, f"{count} more jobs run")

    @contextmanager
    def harming(self, *workers: Working, in_hand: int) -> Iterator[None]:
        """Note that what happens within may make what ``workers`` have in hand run again."""
        began = len(self.received)
        yield
        pids = frozenset(worker.pid for worker in workers)
        self.account.faults.append(Fault(pids, began, len(self.received), in_hand))

    def _end_workers(self) -> None:
        for worker in self.workers:
            if not worker.has_ended:
                worker.end()

    # -- the end ----------------------------------------------------------------------------------

    def expect_worked_off(self) -> None:
        """Wait until nothing waits or is in flight, and every confirmed job was finished or is dead."""

        def is_worked_off() -> bool:
            counts = self.backend.counts(QUEUE)
            if counts.waiting or counts.in_flight:
                return False
            return self.done() + counts.dead + self.account.dropped >= len(self.account.confirmed)

        eventually(is_worked_off, LIMIT_S, "every job is worked off")

    def check(self, *, dead: int = 0) -> Totals:
        """End the workers, and demand that the account adds up with nothing left but ``dead`` jobs."""
        self._end_workers()
        if self.backend.counts(QUEUE).waiting:  # a broker that can't count what is in flight: given back now
            self.start_worker(prefetch=1)
            self.expect_worked_off()
            self._end_workers()
        records = (self.started, self.finished, self.received)
        totals = self.account.check(self.backend, QUEUE, *records, all_done=False)
        assert (totals.live, totals.dead) == (0, dead), totals
        assert totals.done == totals.confirmed - dead - self.account.dropped
        self.totals = totals
        return totals


def _registers(orchestrator: Orchestrator) -> bool:
    """Declare the queue, unless the broker takes longer than the client's patience."""
    try:
        orchestrator.register(SCHEMA)
    except BackendUnavailable:
        return False
    return True
