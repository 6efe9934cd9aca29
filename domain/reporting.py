"""How far a job has come, told by its handler while it runs.

The handler knows the job, not the broker: what it says goes to whoever is listening in its context, and
nowhere outside a worker, so that a handler can be called in a test as it is.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Progress:
    """So much is done, of so much in all.

    Raises:
        InvalidInput: a number is negative or not finite.
    """

    done: float
    total: float | None = None
    """None where it isn't known."""

    def __post_init__(self) -> None:
        for what, number in (("done", self.done), ("total", self.total)):
            if number is not None and not _is_amount(number):
                raise InvalidInput(f"progress: {what} {number!r:.80} must be a number, 0 or more")

    def __str__(self) -> str:
        if self.total:
            return f"{self.done:g}/{self.total:g} ({min(1.0, self.done / self.total):.0%})"
        return f"{self.done:g}"


Listener = Callable[[Progress], None]

_listener: ContextVar[Listener | None] = ContextVar("mindtrace_jobs_progress", default=None)


def progress(done: float, total: float | None = None) -> None:
    """Say how far the job that runs in this context has come; outside a worker it goes nowhere.

    Cheap enough to be called in a loop: the broker is told a few times a second at most. A thread that the
    handler starts is in its context if it is run by ``contextvars.copy_context().run`` or
    ``asyncio.to_thread``.

    Args:
        done: How much is done, in any unit.
        total: How much there is to do, in the same unit; None where that isn't known.

    Raises:
        InvalidInput: a number is negative or not finite.
    """
    told = Progress(done, total)
    listener = _listener.get()
    if listener is not None:
        listener(told)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear of the progress told in this context, for as long as it lasts."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _is_amount(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and number >= 0
