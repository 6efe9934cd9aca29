"""Handlers that are an ``async def``, many at once: each a task on one event loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from logging import Logger
from types import TracebackType
from typing import Any

from ...domain.printable import printable
from ...ports import Delivery, Release, Settlement
from ...ports.signal_safe_event import SignalSafeEvent
from ..process.thread_start import start_thread
from .blocked_event_loop import BlockedEventLoopWatch
from .callers_loop import CallersLoop
from .coroutine_handler import run_on
from .handler_runner import HandlerRunner
from .in_flight import InFlight

_CANCEL_S = 5.0
"""How long cancelled handlers may take to clean up before they are abandoned."""


class HandlerTasks(HandlerRunner):
    """Runs up to ``concurrency`` jobs as tasks of one event loop.

    That is the caller's, if one is lent. Else it has a thread of its own, and ends with the context.

    Args:
        in_flight: Where the jobs come from, and where their settlements go.
        execute: Runs one; it is given what says whether an error cancels it, as its consumer ends.
        concurrency: How many run at once.
        name: What the thread is called.
        logger: Where it is told that a handler blocks the loop.
        callers: The caller's event loop, if one is lent.
        loop_factory: Makes an event loop, if none is lent; None is asyncio's own.
    """

    def __init__(
        self,
        in_flight: InFlight,
        execute: Callable[[Delivery, Callable[[BaseException], bool]], Awaitable[Settlement]],
        concurrency: int,
        name: str,
        logger: Logger,
        callers: CallersLoop,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._in_flight = in_flight
        self._execute = execute
        self._concurrency = concurrency
        self._name = name
        self._logger = logger
        self._callers = callers
        self._loop_factory = loop_factory or asyncio.new_event_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._context = Context()
        self._tasks: dict[asyncio.Task[Settlement], Delivery] = {}
        self._is_lent = False
        """Whether the event loop is the caller's."""
        self._is_ending = False
        self._has_begun = SignalSafeEvent()
        """Set once there is an event loop of its own, or none can be made."""
        self._fault: BaseException | None = None
        """Why none can be made."""
        self._watch = BlockedEventLoopWatch(self._running_job, logger)

    def __enter__(self) -> None:
        self._is_ending = False
        self._watch = BlockedEventLoopWatch(self._running_job, self._logger)
        self._context = copy_context()
        self._loop, self._thread = self._callers.loop, self._callers.thread
        self._is_lent = self._loop is not None
        if not self._is_lent:
            self._has_begun, self._fault = SignalSafeEvent(), None
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            start_thread(self._thread)
            self._has_begun.wait()
            if self._fault is not None:
                raise self._fault

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.tell_to_end()
        if self._is_lent:
            self._cancel_all()
        elif self._thread is not None:
            self._thread.join(_CANCEL_S)
        self._loop = self._thread = None

    def tell_to_end(self) -> None:
        """Start no further job, and end the event loop if it is ours."""
        self._is_ending = True
        if self._loop is not None and not self._is_lent:
            self._have_called(self._loop.stop)

    def _cancel_all(self) -> None:
        """Cancel what runs still on the caller's loop, and wait until it has ended."""
        ended = SignalSafeEvent()

        def cancel() -> None:
            for task in self._tasks:
                task.cancel()
            ending = asyncio.gather(*self._tasks, return_exceptions=True)
            ending.add_done_callback(lambda _: ended.set())

        if self._tasks:
            self._have_called(cancel)
            ended.wait(_CANCEL_S)

    def wake(self) -> None:
        """Start queued jobs at the places that are free."""
        self._have_called(self._fill)

    def run(self, delivery: Delivery) -> None:
        """Run a job that the caller has started."""
        self._have_called(partial(self._start, delivery))

    def call(self, function: Callable[[], Any]) -> None:
        """Call a function, or await it on the event loop."""
        loop = self._loop
        if loop is None or not asyncio.iscoroutinefunction(function):
            function()
        else:
            run_on(loop, function())

    def cancel(self, receipts: set[str]) -> None:
        """Cancel the tasks of these jobs."""
        self._have_called(partial(self._cancel, receipts))

    def check(self) -> None:
        """Warn of a handler that blocks the event loop, and name it."""
        if self._thread is not None:
            self._watch.look(self._have_called, self._thread)

    def _running_job(self) -> str | None:
        """Return the id of the job whose task the event loop runs just now."""
        task = None if self._loop is None else asyncio.current_task(self._loop)
        return next((delivery.id for each, delivery in list(self._tasks.items()) if each is task), None)

    def _have_called(self, function: Callable[[], object]) -> None:
        """Have the event loop's thread call a function, unless the loop has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it was closed this moment
                self._loop.call_soon_threadsafe(function, context=self._context)

    # -- on the event loop's thread -----------------------------------------------------------------

    def _serve(self) -> None:
        # The loop is made here: a signal handler that raises in the main thread would leave it half made.
        runner = asyncio.Runner(loop_factory=self._loop_factory)
        try:
            self._loop = loop = runner.get_loop()
        except BaseException as error:  # the consumer's thread raises it
            self._fault = error
            return
        finally:
            self._has_begun.set()
        with runner:
            self._run_loop(loop)

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_ending:
            try:
                loop.run_forever()
            except BaseException:  # such as KeyboardInterrupt, of a task that a job left behind
                self._logger.exception("a task that a job left behind failed")

    def _fill(self) -> None:
        while len(self._tasks) < self._concurrency and not self._is_ending:
            delivery = self._in_flight.start_next_beside_others(begins=False)
            if delivery is None:
                return
            self._start(delivery)

    def _start(self, delivery: Delivery) -> None:
        loop = self._loop
        if loop is not None:
            # In a context of its own: the one of now may be another job's.
            task = loop.create_task(self._run(delivery), context=self._context.copy())
            self._tasks[task] = delivery
            task.add_done_callback(self._end, context=self._context)

    def _cancel(self, receipts: set[str]) -> None:
        for task in [task for task, delivery in self._tasks.items() if delivery.receipt in receipts]:
            task.cancel()

    async def _run(self, delivery: Delivery) -> Settlement:
        # It has waited for its first step since before it was released, or was to be cancelled.
        in_flight = self._in_flight
        if self._is_ending or delivery.receipt in in_flight.cancelled or not in_flight.begin(delivery):
            raise asyncio.CancelledError
        return await self._execute(delivery, self._is_abandoned)

    def _end(self, task: asyncio.Task[Settlement]) -> None:
        """Note how the job of a task is to be settled, and fill its place."""
        delivery = self._tasks.pop(task)
        if task.cancelled():  # before its first step, by another job; or as its consumer ends
            self._in_flight.put_back(delivery)
        elif (error := task.exception()) is not None:  # a fault of ours
            self._logger.error("job %s is released", printable(delivery.id), exc_info=error)
            self._in_flight.finish(Release(delivery.receipt))
        else:
            self._in_flight.finish(task.result())
        self._fill()

    def _is_abandoned(self, error: BaseException) -> bool:
        ends = self._is_ending or (self._is_lent and self._callers.is_ending)
        return ends and isinstance(error, asyncio.CancelledError)
