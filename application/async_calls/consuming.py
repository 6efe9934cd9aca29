"""Consuming beside the other tasks of an event loop."""

import asyncio
from collections.abc import Callable

from ..consuming.callers_loop import CallersLoop
from .bridge import call_in
from .threads import Threads


async def consume_beside(
    callers_loop: CallersLoop,
    consume: Callable[[], int],
    stop: Callable[[], None],
    forget_stop: Callable[[], None],
    name: str,
) -> int:
    """Consume in a thread, with the coroutines of the handlers on the event loop that awaits this.

    The loop is lent until the thread has ended, also if this is cancelled twice, and so ends before.

    Args:
        callers_loop: Where the event loop is lent to the consumer.
        consume: Runs jobs until it is stopped, or has an end.
        stop: Makes it end once the running jobs have; called when this is cancelled.
        forget_stop: Withdraws a request to stop that came when it had ended, and this hadn't yet.
        name: How the thread is called.
    """
    threads = Threads(1, name)

    async def consume_in_thread() -> int:
        with callers_loop.lend(asyncio.get_running_loop(), asyncio.current_task()):
            try:
                return await call_in(threads, consume)
            except asyncio.CancelledError:  # the event loop ends, and may not have cancelled the other first
                stop()
                raise
            finally:
                threads.stop()
                forget_stop()

    consuming = asyncio.ensure_future(consume_in_thread())
    try:
        return await asyncio.shield(consuming)
    except asyncio.CancelledError:
        if not consuming.done():
            stop()
            await asyncio.shield(consuming)
        raise
