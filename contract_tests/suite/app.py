"""An orchestrator and a consumer on an adapter, for the clauses that they keep together."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..application import Consumer, Orchestrator
from ..domain import Job, JobInput, JobOutput, JobSchema, QueueKind, RetryPolicy
from ..ports import Message, OrchestratorBackend, PublishStatus
from .check_context import CheckContext

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


class Recorder(Consumer):
    """A consumer that runs a handler, and records the jobs that it was given."""

    def __init__(self, handler: Handler = add, retry: RetryPolicy | None = None) -> None:
        super().__init__(QUEUE)
        self.handler = handler
        self.jobs: list[Job[Numbers]] = []
        self._own_policy = retry

    @property
    def retry(self) -> RetryPolicy | None:  # type: ignore[override]
        """The policy given to this recorder."""
        return self._own_policy

    def run(self, job: Job[Numbers]) -> Any:
        """Hand the job to the handler."""
        self.jobs.append(job)
        return self.handler(job)

    @property
    def ids(self) -> list[str]:
        """The ids of the jobs that were run, in order."""
        return [job.id for job in self.jobs]


@dataclass(slots=True)
class App:
    """An orchestrator with one schema registered, on a fresh backend."""

    context: CheckContext
    backend: OrchestratorBackend
    orchestrator: Orchestrator

    def publish(self, data: Numbers | Mapping[str, Any] | Job[Numbers], **options: Any) -> str:
        """Publish one job."""
        return self.orchestrator.publish(QUEUE, data, **options)

    def publish_raw(self, id_: str, body: bytes) -> None:
        """Publish a body as it is, past the encoder."""
        (outcome,) = self.backend.publish(QUEUE, [Message(id_, body)])
        assert outcome.status is PublishStatus.ACCEPTED

    def consume(self, consumer: Recorder, count: int, *, lease_s: float = 60.0) -> Recorder:
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
    result_ttl_s: float = 60.0,
) -> Iterator[App]:
    """The application, with a schema whose failed jobs are retried at once."""
    at_once = RetryPolicy(max_attempts=3, base_delay_s=0.0)
    schema = JobSchema(QUEUE, Numbers, Total, retry=retry or at_once, result_ttl_s=result_ttl_s)
    with context.backends(1) as (backend,):
        orchestrator = Orchestrator(backend)
        orchestrator.register(schema, kind)
        yield App(context, backend, orchestrator)
