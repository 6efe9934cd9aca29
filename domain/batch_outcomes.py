"""What a handler of batches may say of one of its jobs, in the place of a result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

from .bounds import check_seconds
from .errors import InvalidJob

ResultT = TypeVar("ResultT", covariant=True, default=Any)


@dataclass(frozen=True, slots=True)
class Done(Generic[ResultT]):
    """The job is done. Its result alone says the same, and so does None."""

    result: ResultT | Mapping[str, Any] | None = None
    """An instance of the output model, a dict that validates as one, or None."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the job again. It spends an attempt; if none is left, the job is dead (RTY-2).

    Raises:
        InvalidJob: ``delay_s`` is negative or not finite.
    """

    delay_s: float | None = None
    """Seconds to wait by the broker's clock, 0 or more; None is the backoff of the retry policy."""
    reason: str = "the handler asked to retry"
    """Why; kept in the job's history."""

    def __post_init__(self) -> None:
        if self.delay_s is not None:
            check_seconds("delay_s", self.delay_s, InvalidJob)


@dataclass(frozen=True, slots=True)
class Dead:
    """Make the job a dead letter at once, even if attempts are left (RTY-2)."""

    reason: str = "rejected by the handler"
    """Why; kept with the dead letter."""
