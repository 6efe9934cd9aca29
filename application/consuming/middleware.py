"""What a user has around each run of a handler: context managers made from its job."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncContextDecorator,
    AsyncExitStack,
    ContextDecorator,
    ExitStack,
)
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, TypeAlias, Union

from ...domain import Job
from ...domain.errors import InvalidInput, UsageError
from ...domain.signatures import why_not_called_with

Work: TypeAlias = Union[Job[Any], Sequence[Job[Any]]]  # noqa: UP007
"""What one call of a handler gets: a job, or the jobs of a batch."""
Middleware: TypeAlias = Callable[
    [Any], Union[AbstractContextManager[object], AbstractAsyncContextManager[object]]  # noqa: UP007
]
"""Makes of a job, or of the jobs of a batch, a context manager that surrounds the run of its handler."""


def check_middleware(owner: str, middleware: object) -> tuple[Middleware, ...]:
    """Return middleware as a tuple.

    Args:
        owner: Who was given it; messages name it.
        middleware: What was given.

    Raises:
        InvalidInput: it is no list of functions that take a job and return context managers.
    """
    if not isinstance(middleware, Iterable) or not all(map(callable, functions := tuple(middleware))):
        raise InvalidInput(
            f"{owner}: middleware {middleware!r:.80}: pass a list of functions, each of which takes a "
            "job and returns a context manager"
        )
    for function in functions:
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            decorator = "contextmanager" if isgeneratorfunction(function) else "asynccontextmanager"
            raise InvalidInput(f"{owner}: write @contextlib.{decorator} above {_name(function)}")
        if iscoroutinefunction(function):
            raise InvalidInput(
                f"{owner}: {_name(function)} is an async def: write @contextlib.asynccontextmanager above "
                "it, and yield where the handler runs"
            )
        if isinstance(function, ContextDecorator | AsyncContextDecorator):
            raise InvalidInput(
                f"{owner}: middleware {function!r:.80} is a context manager: pass the function that makes "
                "it, and don't call it"
            )
        if (why := why_not_called_with(function, "a job")) is not None:
            raise InvalidInput(
                f"{owner}: {_name(function)} can't be called with a job alone ({why}): write it as "
                "def middleware(job): …"
            )
    return functions


def surround(handler: Callable[[Any], Any], middleware: Sequence[Middleware]) -> Callable[[Any], Any]:
    """Return ``handler`` with the context managers of ``middleware`` around it, the first one outermost.

    An error that a context manager raises, on the way in or out, is a failure of the job, as one of the
    handler. If it swallows the handler's error, the job is done.

    Args:
        handler: A plain function, or an ``async def``, around which context managers may be of either kind.
        middleware: What makes the context managers.

    Raises:
        UsageError: the handler is a plain function, and a context manager can only be used in an
            ``async def``.
    """
    if not middleware:
        return handler
    if iscoroutinefunction(handler):

        @wraps(handler)
        async def run_async(work: Work) -> Any:
            async with AsyncExitStack() as stack:
                for function in middleware:
                    await _enter_async(stack, function, work)
                return await handler(work)

        return run_async
    for function in middleware:
        if isasyncgenfunction(getattr(function, "__wrapped__", None)):
            raise _needs_async(function)

    @wraps(handler)
    def run(work: Work) -> Any:
        with ExitStack() as stack:
            for function in middleware:
                _enter(stack, function, work)
            return handler(work)

    return run


def _enter(stack: ExitStack, function: Middleware, work: Work) -> None:
    context = function(work)
    if isinstance(context, AbstractContextManager):
        stack.enter_context(context)
        return
    if isinstance(context, AbstractAsyncContextManager):
        raise _needs_async(function)
    raise _no_context(function, context)


async def _enter_async(stack: AsyncExitStack, function: Middleware, work: Work) -> None:
    context = function(work)
    if isinstance(context, AbstractAsyncContextManager):
        await stack.enter_async_context(context)
    elif isinstance(context, AbstractContextManager):
        stack.enter_context(context)
    else:
        raise _no_context(function, context)


def _needs_async(function: Middleware) -> UsageError:
    return UsageError(
        f"{_name(function)} makes an async context manager, and the handler is a plain function: make the "
        "handler an async def, or the context manager a plain one"
    )


def _no_context(function: Middleware, returned: object) -> UsageError:
    return UsageError(
        f"{_name(function)} returned {type(returned).__name__}: middleware returns a context manager, as a "
        "function does that has @contextlib.contextmanager above it and yields"
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
