"""Handlers written as ``async def``, run one job after the other on an event loop of their own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Set
from contextlib import suppress
from contextvars import copy_context
from logging import ERROR, Logger
from typing import Any, cast

from ...domain.job_context import current_receipts
from ..handler_errors import try_to_log
from ..signals.graceful_stop import asks_to_stop

AsyncHandler = Callable[[Any], Coroutine[Any, Any, Any]]
"""Takes a job, or a batch of jobs."""


class CoroutineHandler:
    """An ``async def`` handler as a plain one. Each thread has a loop, which lasts until :meth:`close`.

    So clients that belong to a loop, such as HTTP sessions, last from job to job.

    Args:
        handler: The ``async def``.
        loop_factory: Makes a thread's loop; None is asyncio's own.
        cancelled: The receipts of running jobs that are to be cancelled.
    """

    def __init__(
        self,
        handler: AsyncHandler,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        cancelled: Set[str] = frozenset(),
    ) -> None:
        self._handler = handler
        self._loop_factory = loop_factory
        self._cancelled = cancelled
        self._local = threading.local()
        self._tasks: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}
        """The loop and the task of each running job, by its receipt."""

    def __call__(self, work: Any) -> Any:
        """Run the handler for a job or a batch, and return or raise what it does.

        A KeyboardInterrupt or SystemExit of a task that an earlier job left on the loop is raised as well:
        asyncio ends the loop by it, whichever task raised it.
        """
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._local.runner = asyncio.Runner(loop_factory=self._loop_factory)
        task: asyncio.Task[Any] | None = None

        async def run() -> Any:
            nonlocal task
            task = asyncio.current_task()
            receipts = current_receipts()
            self._tasks.update(dict.fromkeys(receipts, (asyncio.get_running_loop(), cast(Any, task))))
            try:
                if not self._cancelled.isdisjoint(receipts):  # before `cancel` could find the task
                    raise asyncio.CancelledError
                return await self._handler(work)
            finally:
                for receipt in receipts:
                    self._tasks.pop(receipt, None)

        try:
            # In a copy of the context of now, where progress is listened to; else it were the first job's.
            return runner.run(run(), context=copy_context())
        except (KeyboardInterrupt, SystemExit):
            if task is not None and not task.done():  # it would go on beside the next job
                task.cancel()
                runner.run(asyncio.wait([task]))
            raise

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
