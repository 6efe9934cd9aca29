"""The progress of a job: how much is done, and how much there is to do."""

import math
from dataclasses import dataclass

from .errors import InvalidInput


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


def _is_amount(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and number >= 0
