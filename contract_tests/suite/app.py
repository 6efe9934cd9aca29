"""An orchestrator and a consumer on an adapter, for the clauses that they keep together."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor  # noqa: TID251 - it is not waited for
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..application.api.batch_consumer import BatchConsumer
from ..application.api.consumer import Consumer
from ..application.api.orchestrator import Orchestrator
from ..domain import Job, JobInput, JobOutput, JobSchema, QueueKind, RetryPolicy
from ..ports import Message, OrchestratorBackend
from .check_context import CheckContext
from .check_queue import all_accepted, not_accepted
from .modes import ONE_AT_A_TIME, Mode

QUEUE = "sums"


class Numbers(JobInput):
    """The input of the suite's jobs."""

    x: float = 0.0
    y: float = 0.0
    note: str = ""


class Total(JobOutput):
    """Their output."""

    total: float


Handler = Callable[[Job[Numbers]], Any]


def add(job: Job[Numbers]) -> Total:
    """The handler of a job that goes well."""
    return Total(total=job.payload.x + job.payload.y)


class Recording(Consumer):
    """What the consumers of the suite share: they run a handler, and record the jobs that they were given."""

    def __init__(
        self, handler: Handler = add, retry: RetryPolicy | None = None, mode: Mode = ONE_AT_A_TIME
    ) -> None:
        super().__init__(QUEUE)
        self.handler = handler
        self.jobs: list[Job[Numbers]] = []
        self._own_policy = retry
        self._mode = mode

    @property
    def retry(self) -> RetryPolicy | None:  # type: ignore[override]
        """The policy given to this recorder."""
        return self._own_policy

    def handle(self, job: Job[Numbers]) -> Any:
        """Record the job, and hand it to the handler."""
        self.jobs.append(job)
        return self.handler(job)

    def is_told(self, job: Job[Numbers]) -> bool:
        """Whether the handler of this job can see that its lease was lost (LSE-4)."""
        return self.lease_lost

    @property
    def ids(self) -> list[str]:
        """The ids of the jobs that were run, in the order in which their handlers began."""
        return [job.id for job in self.jobs]

    def ran(self, ids: Sequence[str]) -> bool:
        """Whether these jobs were run and no others, each once: in this order, unless many run at once."""
        if self._mode.is_ordered:
            return self.ids == list(ids)
        return sorted(self.ids) == sorted(ids)


class Recorder(Recording):
    """A consumer whose handler is a plain function: one job at a time, or many, each on a thread."""

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """How many jobs run at once."""
        return self._mode.at_once

    def run(self, job: Job[Numbers]) -> Any:
        """Run one job."""
        return self.handle(job)


class TaskRecorder(Recorder):
    """A consumer whose handler is an ``async def``: each job is a task, which awaits what may take long."""

    _threads: ThreadPoolExecutor | None = None

    def connect(self, *args: Any, **settings: Any) -> None:
        """Connect, with a thread for each job that may run."""
        self._threads = ThreadPoolExecutor(self._mode.at_once)
        super().connect(*args, **settings)

    def close(self) -> None:
        """Disconnect, and end the threads."""
        super().close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def run(self, job: Job[Numbers]) -> Any:
        """Run one job."""
        handle = partial(copy_context().run, self.handle, job)
        return await asyncio.get_running_loop().run_in_executor(self._threads, handle)


class BatchRecorder(Recording, BatchConsumer):
    """A consumer whose handler takes batches: it runs their jobs one after the other."""

    def __init__(self, *args: Any, batch_wait_s: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._batch_wait_s = batch_wait_s

    @property
    def batch_wait_s(self) -> float:  # type: ignore[override]
        """How long a batch that isn't full waits for more jobs."""
        return self._batch_wait_s

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """How many jobs a batch has at most."""
        return self._mode.at_once

    def run_batch(self, jobs: Sequence[Job[Numbers]]) -> list[Any]:
        """Run the jobs of a batch; what is raised for one is the outcome of that one."""
        return [self._outcome(job) for job in jobs]

    def _outcome(self, job: Job[Numbers]) -> Any:
        try:
            return self.handle(job)
        except Exception as error:
            return error

    def is_told(self, job: Job[Numbers]) -> bool:
        """Whether the handler can see that the lease of this very job was lost (LSE-4)."""
        return self.is_lost(job)


RecordingT = TypeVar("RecordingT", bound=Recording)


@dataclass(slots=True)
class App:
    """An orchestrator with one schema registered, on a fresh backend."""

    context: CheckContext
    backend: OrchestratorBackend
    orchestrator: Orchestrator

    def publish(self, data: Numbers | Mapping[str, Any] | Job[Numbers], **options: Any) -> str:
        """Publish one job."""
        return self.orchestrator.publish(QUEUE, data, **options)

    def publish_many(self, count: int) -> list[str]:
        """Publish so many jobs at once, numbered from 0 as ``x``, and return their ids."""
        handles = self.orchestrator.publish_batch(QUEUE, [Numbers(x=n) for n in range(count)])
        outcomes = [handle.outcome for handle in handles]
        assert all_accepted(outcomes), f"a publish of {count} jobs: {not_accepted(outcomes)}"
        return [outcome.id for outcome in outcomes]

    def publish_raw(self, bodies: Mapping[str, bytes]) -> None:
        """Publish bodies by their ids, as they are, past the encoder."""
        outcomes = self.backend.publish(QUEUE, [Message(id_, body) for id_, body in bodies.items()])
        assert all_accepted(outcomes), f"a publish of {len(bodies)} bodies: {not_accepted(outcomes)}"

    def recorder(
        self, handler: Handler = add, retry: RetryPolicy | None = None, *, batch_wait_s: float = 0.01
    ) -> Recording:
        """Make a consumer that runs its jobs in the mode of the check that runs."""
        mode = self.context.mode
        if mode.in_batches:
            return BatchRecorder(handler, retry, mode, batch_wait_s=batch_wait_s)
        return (TaskRecorder if mode.is_async else Recorder)(handler, retry, mode)

    def consume(self, consumer: RecordingT, count: int, *, lease_s: float = 60.0) -> RecordingT:
        """Connect ``consumer``, let it attempt ``count`` deliveries, and close it."""
        with consumer:
            timeout_s = self.context.harness.timeout_s
            consumer.connect(self.orchestrator, lease_s=lease_s, poll_timeout_s=timeout_s)
            attempted = self.context.call_in_time(
                lambda: consumer.consume(count), within_s=timeout_s * 3 + 10
            )
            assert attempted == count, f"{attempted} deliveries were attempted, expected {count}"
        return consumer


@contextmanager
def app_on(
    context: CheckContext,
    *,
    retry: RetryPolicy | None = None,
    kind: QueueKind = QueueKind.FIFO,
    **settings: Any,
) -> Iterator[App]:
    """The application, with a schema of these settings, whose failed jobs are retried at once."""
    at_once = RetryPolicy(max_attempts=3, base_delay_s=0.0)
    schema = JobSchema(QUEUE, Numbers, Total, retry=retry or at_once, **settings)
    with context.backends(1) as (backend,):
        orchestrator = Orchestrator(backend)
        orchestrator.register(schema, kind)
        yield App(context, backend, orchestrator)
