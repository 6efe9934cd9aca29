"""One experiment: a queue on a target, its producer, its workers, and the audit of every job."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from brokers.proxy import Proxy
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, Fault, JobAudit, Totals
from mindtrace.jobs import Job, JobSchema, Orchestrator, OrchestratorBackend, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable, JobsError

from ..recording_worker import SCHEMA
from .targets import ExecutionRecords, RunningWorker, Target

QUEUE = SCHEMA.name
PRODUCER_RETRY_TIMEOUT_S = 1.0
"""The retry timeout of the producer that publishes while faults are injected."""


class Experiment:
    """Publishes and works off jobs while a test injects faults, and audits them at the end."""

    def __init__(
        self, target: Target, folder: Path, stack: ExitStack, schema: JobSchema[Any, Any] = SCHEMA
    ) -> None:
        self.target = target
        self.schema = schema
        self.queue = schema.name
        self.namespace = f"t{time.monotonic_ns()}"
        self.stack = stack
        self.records = ExecutionRecords(
            *(ExecutionRecord(folder / name) for name in ExecutionRecords._fields)
        )
        self.received, self.started, self.finished = self.records
        self.audit = JobAudit()
        self.workers: list[RunningWorker] = []
        self.totals: Totals | None = None
        self.backend = stack.enter_context(target.client(self.namespace))
        self.orchestrator = self.producer(self.backend)
        stack.callback(self._clean_up)

    def _clean_up(self) -> None:
        for worker in self.workers:
            worker.kill()
        with suppress(JobsError):
            self.backend.delete(self.queue)

    # -- producing --------------------------------------------------------------------------------

    def producer(self, backend: OrchestratorBackend) -> Orchestrator:
        """Return an orchestrator that publishes through ``backend``."""
        orchestrator = Orchestrator(backend)
        eventually(lambda: _try_register(orchestrator, self.schema), "the broker answers")
        return orchestrator

    def jobs(self, count: int, *, note: str = "", **options: Any) -> list[Job[Any]]:
        payloads = [{"number": number, "note": note} for number in range(count)]
        return [job_from_schema(self.schema, payload, **options) for payload in payloads]

    def publish(
        self,
        count: int,
        *,
        note: str = "",
        by: Orchestrator | None = None,
        timeout_s: float | None = None,
        expires_s: float | None = None,
    ) -> list[Job[Any]]:
        """Publish jobs, and note which are confirmed.

        Jobs whose outcome is unknown are published again, where that makes no second job (PUB-5),
        and are else left open (PUB-4).
        """
        jobs = self.jobs(count, note=note, timeout_s=timeout_s)
        self.send(jobs, by or self.orchestrator, expires_s)
        return jobs

    def send(self, jobs: Sequence[Job[Any]], by: Orchestrator, expires_s: float | None = None) -> None:
        left = list(jobs)
        while left:
            self.audit.unconfirmed.update(job.id for job in left)
            try:
                outcomes = [
                    handle.outcome for handle in by.publish_batch(self.queue, left, expires_s=expires_s)
                ]
            except BackendUnavailable:  # nothing was sent
                self.audit.unconfirmed.difference_update(job.id for job in left)
                return
            rejected = {o.id for o in outcomes if o.status is PublishStatus.REJECTED}
            unknown = {o.id for o in outcomes if o.status is PublishStatus.UNKNOWN}
            confirmed = {o.id for o in outcomes} - rejected - unknown
            self.audit.confirmed |= confirmed
            self.audit.unconfirmed -= confirmed | rejected
            if not by.backend.capabilities.dedupe:
                return
            left = [job for job in left if job.id in unknown]

    @contextmanager
    def producing(self, by: Orchestrator | None = None) -> Iterator[None]:
        """Publish small batches all the time."""
        if by is None:
            client = self.stack.enter_context(
                self.target.client(self.namespace, retry_timeout_s=PRODUCER_RETRY_TIMEOUT_S)
            )
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

    def refill(self, count: int) -> None:
        """Publish as many jobs as it takes for ``count`` to wait."""
        missing = count - self.backend.counts(self.queue).waiting
        if missing > 0:
            self.publish(missing)

    # -- working ----------------------------------------------------------------------------------

    def start_worker(
        self, *, via: Proxy | None = None, publish_when_empty: bool = False, **options: Any
    ) -> RunningWorker:
        """Start a worker, and wait until it has run a job.

        Args:
            via: What it reaches the broker through.
            publish_when_empty: Publish a job whenever none is left for it, as others work, too.
            options: Those of ``recording_worker.py``.
        """
        worker = self.target.worker(self.namespace, self.records, via=via, **options)
        self.workers.append(worker)

        def works() -> bool:
            if publish_when_empty and not self.backend.counts(self.queue).waiting:
                self.publish(1)
            return worker.has_ended or any(run.pid == worker.pid for run in self.started.runs())

        eventually(works, "a worker starts to work")
        return worker

    def done_count(self) -> int:
        """How many of the confirmed jobs have run to their end, however often."""
        return len({run.job_id for run in self.finished.runs()} & self.audit.confirmed)

    def wait_until_run(self, count: int) -> None:
        """Wait until ``count`` more jobs have run."""
        goal = self.done_count() + count
        eventually(lambda: self.done_count() >= goal, f"{count} more jobs run")

    @contextmanager
    def fault_on(self, *workers: RunningWorker, in_flight: int) -> Iterator[None]:
        """Note that a fault within the block may make the jobs in flight of ``workers`` run again."""
        began = len(self.received)
        yield
        pids = frozenset(worker.pid for worker in workers)
        self.audit.faults.append(Fault(pids, began, len(self.received), in_flight))

    def _end_workers(self) -> None:
        for worker in self.workers:
            if not worker.has_ended:
                worker.end()

    # -- the end ----------------------------------------------------------------------------------

    def wait_until_drained(self) -> None:
        """Wait until nothing waits or is in flight, and every confirmed job was finished or is dead."""

        def is_drained() -> bool:
            counts = self.backend.counts(self.queue)
            if counts.waiting or counts.in_flight:
                return False
            return self.done_count() + counts.dead + self.audit.dropped >= len(self.audit.confirmed)

        eventually(is_drained, "every job is done or dead")

    def work_off(self) -> None:
        """Do what waits, and end the worker."""
        self.start_worker(prefetch=1)
        self.wait_until_drained()
        self._end_workers()

    def check(self, *, dead: int = 0) -> Totals:
        """End the workers, and demand that the audit adds up with nothing left but ``dead`` jobs."""
        self._end_workers()
        # A broker that can't count what is in flight has given it back by now.
        if self.backend.counts(self.queue).waiting:
            self.work_off()
        records = (self.started, self.finished, self.received)
        totals = self.audit.check(self.backend, self.queue, *records, all_done=False)
        assert (totals.live, totals.dead) == (0, dead), totals
        assert totals.done == totals.confirmed - dead - self.audit.dropped
        self.totals = totals
        return totals


def _try_register(orchestrator: Orchestrator, schema: JobSchema[Any, Any]) -> bool:
    """Declare the queue, unless the broker takes longer than the client's retry timeout."""
    try:
        orchestrator.register(schema)
    except BackendUnavailable:
        return False
    return True
