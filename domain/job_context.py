"""The job that runs in the current context, wherever its handler calls from.

A context variable carries it. So it is right with many jobs at once, in threads and in tasks; and a task or
a thread that a job leaves behind still belongs to that job, not to the one that runs next.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import NotInHandler

if TYPE_CHECKING:
    from .job import Job
    from .job_progress import Progress


def _nowhere(job: "Job[Any]", receipt: str, progress: "Progress") -> None:
    """Drop the progress of a job that no consumer runs."""


@dataclass(frozen=True, slots=True)
class ConsumerContext:
    """What the jobs of one consumer have in common."""

    queue: str = ""
    orchestrator: Any = None
    """Where its handlers publish; the domain doesn't know its class."""
    report: Callable[["Job[Any]", str, "Progress"], None] = _nowhere
    """Where progress goes: it is passed the job, the receipt of its delivery and the progress."""


NO_CONSUMER = ConsumerContext()
"""The context of a job that is run without a consumer, as in a test."""

JobContext = tuple["Job[Any]", str, ConsumerContext]
"""One run of a job: the job, the receipt of its delivery, its consumer. A plain tuple, as it costs least."""

running: ContextVar[JobContext | None] = ContextVar("mindtrace_jobs_running", default=None)
"""The job of this context. Only what runs handlers sets it."""


def current_job() -> "Job[Any] | None":
    """Return the job whose handler runs in this context; None outside a handler.

    A thread that the handler starts shares the context if it is run by ``contextvars.copy_context().run`` or
    ``asyncio.to_thread``; tasks share it by themselves.
    """
    context = running.get()
    return None if context is None else context[0]


def current_orchestrator() -> Any:
    """Return the orchestrator of the consumer that runs the job of this context.

    Raises:
        NotInHandler: no handler runs in this context.
    """
    context = running.get()
    orchestrator = None if context is None else context[2].orchestrator
    if orchestrator is None:
        raise NotInHandler(
            "job.orchestrator: no handler runs here. It is there while a consumer runs the job, also in the "
            "handler's tasks and in asyncio.to_thread; another thread needs contextvars.copy_context().run. "
            "Elsewhere use your own Orchestrator"
        )
    return orchestrator
