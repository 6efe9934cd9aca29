"""The way from an event loop to a thread, and back."""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .threads import Threads

AnswerT = TypeVar("AnswerT")


class Answer(NamedTuple):
    """What to tell the coroutine that waits for a future: a value, or else an error."""

    future: "Future[Any]"
    value: Any = None
    error: BaseException | None = None


async def call_in(
    threads: Threads, function: Callable[..., AnswerT], *arguments: Any, **options: Any
) -> AnswerT:
    """Call a function that blocks, in a thread and in the caller's context, and return its answer.

    If the caller is cancelled, the call goes on unless it hasn't begun, and its answer is dropped.
    """
    future: Future[AnswerT] = asyncio.get_running_loop().create_future()
    call = partial(copy_context().run, function, *arguments, **options)
    threads.submit(partial(_call, future, call))
    return await future


def _call(future: "Future[AnswerT]", call: Callable[[], AnswerT]) -> None:
    if future.cancelled():
        return
    try:
        answer = Answer(future, call())
    except BaseException as error:
        answer = Answer(future, error=error)
    deliver([answer])


def deliver(answers: Iterable[Answer]) -> None:
    """Tell coroutines, of any event loops, what they wait for; those that were cancelled are passed over."""
    by_loop: dict[AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer.future.get_loop(), []).append(answer)
    for loop, its in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
            loop.call_soon_threadsafe(_settle, its)


def _settle(answers: Iterable[Answer]) -> None:
    for future, value, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):  # which a future can't carry
            future.set_exception(RuntimeError(f"the call raised {error!r}"))
        else:
            future.set_exception(error)
