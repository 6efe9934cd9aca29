"""The job that runs in the current context, wherever its handler calls from.

A context variable carries it. So it is right with many jobs at once, in threads and in tasks; and a task or
a thread that a job leaves behind still belongs to that job, not to the one that runs next.
"""

from collections.abc import Callable, Container, Sequence, Set
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from .errors import NotInHandler
from .job_progress import Progress


def _nowhere(job: Any, receipt: str, progress: Progress) -> None:
    """Drop the progress of a job that no consumer runs."""


class ConsumerContext(NamedTuple):
    """What the jobs of one consumer have in common."""

    queue: str = ""
    orchestrator: Any = None
    """Where its handlers publish; the domain doesn't know its class."""
    report: Callable[[Any, str, Progress], None] = _nowhere
    """Where progress goes: it is passed the job, the receipt of its delivery and the progress."""
    cancelled: Set[str] = frozenset()
    """The receipts of running jobs that are to be cancelled."""
    timed_out: Container[str] = frozenset()
    """The receipts of running jobs whose time limits are over."""


NO_CONSUMER = ConsumerContext()
"""The context of a job that is run without a consumer, as in a test."""

JobContext = tuple[Any, str, ConsumerContext]
"""One run of a job: the job, the receipt of its delivery, its consumer. A plain tuple, as it costs least."""


class HasId(Protocol):
    """A job, of which only the id counts here. So this module doesn't import the class of jobs."""

    @property
    def id(self) -> str: ...  # noqa: D102


class BatchContext:
    """One run of a batch of jobs: none of them is the one that runs."""

    __slots__ = ("consumer", "members")

    def __init__(self, members: Sequence[JobContext], consumer: ConsumerContext) -> None:
        self.members = {member[0].id: member for member in members}
        """By the ids of their jobs."""
        self.consumer = consumer


running: ContextVar[JobContext | BatchContext | None] = ContextVar("mindtrace_jobs_running", default=None)
"""The job or the batch of this context. Only what runs handlers sets it."""


def context_of(job: HasId) -> JobContext | None:
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


def running_job() -> Any:
    """Return the job whose handler runs in this context; None outside a handler, and in one of a batch."""
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


def progress(done: float, total: float | None = None) -> None:
    """Report the progress of the job that runs in this context. Outside a worker this does nothing.

    It is cheap enough for a loop: the broker is told twice a second at most. A thread that the handler starts
    shares its context if it is run by ``contextvars.copy_context().run`` or ``asyncio.to_thread``. In a batch
    no job is the one that runs, so this does nothing: use ``job.progress``.

    Args:
        done: How much is done, in any unit.
        total: How much there is to do, in the same unit; None if that isn't known.

    Raises:
        InvalidInput: a number is negative or not finite.
    """
    context = running.get()
    report(None if isinstance(context, BatchContext) else context, done, total)


def report(context: JobContext | None, done: float, total: float | None) -> None:
    """Report the progress of one run of a job; see :func:`progress`."""
    told = Progress(done, total)
    if context is not None:
        job, receipt, consumer = context
        consumer.report(job, receipt, told)
