"""Handlers written as ``async def``, run one job after the other on an event loop of their own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

AsyncHandler = Callable[[Any], Coroutine[Any, Any, Any]]
"""Takes a job, or a batch of jobs."""


class CoroutineHandler:
    """An ``async def`` handler as a plain one. Each thread has a loop, which lasts until :meth:`close`.

    So clients that belong to a loop, such as HTTP sessions, last from job to job.

    Args:
        handler: The ``async def``.
        loop_factory: Makes a thread's loop; None is asyncio's own.
    """

    def __init__(
        self, handler: AsyncHandler, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        self._handler = handler
        self._loop_factory = loop_factory
        self._local = threading.local()

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
            return await self._handler(work)

        try:
            # In a copy of the context of now, where progress is listened to; else it were the first job's.
            return runner.run(run(), context=copy_context())
        except (KeyboardInterrupt, SystemExit):
            if task is not None and not task.done():  # it would go on beside the next job
                task.cancel()
                runner.run(asyncio.wait([task]))
            raise

    def close(self) -> None:
        """End this thread's loop and the tasks left on it; again is a no-op."""
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is not None:
            del self._local.runner
            runner.close()
