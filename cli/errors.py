"""Exit codes, and the errors of the command line itself."""

from enum import IntEnum

from ..domain.errors import (
    AdapterNotInstalled,
    BackendError,
    JobCancelled,
    JobFailed,
    JobsError,
    LimitNotFound,
    QueueNotFound,
    ResultNotReady,
    ScheduleNotFound,
    UnsupportedCapability,
)
from ..domain.wording import EXPAND_HOME, LIST_SCHEDULES, REGISTER_FIRST, lacks


class Exit(IntEnum):
    """The exit codes of every command; ``docs/cli.md`` has them as well."""

    OK = 0
    NO = 1
    """The command ran, but a job is dead or was cancelled, a check failed, or not every job was published."""
    USAGE = 2
    """The command line, the URL, a module, a consumer, a setting or the JSON is wrong; nothing was done."""
    BROKER = 3
    """The broker can't be reached, or refuses the request."""
    NOT_FOUND = 4
    """There is no such queue, job, result, schedule or limit, or not yet."""
    NOT_INSTALLED = 5
    """An extra is missing; the message names it."""
    BUG = 70
    """A bug in this project, or in a consumer's ``connect``; a traceback is printed."""
    AT_ONCE = 130
    """Stopped at once: a worker by a second signal (it released its jobs), or a command by Ctrl-C."""


class BadUsage(JobsError):
    """The command line is wrong; the message says how to correct it."""


class ConsumerFailed(BadUsage):
    """The code that makes a consumer raised an error, which is the cause of this one."""


class NotInstalled(JobsError):
    """An extra is missing; the message has the command that installs it.

    Args:
        what: What needs the extra.
        library: The library that wasn't found.
        extra: The extra that brings it.
    """

    def __init__(self, what: str, library: str | None, extra: str) -> None:
        super().__init__(lacks(what, library, extra))


_COMMANDS_WORDS = {
    REGISTER_FIRST: "a worker of its consumer declares it, and so does publish --schema module:Name",
    LIST_SCHEDULES: "mindtrace-jobs schedules list shows those that are",
    EXPAND_HOME: "write its path, as in sqlite:////home/me/jobs.db",
}
"""What a program does, and what somebody at a terminal does instead."""


def for_commands(message: str) -> str:
    """Return the message of an error with the words of commands for what a program would do."""
    for python, command in _COMMANDS_WORDS.items():
        message = message.replace(python, command)
    return message


def exit_code(error: JobsError) -> Exit:
    """Return the exit code that stands for ``error``."""
    if isinstance(error, AdapterNotInstalled | NotInstalled):
        return Exit.NOT_INSTALLED
    if isinstance(error, JobFailed | JobCancelled):
        return Exit.NO
    if isinstance(error, LimitNotFound | QueueNotFound | ResultNotReady | ScheduleNotFound):
        return Exit.NOT_FOUND
    if isinstance(error, BackendError) and not isinstance(error, UnsupportedCapability):
        return Exit.BROKER
    return Exit.USAGE
