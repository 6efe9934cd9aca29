"""Waiting from a coroutine for the results of many jobs, in the threads that wait for single ones."""

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack, aclosing
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

from ...ports import JobResult
from ..api.many_results import ManyResults, Numbered
from ..async_calls.bridge import call_in
from ..async_calls.threads import Threads
from .results import AwaitedQueues, Wait

_Ended = tuple[str, str, list[Numbered]]
"""A queue, the id of a job of it that has ended, and the result for each of its handles."""


async def each_end(
    many: ManyResults[Any], awaited: AwaitedQueues, calls: Threads, timeout_s: float
) -> AsyncGenerator[list[Numbered]]:
    """Yield the results as they come; as :meth:`ManyResults.ends`.

    Args:
        many: The jobs.
        awaited: Tells when they end.
        calls: Threads in which to look up.
        timeout_s: How long to wait.
    """
    give_up_s = monotonic() + timeout_s
    yield many.known
    yield await call_in(calls, list, many.look_up_all())
    if timeout_s and many.queues:
        async with aclosing(_follow(many, awaited, give_up_s)) as ends:
            async for results in ends:
                yield results
        yield await call_in(calls, list, many.look_up_all())
    late = many.late(timeout_s)
    yield await call_in(calls, list, islice(late, 1))  # often it is enough
    yield await call_in(calls, list, late)


async def _follow(
    many: ManyResults[Any], awaited: AwaitedQueues, give_up_s: float
) -> AsyncGenerator[list[Numbered]]:
    done: asyncio.Queue[Future[_Ended]] = asyncio.Queue()
    with ExitStack() as waiting:
        for queue in many.queues:
            results = awaited.of(many.backend, queue)
            waits = results.begin({id_: partial(_read, many, queue, id_) for id_ in many.missing(queue)})
            waiting.callback(results.leave, waits)
            _put_when_done(waits, done)
        async for found in _take(many, done, give_up_s):
            yield found


def _read(many: ManyResults[Any], queue: str, job_id: str, found: JobResult | None) -> _Ended:
    """Read a result in a thread. That it isn't missed any more is noted where it arrives."""
    return queue, job_id, [] if found is None else many.read(queue, job_id, found)


def _put_when_done(waits: Mapping[str, Wait], done: "asyncio.Queue[Future[_Ended]]") -> None:
    def put(future: "Future[_Ended]") -> None:
        future.exception()  # or asyncio would log each error that nobody takes, as the first ends the call
        done.put_nowait(future)

    for wait in waits.values():
        wait.future.add_done_callback(put)


async def _take(
    many: ManyResults[Any], done: "asyncio.Queue[Future[_Ended]]", give_up_s: float
) -> AsyncIterator[list[Numbered]]:
    while many.queues:
        futures = await _next(done, give_up_s)
        if not futures:
            return
        results: list[Numbered] = []
        for future in futures:
            queue, job_id, found = future.result()
            many.miss_no_more(queue, [job_id])
            results += found
        yield results


async def _next(done: "asyncio.Queue[Future[_Ended]]", give_up_s: float) -> "list[Future[_Ended]]":
    """Return what is done, and wait for it until then; an empty list if nothing is."""
    try:
        async with asyncio.timeout(give_up_s - monotonic()):
            first = await done.get()
    except TimeoutError:
        return []
    return [first, *(done.get_nowait() for _ in range(done.qsize()))]
