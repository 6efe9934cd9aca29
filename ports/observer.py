"""The port for logs, metrics, traces and health: what others hear of published and executed jobs."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, NamedTuple

from ..domain import Job


class Outcome(StrEnum):
    """How one attempt at a job ended."""

    DONE = "done"
    RETRIED = "retried"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    """The handler raised ``Snooze``: the job runs later, and spends no attempt."""
    EXPIRED = "expired"
    """The job waited for too long. No handler ran, so there was no start."""


class SlotOutcome(StrEnum):
    """What became of a slot of a schedule that was due."""

    PUBLISHED = "published"
    """Its job was published."""
    MISSED = "missed"
    """It passed without a job, as its schedule's misfire says: told once for all that passed together."""
    FAILED = "failed"
    """It couldn't be published: told with each try."""


class Attempt(NamedTuple):
    """One finished attempt at a job."""

    queue: str
    job_id: str
    number: int
    """Starts at 1, and rises by one with each retry."""
    outcome: Outcome
    duration_s: float
    error: str | None = None
    """The error that ended it; None if the attempt didn't fail."""
    timed_out: bool = False
    """Whether it failed once its time limit was over."""


_NO_HEADERS: Mapping[str, str] = {}


class Observer:
    """Is told about published jobs and attempts. Each method does nothing unless overridden.

    Any thread may call any method. A method should return quickly. If it raises, the error is logged, and
    the job isn't affected.
    """

    def publishing(self, queue: str, count: int) -> AbstractContextManager[Mapping[str, str]]:
        """Return a context in which ``count`` jobs are published; it yields headers to add to each job."""
        return nullcontext(_NO_HEADERS)

    def polled(self, queue: str, received: int) -> None:
        """A consumer asked the broker for jobs, and got ``received`` of them, perhaps none."""

    def held_back(self, queue: str, count: int) -> None:
        """So many more jobs than at the last poll wait with a consumer for a rate or a concurrency limit."""

    def stood(self, queue: str, count: int) -> None:
        """So many unique jobs weren't published, as others are in their places."""

    def replaced(self, queue: str, count: int) -> None:
        """So many unique jobs took the places of others that were published before."""

    def slot(self, queue: str, outcome: SlotOutcome) -> None:
        """A slot of a schedule was due, whose jobs go to this queue."""

    def started(self, queue: str, job: Job[Any]) -> None:
        """A handler is about to run, in this thread or task."""

    def ended(self, attempt: Attempt) -> None:
        """An attempt has ended, in the thread or task that ran it. Without a handler, it had no start."""
