"""What goes wrong, in words and as an exit code."""

from enum import IntEnum

from ..domain.errors import (
    AdapterNotInstalled,
    BackendError,
    JobFailed,
    JobsError,
    QueueNotFound,
    ResultNotReady,
    UnsupportedCapability,
)


class Exit(IntEnum):
    """The exit codes of every command; ``docs/cli.md`` has them as well."""

    OK = 0
    NO = 1
    """The command worked, and its answer is no: the job failed, something is wrong, not all was published."""
    USAGE = 2
    """The command line, the URL, a module, a setting or the JSON is wrong; nothing was done."""
    BROKER = 3
    """The broker can't be reached, or refuses."""
    NOT_FOUND = 4
    """There is no such queue, job or result, or not yet."""
    NOT_INSTALLED = 5
    """An extra is missing; the message names it."""
    BUG = 70
    """Something that was not foreseen; with a traceback."""
    AT_ONCE = 130
    """Stopped at once: by a second signal, or after the grace period. What was in hand was given back."""


class BadUsage(JobsError):
    """The command was asked for something that makes no sense; the message is the mend."""


class NotInstalled(JobsError):
    """An extra is missing."""


def exit_code(error: JobsError) -> Exit:
    """Return the exit code that stands for ``error``."""
    if isinstance(error, AdapterNotInstalled | NotInstalled):
        return Exit.NOT_INSTALLED
    if isinstance(error, JobFailed):
        return Exit.NO
    if isinstance(error, QueueNotFound | ResultNotReady):
        return Exit.NOT_FOUND
    if isinstance(error, BackendError) and not isinstance(error, UnsupportedCapability):
        return Exit.BROKER
    return Exit.USAGE
