"""Which loop a consumer needs."""

from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from typing import TYPE_CHECKING

from ...ports import ConsumerBackend, Observer
from .concurrent_loop import ConcurrentLoop
from .executor import Executor
from .handler_runner import HandlerRunner
from .handler_threads import HandlerThreads
from .in_flight import InFlight
from .loop import ConsumeLoop
from .prefetch_sizer import PrefetchSizer
from .sequential_loop import SequentialLoop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How a consumer is to work."""

    queue: str
    """The queue's name."""
    concurrency: int
    """How many jobs run at once."""
    is_async: bool
    """Whether the handler is an ``async def``; one job at a time is run as a plain handler's."""
    loop_factory: "Callable[[], AbstractEventLoop] | None"
    """Makes the event loop of an ``async def``; None is asyncio's own."""
    prefetch: int | None
    """How many jobs to take at once; None leaves it to the backend."""
    logger: Logger
    """Where outages, losses and releases are told."""
    observer: Observer | None
    """Who hears of each poll, if anyone."""


def make_loop(backend: ConsumerBackend, executor: Executor, settings: LoopSettings) -> ConsumeLoop:
    """Make the loop of a consumer.

    Args:
        backend: Where jobs come from.
        executor: What runs one.
        settings: How to work.
    """
    queue, logger, observer = settings.queue, settings.logger, settings.observer
    if settings.concurrency == 1:
        sizer = PrefetchSizer(backend.prefetch if settings.prefetch is None else settings.prefetch)
        return SequentialLoop(queue, backend, executor, sizer=sizer, logger=logger, observer=observer)

    def make_runner(in_flight: InFlight) -> HandlerRunner:
        name = f"mindtrace-jobs-{queue}"
        if settings.is_async:
            from .handler_tasks import HandlerTasks  # imports asyncio, which takes long

            return HandlerTasks(
                in_flight,
                executor.execute_async,
                settings.concurrency,
                name,
                logger,
                settings.loop_factory,
            )
        return HandlerThreads(in_flight, executor.execute, settings.concurrency, name)

    return ConcurrentLoop(
        queue,
        backend,
        executor,
        concurrency=settings.concurrency,
        make_runner=make_runner,
        prefetch=settings.prefetch,
        logger=logger,
        observer=observer,
    )
