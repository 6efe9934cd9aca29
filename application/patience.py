"""How long a consume loop waits for the next job, and when it gives up."""

from collections.abc import Callable

Patience = Callable[[float | None], float | None]
"""Called with the seconds that were just waited in vain, or None where the last wait found something or there
was none yet. Returns how many seconds to wait next, or None to give up."""


def forever(poll_timeout_s: float) -> Patience:
    """Never give up."""
    return lambda _waited_s: poll_timeout_s


def one_poll(poll_timeout_s: float) -> Patience:
    """Give up once a whole poll has passed without a job."""

    def patience(waited_s: float | None) -> float | None:
        remaining_s = poll_timeout_s - (waited_s or 0.0)
        return remaining_s if waited_s is None or remaining_s > 0 else None

    return patience


def while_any(poll_timeout_s: float, count_waiting: Callable[[], int]) -> Patience:
    """Give up once no job waits, neither ready nor delayed."""

    def patience(waited_s: float | None) -> float | None:
        if waited_s is None:
            return 0.0
        return poll_timeout_s if count_waiting() else None

    return patience
