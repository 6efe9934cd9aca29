"""Calls to a broker that may be away."""

from collections.abc import Callable
from logging import Logger

from ...domain import RetryPolicy
from ...domain.errors import BackendUnavailable
from ...domain.wording import quantity
from ...ports import Delivery
from .stop_request import StopRequest

RECONNECT = RetryPolicy(base_delay_s=0.1, max_delay_s=10.0)
RESETTLE = RetryPolicy(base_delay_s=0.1, max_delay_s=1.0)
"""How long to wait before settlements are sent again: not for long, as the leases of their jobs run."""


def call_until_answered(
    call: Callable[[], list[Delivery]], backoff: RetryPolicy, stopping: StopRequest, logger: Logger
) -> list[Delivery]:
    """Repeat a call with backoff until the broker answers it, and log how an outage begins and ends (CON-1).

    Args:
        call: What to repeat.
        backoff: How long to wait in between.
        stopping: Ends the wait, and so the repetitions.
        logger: Where the outage is told.

    Returns:
        What the call returned; nothing where it was ended.
    """
    tries = 0
    while True:
        try:
            answer = call()
        except BackendUnavailable as error:
            tries += 1
            if tries == 1:
                logger.warning("backend unavailable, retrying until it is back: %s", error)
            if stopping.wait(backoff.delay_s(tries)):
                return []
        else:
            if tries:
                logger.warning("backend is back after %s", quantity(tries, "try", "tries"))
            return answer
