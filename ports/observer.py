"""The port through which others see the work: logs, metrics, traces, health."""

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


class Attempt(NamedTuple):
    """One attempt at a job that has ended."""

    queue: str
    job_id: str
    number: int
    """From 1; one more with each retry."""
    outcome: Outcome
    duration_s: float
    error: str | None = None
    """The error that ended it; None where it went well."""


_NO_HEADERS: Mapping[str, str] = {}


class Observer:
    """Hears of the work and changes nothing about it; each method does nothing unless overridden.

    Every method may be called from any thread, should return quickly, and may raise: that is logged.
    """

    def publishing(self, queue: str, count: int) -> AbstractContextManager[Mapping[str, str]]:
        """Surround the publishing of ``count`` jobs; what it yields is added to each job's headers."""
        return nullcontext(_NO_HEADERS)

    def polled(self, queue: str, received: int) -> None:
        """A consumer has asked the broker, and been answered with so many jobs, or none."""

    def started(self, queue: str, job: Job[Any]) -> None:
        """A handler is about to run, on this thread."""

    def ended(self, attempt: Attempt) -> None:
        """An attempt has ended, on the thread that ran it; without a start where its handler never ran."""
