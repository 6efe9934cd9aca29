"""When a consume loop stops waiting for jobs."""

from collections.abc import Callable
from time import monotonic

from ...domain.errors import BackendUnavailable, InvalidInput, UsageError
from ...ports import OrchestratorBackend

StopCondition = Callable[[float | None], float | None]
"""Called with the seconds that were just waited in vain, or None where the last wait found something or there
was none yet. Returns how many seconds to wait next, or None to give up."""

_SHORTEST_S = 0.01


class Forever:
    """Never give up; and never spin, however short a poll was asked for."""

    def __init__(self, poll_timeout_s: float) -> None:
        self._wait_s = max(poll_timeout_s, _SHORTEST_S)

    def __call__(self, waited_s: float | None) -> float:
        """Return how many seconds to wait next."""
        return self._wait_s


def chosen_by(block: bool | None, poll_timeout_s: float, *, is_counted: bool) -> StopCondition:
    """Return when a ``consume`` is to stop waiting.

    Args:
        block: True for never, False for as soon as no job is ready. None goes by ``is_counted``.
        poll_timeout_s: Seconds to wait for a job.
        is_counted: Whether a number of jobs was asked for. Then a whole poll without a job ends it.

    Raises:
        InvalidInput: ``block`` is none of the three.
    """
    if block is not None and not isinstance(block, bool):
        raise InvalidInput(f"block {block!r:.80}: must be True, False or None")
    if block is False:
        return one_poll(0.0)
    return Forever(poll_timeout_s) if block or not is_counted else one_poll(poll_timeout_s)


def check_count(num_messages: object) -> None:
    """Refuse what can't say how many deliveries to attempt.

    Raises:
        InvalidInput: it is negative or no integer.
    """
    if type(num_messages) is int and num_messages >= 0:
        return
    remedy = "leave it out to run until stopped"
    if isinstance(num_messages, bool):
        remedy = f"did you mean block={num_messages}?"
    raise InvalidInput(
        f"num_messages {num_messages!r:.80}: must be an integer from 0, the number of jobs to run; {remedy}"
    )


def one_poll(poll_timeout_s: float) -> StopCondition:
    """Give up once a whole poll has passed without a job."""
    remaining_s = poll_timeout_s

    def until(waited_s: float | None) -> float | None:
        nonlocal remaining_s
        # A wait may end early, by an interrupt that came too late for the run before or by rounding.
        remaining_s = poll_timeout_s if waited_s is None else remaining_s - waited_s
        return remaining_s if waited_s is None or remaining_s > 0 else None

    return until


def until_empty(
    queue: str,
    backend: OrchestratorBackend,
    count_held_back: Callable[[], int],
    poll_timeout_s: float,
    in_flight_for_s: float,
) -> StopCondition:
    """Give up once no job of a queue is ready, delayed or held back by its limits.

    Args:
        queue: The queue's name.
        backend: Where it is.
        count_held_back: Counts the jobs that the consumer has in flight and that may run again.
        poll_timeout_s: As for :func:`while_any`.
        in_flight_for_s: For how many seconds from now jobs in flight count, too, where they can be counted.
    """
    in_flight_until_s = monotonic() + in_flight_for_s

    def count_waiting() -> int:
        held_back = count_held_back()
        counts_in_flight = monotonic() < in_flight_until_s
        if not (held_back or counts_in_flight) and (waits_for := backend.waits_for_clock(queue)) is not None:
            raise UsageError(
                f"consume_until_empty waits for {waits_for}: advance the clock first, or call consume(n), "
                "which ends when no job came for poll_timeout_s"
            )
        counts = backend.counts(queue)
        in_flight = counts.in_flight or 0 if counts_in_flight else 0
        return counts.waiting + in_flight + held_back

    return while_any(poll_timeout_s, count_waiting, backend.capabilities.counts_lag_s)


def while_any(poll_timeout_s: float, count_waiting: Callable[[], int], counts_lag_s: float) -> StopCondition:
    """Give up once no job waits, neither ready nor delayed; and never spin while one is delayed.

    Args:
        poll_timeout_s: Seconds to wait for a job while some are counted.
        count_waiting: Counts the jobs that are ready or delayed.
        counts_lag_s: For how many seconds a job may be in no count: nothing may come for so long.
    """
    wait_s = max(poll_timeout_s, _SHORTEST_S)
    quiet_s = 0.0

    def until(waited_s: float | None) -> float | None:
        nonlocal quiet_s
        if waited_s is None:
            quiet_s = 0.0
            return 0.0
        quiet_s += waited_s
        try:
            if count_waiting():
                quiet_s = 0.0
                return wait_s
        except BackendUnavailable:  # what receives next rides it out (CON-1)
            quiet_s = 0.0
            return wait_s
        return counts_lag_s - quiet_s if quiet_s < counts_lag_s else None

    return until
