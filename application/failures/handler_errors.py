"""Errors of the code that a job runs: how they are described and logged, whatever that code does."""

import logging

from ...domain.printable import printable
from ..process.graceful_stop import asks_to_stop


def describe(error: BaseException) -> str:
    """Return the class and the message of ``error``, as they are kept with its job."""
    name = "an error"
    try:
        name = f"{type(error).__name__}"
        text = f"{error}"
    except BaseException as broken:  # the error's class may be broken, too
        if asks_to_stop(broken):
            raise
        return f"{name}: its message can't be shown"
    return f"{name}: {text}" if text else name


def try_to_log(
    logger: logging.Logger, level: int, message: str, *args: object, traceback: bool = False
) -> None:
    """Log a message, or don't: a traceback runs code of its errors, and a program has filters of its own.

    Args:
        logger: Where to.
        level: Its level, such as ``logging.ERROR``.
        message: A format, and ``args`` what it refers to; control characters in them are escaped.
        args: See above.
        traceback: Whether to add the traceback of the error that is being handled.
    """
    try:
        safe = [printable(arg) if isinstance(arg, str) else arg for arg in args]
        logger.log(level, message, *safe, exc_info=traceback, stacklevel=2)
    except BaseException as broken:
        if asks_to_stop(broken):
            raise
