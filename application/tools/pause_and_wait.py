"""Pause a queue, and wait until none of its jobs runs."""

from time import monotonic, sleep

from ...domain.errors import UnsupportedCapability
from ..api.orchestrator import Orchestrator
from ..pausing.records import Pause
from ..registration.registry import QueueRef

SEEN_S = 1.0
"""Within how many seconds each consumer has seen a pause."""
_LOOK_S = 0.2


def pause_and_wait(orchestrator: Orchestrator, queue: QueueRef, reason: str | None) -> Pause:
    """Pause a queue, and return once none of its jobs runs, however long that takes.

    Raises:
        UnsupportedCapability: the backend can't count the jobs that run; the queue isn't paused.
        JobsError: as of :meth:`Orchestrator.pause`.
    """
    if not orchestrator.backend.capabilities.counts_in_flight:
        raise UnsupportedCapability(
            "this backend can't count the jobs that run: pause without waiting for them"
        )
    pause = orchestrator.pause(queue, reason)
    paused_s = monotonic()
    while monotonic() - paused_s < SEEN_S or orchestrator.counts(queue).in_flight:
        sleep(_LOOK_S)
    return pause
