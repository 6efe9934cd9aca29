"""What tells a caller that it awaits a method which is no coroutine."""

from sys import modules
from typing import NoReturn

from ...domain.errors import UsageError


class _PublishedId(str):
    """A job's id that says what is wrong if it is awaited."""

    __slots__ = ()

    def __await__(self) -> NoReturn:
        raise awaited("publish", f"job {self!s}")


def runs_event_loop() -> bool:
    """Whether the calling thread runs one. This doesn't import asyncio, which takes long."""
    try:
        return modules["asyncio"]._get_running_loop() is not None
    except (KeyError, AttributeError):  # it isn't imported, or only in part
        return False


def returned_id(job_id: str) -> str:
    """Return ``job_id``; if the calling thread runs an event loop, awaiting it raises a ``UsageError``."""
    return _PublishedId(job_id) if runs_event_loop() else job_id


def awaited(method: str, job: str) -> UsageError:
    """Return the error of ``await`` before a call that publishes at once."""
    return UsageError(
        f"{method} is no coroutine, and {job} is published already: call it without await; or, as it blocks "
        f"the event loop, use an AsyncOrchestrator, or a thread: await asyncio.to_thread(jobs.{method}, …)"
    )
