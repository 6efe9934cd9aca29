"""The progress of a job, reported by its handler while it runs.

A report goes to the consumer that runs the job of the current context, and from there to the broker. Outside
a consumer it goes nowhere, so a test can call a handler directly. Once the job is settled, it goes nowhere
either.
"""

import math
from dataclasses import dataclass

from .errors import InvalidInput
from .job_context import BatchContext, JobContext, running


@dataclass(frozen=True, slots=True)
class Progress:
    """How much is done, and how much there is to do.

    Raises:
        InvalidInput: a number is negative or not finite.
    """

    done: float
    total: float | None = None
    """None if it isn't known."""

    def __post_init__(self) -> None:
        for what, number in (("done", self.done), ("total", self.total)):
            if number is not None and not _is_amount(number):
                raise InvalidInput(f"progress: {what} {number!r:.80} must be a number, 0 or more")

    def __str__(self) -> str:
        if self.total:
            return f"{self.done:g}/{self.total:g} ({min(1.0, self.done / self.total):.0%})"
        return f"{self.done:g}"


def progress(done: float, total: float | None = None) -> None:
    """Report the progress of the job that runs in this context. Outside a worker this does nothing.

    It is cheap enough for a loop: the broker is told twice a second at most. A thread that the handler starts
    shares its context if it is run by ``contextvars.copy_context().run`` or ``asyncio.to_thread``. In a batch
    no job is the one that runs, so this does nothing: use :meth:`Job.progress`.

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


def _is_amount(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and number >= 0
