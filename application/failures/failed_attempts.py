"""Failed attempts: what is stored of one, and how that is read back."""

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import chain
from types import TracebackType

from ...domain.errors import JobExpired, JobFailed
from ...domain.failure import FailureReport, decode_failure, encode_failure
from ...domain.wall_clock import utcnow
from ...ports import Dead, DeadLetter, Delivery, Failure, Retry
from ..process.graceful_stop import asks_to_stop

FollowDeath = Callable[[Delivery, Dead], Dead | Retry]
"""Adds the next jobs of a death to it. If they can't be published at present, the job is retried."""
AGAIN_S = 10.0
"""After how many seconds a job runs again that isn't dead yet, as its next jobs can't be published."""
_FRAMES = 50
"""The most frames of one error that are looked at: what recurs without end has thousands."""
_NOT_THE_HANDLERS = ("mindtrace.jobs.application.", "mindtrace.jobs.domain.", "asyncio.")
"""Modules whose frames lead to the handler, and say nothing of it."""


def failed_attempt(
    error: str, raised: BaseException | None = None, *, expired_at: datetime | None = None
) -> str:
    """Return the text to store of an attempt that fails now, in this process.

    Args:
        error: The error, as it is shown.
        raised: Whose traceback to keep; None keeps none. That is for retries: it would be written again
            with each later attempt.
        expired_at: When the job expired, if that is why it is dead.
    """
    return encode_failure(
        FailureReport(
            error,
            failed_at=utcnow(),
            host=_host(),
            pid=os.getpid(),
            traceback=None if raised is None else _traceback_of(raised),
            expired_at=expired_at,
        )
    )


def not_dead_yet(dead: Dead, why: str) -> Retry:
    """Return how to settle a job that can't die at present, as its next jobs can't be published (THEN-3).

    It runs again, and dies again. So the next jobs aren't lost.
    """
    error = decode_failure(dead.error).error
    return Retry(dead.receipt, AGAIN_S, failed_attempt(f"{error}; it isn't dead yet, as {why}"))


def explained(letter: DeadLetter) -> DeadLetter:
    """Return a dead letter as users see it, from one whose errors are as they were stored."""
    last = decode_failure(letter.error)
    return replace(
        letter,
        error=last.error,
        traceback=last.traceback,
        host=last.host,
        pid=last.pid,
        history=tuple(map(_explained, letter.history)),
    )


def job_failed(job_id: str, job_type: str, stored: str | None) -> JobFailed:
    """Return the error that a caller gets who asks for the result of a dead job."""
    if stored is None:
        return JobFailed(job_id=job_id, job_type=job_type)
    report = decode_failure(stored)
    if report.expired_at is not None:
        return JobExpired(job_id, report.expired_at)
    return JobFailed(report.error, report.traceback, job_id=job_id, job_type=job_type)


def _explained(failure: Failure) -> Failure:
    report = decode_failure(failure.error)
    return Failure(failure.attempt, report.error, report.failed_at, report.host, report.pid, report.traceback)


def _traceback_of(error: BaseException) -> str | None:
    """Format the traceback of ``error`` and its causes, without the frames that lead to the handler."""
    try:
        frames = _from_handler(error.__traceback__)
        if frames is None:
            return None
        return "".join([*_causes_of(error), *_lines_of(error, frames)]).rstrip("\n")
    except BaseException as broken:  # formatting runs code of the error's class
        if asks_to_stop(broken):
            raise
        return None


def _causes_of(error: BaseException) -> list[str]:
    """Format what led to ``error``, the first cause first."""
    parts: list[list[str]] = []
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if (cause := error.__cause__) is not None:
            how = "The above exception was the direct cause of the following exception"
        elif (cause := error.__context__) is not None and not error.__suppress_context__:
            how = "During handling of the above exception, another exception occurred"
        else:
            break
        parts.append([*_lines_of(cause, cause.__traceback__), f"\n{how}:\n\n"])
        error = cause
    return list(chain.from_iterable(reversed(parts)))


def _lines_of(error: BaseException, frames: TracebackType | None) -> list[str]:
    """Format one error as Python does, but for the marks under its lines, which take most of the time."""
    if isinstance(error, BaseExceptionGroup):
        return traceback.format_exception(type(error), error, frames, limit=-_FRAMES, chain=False)
    stack = traceback.StackSummary.extract(traceback.walk_tb(frames), limit=-_FRAMES)
    return [
        "Traceback (most recent call last):\n",
        *stack.format(),
        *traceback.format_exception_only(type(error), error),
    ]


def _from_handler(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the frames before the handler's; None where there are no others."""
    while frames is not None and _leads_to_handler(frames):
        frames = frames.tb_next
    return frames


def _leads_to_handler(frames: TracebackType) -> bool:
    module = frames.tb_frame.f_globals.get("__name__")
    return isinstance(module, str) and module.startswith(_NOT_THE_HANDLERS)


@cache
def _host() -> str:
    return socket.gethostname()
