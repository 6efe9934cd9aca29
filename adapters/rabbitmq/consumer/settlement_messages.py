"""The messages that a settlement publishes: the job once more, or its dead letter."""

import logging
from time import time

from ....domain import QueueKind
from ....domain.dead_reasons import DeadReason
from ....domain.printable import printable
from ....ports import Dead, Release, Retry, Settlement
from ..message import DeathRecord, DeliveryHistory, dead_properties, described, moved_properties
from ..topology import Names, priority_of
from ..transport.publishing import Outgoing
from .channel import Arrival, ConsumerChannel


class SettlementMessages:
    """Makes the messages that replace a settled or released delivery.

    Args:
        names: The names of the queue's parts.
        kind: The queue's kind at present; it may be set anew.
        channel: The channel that the jobs arrive on.
        logger: Gets an error for each message that can't be read.
    """

    def __init__(
        self, names: Names, kind: QueueKind, channel: ConsumerChannel, logger: logging.Logger
    ) -> None:
        self._names = names
        self.kind = kind
        self._channel = channel
        self._logger = logger

    @property
    def counts_crashes(self) -> bool:
        """Whether the queue does so itself: a quorum queue does, the classic queues for priorities don't."""
        return self.kind is not QueueKind.PRIORITY

    def for_settlement(self, settlement: Settlement, job: Arrival) -> Outgoing:
        """Return what a settlement other than an Ack publishes."""
        history = job.history.delivered()
        match settlement:
            case Retry(_, delay_s, error):
                return self._again(job, history.failed(error), delay_s=delay_s)
            case Dead(_, reason, error, _, ttl_s):
                return self._dead(job, history, reason, error, ttl_s)
            case Release(_, delay_s) if delay_s > 0:  # it has no place to go back to (SET-4)
                return self._again(job, history, delay_s=delay_s)
            case _:
                return self.released(job)

    def released(self, job: Arrival) -> Outgoing:
        """Return a job that was delivered, before the others."""
        return self._again(job, job.history.delivered(), returned=True)

    def undelivered(self, job: Arrival) -> Outgoing:
        """Return a job that nobody was given, with the crash before it counted (RTY-3).

        A message whose properties can't be read becomes a dead letter (RCV-4).
        """
        history = job.history
        if job.fault:
            error = described(job.fault)
            self._logger.error(
                "job %s is dead: %s: %s", printable(job.id), DeadReason.MALFORMED, printable(error)
            )
            return self._dead(job, history.delivered(), DeadReason.MALFORMED, error)
        if job.redelivered and not self.counts_crashes:
            history = history.delivered()
            history = history._replace(crashes=history.crashes + 1)
        return self._again(job, history, returned=True)

    def _again(
        self, job: Arrival, history: DeliveryHistory, *, returned: bool = False, delay_s: float = 0.0
    ) -> Outgoing:
        properties = moved_properties(
            job.id,
            self.kind,
            priority_of(self.kind, job.rank),
            history,
            frame_max=self._channel.frame_max,
            returned=returned,
        )
        return Outgoing(self._names.work, properties, job.body, delay_s)

    def _dead(
        self, job: Arrival, history: DeliveryHistory, reason: str, error: str, ttl_s: float | None = None
    ) -> Outgoing:
        death = DeathRecord(reason, error, round(time() * 1000), priority_of(self.kind, job.rank))
        properties = dead_properties(job.id, history, death, frame_max=self._channel.frame_max, ttl_s=ttl_s)
        return Outgoing(self._names.dead, properties, job.body)
