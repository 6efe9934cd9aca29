"""What a call that publishes says about its jobs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What one publish says about all its jobs. None leaves a value to the job and its schema.

    The values are as in :meth:`Orchestrator.publish`, and checked with each job.
    """

    priority: int | None = None
    delay_s: float | None = None
    not_before: datetime | None = None
    expires_s: float | None = None
    timeout_s: float | None = None


NO_OPTIONS: Final = PublishOptions()
"""Of a publish that leaves all values to the job, as most do."""


def publish_options(
    priority: int | None,
    delay_s: float | None,
    not_before: datetime | None,
    expires_s: float | None,
    timeout_s: float | None,
) -> PublishOptions:
    """Return the options of a call; without any value, this makes nothing."""
    is_timed = delay_s is not None or not_before is not None or expires_s is not None
    if priority is None and timeout_s is None and not is_timed:
        return NO_OPTIONS
    return PublishOptions(priority, delay_s, not_before, expires_s, timeout_s)
