"""Which loop a consumer needs."""

from collections.abc import Callable, Container, Set
from logging import Logger
from typing import TYPE_CHECKING, Any, NamedTuple

from ...ports import ConsumerBackend, Observer
from .callers_loop import CallersLoop
from .executor import Executor
from .hooks import ConsumerHooks
from .in_flight import InFlight
from .job_permits import PermitShare
from .loop import ConsumeLoop
from .prefetch_sizer import make_sizer
from .sequential_loop import SequentialLoop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .coroutine_handler import CoroutineHandler


class LoopSettings(NamedTuple):
    """How a consumer is to work."""

    queue: str
    """The queue's name."""
    concurrency: int
    """How many jobs run at once."""
    is_async: bool
    """Whether the handler is an ``async def``; one job at a time is run as a plain handler's."""
    loop_factory: "Callable[[], AbstractEventLoop] | None"
    """Makes the event loop of an ``async def``; None is asyncio's own."""
    callers_loop: CallersLoop
    """The event loop of the caller, for as long as it lends one."""
    prefetch: int | None
    """How many jobs to take at once; None leaves it to the backend."""
    logger: Logger
    """Where outages, losses and releases are told."""
    observer: Observer | None
    """Who hears of each poll, if anyone."""
    permits: PermitShare | None = None
    """The consumer's share of the permits of its process, if that limits how many handlers run."""
    hooks: ConsumerHooks | None = None
    """What the consumer does before its first job and after its last, if anything."""


def make_loop(backend: ConsumerBackend, executor: Executor, settings: LoopSettings) -> ConsumeLoop:
    """Make the loop of a consumer.

    Args:
        backend: Where jobs come from.
        executor: What runs one.
        settings: How to work.
    """
    if settings.concurrency > 1:
        return _concurrent_loop(backend, executor, settings)
    prefetch = backend.prefetch if settings.prefetch is None else settings.prefetch
    return SequentialLoop(
        settings.queue,
        backend,
        executor,
        sizer=make_sizer(prefetch, settings.permits),
        logger=settings.logger,
        observer=settings.observer,
        permits=settings.permits,
        hooks=settings.hooks,
    )


def _concurrent_loop(backend: ConsumerBackend, executor: Executor, settings: LoopSettings) -> ConsumeLoop:
    from .concurrent_loop import ConcurrentLoop  # here, as most consumers run one job at a time
    from .handler_runner import HandlerRunner
    from .handler_threads import HandlerThreads

    name = f"mindtrace-jobs-{settings.queue}"

    def make_runner(in_flight: InFlight) -> HandlerRunner:
        if settings.is_async:
            from .handler_tasks import HandlerTasks  # imports asyncio, which takes long

            return HandlerTasks(
                in_flight,
                executor.execute_async,
                settings.concurrency,
                name,
                settings.logger,
                settings.callers_loop,
                settings.loop_factory,
            )
        return HandlerThreads(in_flight, executor.execute, settings.concurrency, name, settings.logger)

    return ConcurrentLoop(
        settings.queue,
        backend,
        executor,
        concurrency=settings.concurrency,
        make_runner=make_runner,
        prefetch=settings.prefetch,
        logger=settings.logger,
        observer=settings.observer,
        permits=settings.permits,
        hooks=settings.hooks,
    )


def one_at_a_time(
    run: Callable[[Any], Any],
    callers_loop: CallersLoop,
    loop_factory: "Callable[[], AbstractEventLoop] | None",
    cancelled: Set[str],
    timed_out: Container[str],
) -> "CoroutineHandler":
    """Make what runs an ``async def`` one job at a time."""
    from .coroutine_handler import CoroutineHandler  # imports asyncio, which takes long

    return CoroutineHandler(run, callers_loop, loop_factory, cancelled, timed_out)
