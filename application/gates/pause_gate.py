"""Shuts a consumer while its queue is paused."""

from collections.abc import Sequence
from contextlib import suppress
from logging import Logger
from typing import Any

from ...domain.errors import JobsError
from ..consuming.loop import ConsumeLoop
from ..consuming.stop_conditions import Forever, StopCondition
from ..limits.in_force import InForce
from ..pausing.records import Pause
from ..pausing.watch import PauseWatch
from .gated_consumer import GatedConsumer


class PauseGate:
    """Has the loop of a consumer start no job while its queue is paused.

    Args:
        watch: Who looks for pauses.
        queue: The queue's name.
        consumer: Where the loop takes its jobs.
        loop: The loop.
        logger: Where pauses are told.
        limits: What limits the jobs: the watch tells them of changes.
    """

    def __init__(
        self,
        watch: PauseWatch,
        queue: str,
        consumer: GatedConsumer,
        loop: ConsumeLoop,
        logger: Logger,
        limits: Sequence[InForce[Any]] = (),
    ) -> None:
        self.queue = queue
        self.limits = limits
        self._watch = watch
        self._consumer = consumer
        self._loop = loop
        self._logger = logger
        self._pause: Pause | None = None
        self._logged: Pause | None = None
        """The pause that was last told to the logger."""

    def run(self, limit: int | None, stop_condition: StopCondition) -> int:
        """Do as :meth:`ConsumeLoop.run`; end while the queue is paused, unless it runs until stopped."""
        return self._loop.run(limit, self._until_paused(stop_condition), self._watch.watching(self))

    @property
    def is_idle(self) -> bool:
        return self._pause is None and self._consumer.is_receiving and self._loop.is_empty

    def tell(self, pause: Pause | None) -> None:
        if pause is None:
            self._loop.hold(False)
            self._consumer.resume()
        else:  # in this order, nothing is taken after the last release
            self._consumer.pause()
            self._loop.hold(True)
        self._pause = pause

    def release(self) -> None:
        pause = self._pause
        if pause != self._logged:
            self._logged = pause
            self._logger.info("queue %s %s", self.queue, "goes on" if pause is None else f"is {pause}")
        if pause is not None:
            with suppress(JobsError):  # away, or closed; it is tried again at the next look
                self._consumer.end_receive()
                self._loop.release_queued()

    def renew(self) -> None:
        self._loop.renew()

    def _until_paused(self, stop_condition: StopCondition) -> StopCondition:
        if isinstance(stop_condition, Forever):
            return stop_condition

        def until(waited_s: float | None) -> float | None:
            pause = self._pause
            if pause is None:
                return stop_condition(waited_s)
            self._logger.warning(
                "queue %s is %s; not waiting for its jobs: resume(%r) has them run",
                *(self.queue, pause, self.queue),
            )
            return None

        return until
