"""What a handler raises to say what shall become of its job; neither is an error of the program."""

from .limits import check_seconds


class HandlerSignal(Exception):
    """The root of what a handler raises to decide the fate of its job."""


class RetryLater(HandlerSignal):
    """Run the job again after ``delay_s`` seconds instead of the policy's backoff (RTY-2).

    It spends an attempt like any retry: with none left, the job is dead.

    Args:
        delay_s: Seconds to wait by the broker's clock, 0 or more.
        reason: What to record; shown in the job's history.

    Raises:
        InvalidJob: ``delay_s`` is negative or not finite.
    """

    def __init__(self, delay_s: float, reason: str = "the handler asked to retry later") -> None:
        self.delay_s = check_seconds("delay_s", delay_s)
        self.reason = str(reason)
        super().__init__(reason)


class Reject(HandlerSignal):
    """Dead-letter the job at once, whatever attempts are left (RTY-2).

    Args:
        reason: Why; kept with the dead letter.
    """

    def __init__(self, reason: str = "rejected by the handler") -> None:
        self.reason = str(reason)
        super().__init__(reason)
