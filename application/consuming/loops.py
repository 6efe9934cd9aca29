"""Which loop a consumer needs."""

from logging import Logger

from ...ports import ConsumerBackend, Observer
from .batch_sizer import BatchSizer
from .concurrent_loop import ConcurrentLoop
from .executor import Executor
from .handler_runner import HandlerRunner
from .handler_threads import HandlerThreads
from .in_flight import InFlight
from .loop import ConsumeLoop
from .sequential_loop import SequentialLoop


def make_loop(
    queue: str,
    backend: ConsumerBackend,
    executor: Executor,
    *,
    concurrency: int,
    is_async: bool,
    prefetch: int | None,
    logger: Logger,
    observer: Observer | None,
) -> ConsumeLoop:
    """Make the loop of a consumer.

    Args:
        queue: The queue's name.
        backend: Where jobs come from.
        executor: What runs one.
        concurrency: How many run at once.
        is_async: Whether the handler is an ``async def``; one job at a time is run as a plain handler's.
        prefetch: How many jobs to take at once; None leaves it to the backend.
        logger: Where outages, losses and releases are told.
        observer: Who hears of each poll, if anyone.
    """
    if concurrency == 1:
        sizer = BatchSizer(backend.prefetch if prefetch is None else prefetch)
        return SequentialLoop(queue, backend, executor, sizer=sizer, logger=logger, observer=observer)

    def make_runner(in_flight: InFlight) -> HandlerRunner:
        name = f"mindtrace-jobs-{queue}"
        if is_async:
            from .handler_tasks import HandlerTasks  # imports asyncio, which takes long

            return HandlerTasks(in_flight, executor.execute_async, concurrency, name, logger)
        return HandlerThreads(in_flight, executor.execute, concurrency, name)

    return ConcurrentLoop(
        queue,
        backend,
        executor,
        concurrency=concurrency,
        make_runner=make_runner,
        prefetch=prefetch,
        logger=logger,
        observer=observer,
    )
