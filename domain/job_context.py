"""The job that runs in the current context, wherever its handler calls from.

A context variable carries it. So it is right with many jobs at once, in threads and in tasks; and a task or
a thread that a job leaves behind still belongs to that job, not to the one that runs next.
"""

from collections.abc import Callable, Sequence, Set
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import NotInHandler

if TYPE_CHECKING:
    from .job import Job
    from .job_progress import Progress


def _nowhere(job: "Job[Any]", receipt: str, progress: "Progress") -> None:
    """Drop the progress of a job that no consumer runs."""


class ConsumerContext(NamedTuple):
    """What the jobs of one consumer have in common."""

    queue: str = ""
    orchestrator: Any = None
    """Where its handlers publish; the domain doesn't know its class."""
    report: Callable[["Job[Any]", str, "Progress"], None] = _nowhere
    """Where progress goes: it is passed the job, the receipt of its delivery and the progress."""
    cancelled: Set[str] = frozenset()
    """The receipts of running jobs that are to be cancelled."""


NO_CONSUMER = ConsumerContext()
"""The context of a job that is run without a consumer, as in a test."""

JobContext = tuple["Job[Any]", str, ConsumerContext]
"""One run of a job: the job, the receipt of its delivery, its consumer. A plain tuple, as it costs least."""


class BatchContext:
    """One run of a batch of jobs: none of them is the one that runs."""

    __slots__ = ("consumer", "members")

    def __init__(self, members: Sequence[JobContext], consumer: ConsumerContext) -> None:
        self.members = {member[0].id: member for member in members}
        """By the ids of their jobs."""
        self.consumer = consumer


running: ContextVar[JobContext | BatchContext | None] = ContextVar("mindtrace_jobs_running", default=None)
"""The job or the batch of this context. Only what runs handlers sets it."""


def context_of(job: "Job[Any]") -> JobContext | None:
    """Return the run of ``job`` if it is of the batch of this context; else the job that runs, if any."""
    context = running.get()
    return context.members.get(job.id) if isinstance(context, BatchContext) else context


def current_receipts() -> tuple[str, ...]:
    """Return the receipts of the job or the batch that runs in this context; none outside a handler."""
    context = running.get()
    if context is None:
        return ()
    if isinstance(context, BatchContext):
        return tuple(receipt for _, receipt, _ in context.members.values())
    return (context[1],)


def current_job() -> "Job[Any] | None":
    """Return the job whose handler runs in this context; None outside a handler, and in one of a batch.

    A thread that the handler starts shares the context if it is run by ``contextvars.copy_context().run`` or
    ``asyncio.to_thread``; tasks share it by themselves.
    """
    context = running.get()
    return None if context is None or isinstance(context, BatchContext) else context[0]


def current_orchestrator() -> Any:
    """Return the orchestrator of the consumer that runs the job of this context.

    Raises:
        NotInHandler: no handler runs in this context.
    """
    context = running.get()
    consumer = context.consumer if isinstance(context, BatchContext) else context and context[2]
    orchestrator = None if consumer is None else consumer.orchestrator
    if orchestrator is None:
        raise NotInHandler(
            "job.orchestrator: no handler runs here. It is there while a consumer runs the job, also in the "
            "handler's tasks and in asyncio.to_thread; another thread needs contextvars.copy_context().run. "
            "Elsewhere use your own Orchestrator"
        )
    return orchestrator
