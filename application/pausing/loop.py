"""How a consumer stops and goes on as its queue is paused and resumed."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import Logger

from ...domain.errors import JobsError
from ...ports import ConsumerBackend
from ..consuming.loop import ConsumeLoop
from ..consuming.stop_conditions import Forever, StopCondition
from .consumer_backend import PausableConsumerBackend
from .records import Pause
from .watch import PauseWatch

Run = Callable[[int | None, StopCondition], int]
"""Runs a loop; see :meth:`ConsumeLoop.run`."""


def pausable_loop(
    watch: PauseWatch | None,
    queue: str,
    backend: ConsumerBackend,
    make_loop: Callable[[ConsumerBackend], ConsumeLoop],
    logger: Logger,
) -> tuple[ConsumeLoop, Run]:
    """Make the loop of a consumer that obeys pauses; without a watch it is a plain one.

    Args:
        watch: Who looks for pauses; None if the backend has no coordination store.
        queue: The queue's name.
        backend: Where its jobs come from.
        make_loop: Makes the loop.
        logger: Where pauses are told.

    Returns:
        The loop, and what runs it.
    """
    if watch is None:
        loop = make_loop(backend)
        return loop, loop.run
    pausable = PausableConsumerBackend(backend, partial(watch.refresh, queue))
    loop = make_loop(pausable)
    return loop, _PausableLoop(watch, queue, pausable, loop, logger).run


class _PausableLoop:
    """A loop that starts no job while its queue is paused."""

    def __init__(
        self,
        watch: PauseWatch,
        queue: str,
        backend: PausableConsumerBackend,
        loop: ConsumeLoop,
        logger: Logger,
    ) -> None:
        self.queue = queue
        self._watch = watch
        self._backend = backend
        self._loop = loop
        self._logger = logger
        self._pause: Pause | None = None
        self._logged: Pause | None = None
        """The pause that was last told to the logger."""

    def run(self, limit: int | None, stop_condition: StopCondition) -> int:
        """Do as :meth:`ConsumeLoop.run`; end while the queue is paused, unless it runs until stopped."""
        with self._watch.watching(self):
            return self._loop.run(limit, self._until_paused(stop_condition))

    @property
    def is_idle(self) -> bool:
        return self._pause is None and self._backend.is_receiving and self._loop.is_empty

    def tell(self, pause: Pause | None) -> None:
        if pause is None:
            self._loop.hold(False)
            self._backend.resume()
        else:  # in this order, nothing is taken after the last release
            self._backend.pause()
            self._loop.hold(True)
        self._pause = pause

    def release(self) -> None:
        pause = self._pause
        if pause != self._logged:
            self._logged = pause
            self._logger.info("queue %s %s", self.queue, "goes on" if pause is None else f"is {pause}")
        if pause is not None:
            with suppress(JobsError):  # away, or closed; it is tried again at the next look
                self._backend.end_receive()
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
