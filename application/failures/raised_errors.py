"""Errors as callers get them."""

import copy
from typing import TypeVar

from ...domain.errors import JobsError
from ...ports import PublishOutcome

ErrorT = TypeVar("ErrorT", bound=BaseException)


def own_copy(error: ErrorT) -> ErrorT:
    """Return a copy of an error that several callers get, as raising it in one changes it for all."""
    try:
        copied = copy.copy(error)
    except Exception:  # an error of a driver's that can't be copied
        return error
    copied.__cause__, copied.__suppress_context__ = error.__cause__, error.__suppress_context__
    return copied.with_traceback(error.__traceback__)


def rejection(outcome: PublishOutcome) -> JobsError:
    """Return the error of a job that was rejected."""
    return outcome.error or JobsError(f"job {outcome.id} was rejected by the backend")
