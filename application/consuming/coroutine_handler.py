"""Handlers written as ``async def``, run one job after the other."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Container, Coroutine, Iterable, Set
from contextlib import suppress
from contextvars import copy_context
from logging import ERROR, Logger
from typing import Any, cast

from ...domain.job_context import current_receipts
from ..failures.handler_errors import try_to_log
from ..process.graceful_stop import SecondSignal, asks_to_stop
from .callers_loop import CallersLoop

AsyncHandler = Callable[[Any], Coroutine[Any, Any, Any]]
"""Takes a job, or a batch of jobs."""


class CoroutineHandler:
    """An ``async def`` handler as a plain one. It runs on the caller's event loop, if one is lent.

    Else each thread has a loop, which lasts until :meth:`close`. So clients that belong to a loop, such as
    HTTP sessions, last from job to job.

    Args:
        handler: The ``async def``.
        callers: The caller's event loop, if one is lent.
        loop_factory: Makes a thread's loop; None is asyncio's own.
        cancelled: The receipts of running jobs that are to be cancelled.
        timed_out: The receipts of running jobs whose time limits are over.
    """

    def __init__(
        self,
        handler: AsyncHandler,
        callers: CallersLoop,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        cancelled: Set[str] = frozenset(),
        timed_out: Container[str] = frozenset(),
    ) -> None:
        self._handler = handler
        self._callers = callers
        self._loop_factory = loop_factory
        self._cancelled = cancelled
        self._timed_out = timed_out
        self._local = threading.local()
        self._tasks: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}
        """The loop and the task of each running job, by its receipt."""

    def __call__(self, work: Any) -> Any:
        """Run the handler for a job or a batch, and return or raise what it does.

        A KeyboardInterrupt or SystemExit of a task that an earlier job left on the loop is raised as well:
        asyncio ends the loop by it, whichever task raised it.
        """
        task: asyncio.Task[Any] | None = None

        async def run() -> Any:
            nonlocal task
            task = asyncio.current_task()
            receipts = current_receipts()
            self._tasks.update(dict.fromkeys(receipts, (asyncio.get_running_loop(), cast(Any, task))))
            try:
                if self._are_to_end(receipts):  # before `cancel` could find the task
                    raise asyncio.CancelledError
                return await self._handler(work)
            finally:
                for receipt in receipts:
                    self._tasks.pop(receipt, None)

        if (loop := self._callers.loop) is not None:
            return self._run_on_callers(loop, run())
        runner = self._runner()
        try:
            # In a copy of the context of now, where progress is listened to; else it were the first job's.
            return runner.run(run(), context=copy_context())
        except (KeyboardInterrupt, SystemExit):
            if task is not None and not task.done():  # it would go on beside the next job
                task.cancel()
                runner.run(asyncio.wait([task]))
            raise

    def _run_on_callers(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return run_on(loop, coroutine)
        except asyncio.CancelledError as error:
            if self._callers.is_ending:  # as a second Ctrl-C does where `consume` runs in the main thread
                raise SecondSignal from error
            raise

    def call(self, function: Callable[[], Any]) -> object:
        """Call a function, or await it on this thread's loop; return or raise what it does."""
        if not asyncio.iscoroutinefunction(function):
            return function()
        if (loop := self._callers.loop) is not None:
            return run_on(loop, function())
        return self._runner().run(function(), context=copy_context())

    def _runner(self) -> asyncio.Runner:
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._local.runner = asyncio.Runner(loop_factory=self._loop_factory)
        return runner

    def _are_to_end(self, receipts: tuple[str, ...]) -> bool:
        return not self._cancelled.isdisjoint(receipts) or any(each in self._timed_out for each in receipts)

    def cancel(self, receipts: Iterable[str]) -> None:
        """Cancel the handlers of running jobs; from any thread."""
        for receipt in receipts:
            if (found := self._tasks.get(receipt)) is not None:
                loop, task = found
                with suppress(RuntimeError):  # it was closed this moment
                    loop.call_soon_threadsafe(task.cancel)

    def close(self, logger: Logger) -> None:
        """End this thread's loop and the tasks left on it; again is a no-op. A task that fails is logged."""
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            return
        del self._local.runner
        try:
            runner.close()
        except BaseException as error:
            if asks_to_stop(error):
                raise
            try_to_log(logger, ERROR, "a task that a job left behind failed", traceback=True)


def run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the loop of another thread; return or raise what it does.

    Its error is passed as a value: a KeyboardInterrupt or SystemExit of a task would end the loop.
    """

    async def run() -> tuple[Any, BaseException | None]:
        try:
            return await coroutine, None
        except BaseException as error:
            return None, error

    try:
        answer, error = asyncio.run_coroutine_threadsafe(run(), loop).result()
    except concurrent.futures.CancelledError:  # before its first step
        raise asyncio.CancelledError from None
    if error is not None:
        raise error
    return answer
