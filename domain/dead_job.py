"""A job that dies, as ``on_dead`` of its schema sees it."""

from dataclasses import dataclass
from typing import Generic

from pydantic import BaseModel
from typing_extensions import TypeVar

PayloadT = TypeVar("PayloadT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class DeadJob(Generic[PayloadT]):
    """A job that is about to become a dead letter, as the function gets it that is a schema's ``on_dead``.

    What that returns is published in the step in which the job dies (THEN-4).
    """

    id: str
    """The job's id."""
    queue: str
    """The name of its queue."""
    reason: str
    """Why it is dead: one of a few phrases, as ``DeadLetter.reason`` (SET-3)."""
    error: str
    """Its last error, as ``DeadLetter.error``."""
    attempt: int
    """The number of its last attempt, from 1 on."""
    payload: PayloadT | None
    """Its payload; None if that can't be read, as of a malformed job."""
