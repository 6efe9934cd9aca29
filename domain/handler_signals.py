"""Exceptions that a handler raises to retry or reject its job. They aren't errors of the program."""

from .bounds import check_seconds
from .errors import InvalidJob


class HandlerSignal(Exception):
    """The root of the exceptions by which a handler decides what happens to its job."""

    reason: str
    """Why; kept with the job."""


class RetryLater(HandlerSignal):
    """Run the job again after ``delay_s`` seconds instead of the policy's backoff (RTY-2).

    It spends an attempt like any retry. If no attempt is left, the job is dead.

    Args:
        delay_s: Seconds to wait by the broker's clock, 0 or more.
        reason: The text to store in the job's history.

    Raises:
        InvalidJob: ``delay_s`` is negative or not finite.
    """

    def __init__(self, delay_s: float, reason: str = "the handler asked to retry later") -> None:
        self.delay_s = check_seconds("delay_s", delay_s, InvalidJob)
        self.reason = str(reason)
        super().__init__(reason)


class Snooze(HandlerSignal):
    """Run the job later, as if this attempt hadn't begun: it spends no attempt, and isn't a failure (SET-4).

    For a job that can't run yet, for example as what it needs isn't there. Nothing bounds how often a job may
    snooze but its ``expires_s``. To spend an attempt, raise :class:`RetryLater`.

    Args:
        delay_s: Seconds to wait by the broker's clock, more than 0.
        reason: Why; it is logged.

    Raises:
        InvalidJob: ``delay_s`` is 0, negative or not finite.
    """

    def __init__(self, delay_s: float, reason: str = "the handler snoozed") -> None:
        self.delay_s = check_seconds("delay_s", delay_s, InvalidJob)
        if self.delay_s == 0:
            raise InvalidJob("delay_s 0: a job that snoozes for no time would run again at once, for ever")
        self.reason = str(reason)
        super().__init__(reason)


class Reject(HandlerSignal):
    """Make the job a dead letter at once, even if attempts are left (RTY-2).

    Args:
        reason: Why; kept with the dead letter.
    """

    def __init__(self, reason: str = "rejected by the handler") -> None:
        self.reason = str(reason)
        super().__init__(reason)
