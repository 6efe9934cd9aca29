"""Whether a class has a handler that can take a job: seen from its signature, before the first job comes."""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from ...domain.errors import HandlerMissing


def check_handler(cls: type, name: str, *, what: str = "job") -> None:
    """Refuse a class of consumers whose handler isn't defined, or gives back nothing that is a result.

    Args:
        cls: The class.
        name: The handler's name: ``run`` or ``run_batch``.
        what: As of :func:`check_takes_job`.

    Raises:
        HandlerMissing: it is missing, or a generator.
    """
    handler = getattr(cls, name)
    if getattr(handler, "__isabstractmethod__", False) or not callable(handler):
        batches = "; to run batches, derive it from BatchConsumer" if hasattr(cls, "run_batch") else ""
        raise HandlerMissing(f"{cls.__name__} has no handler: define {name}(self, {what}){batches}")
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        result = "the result" if what == "job" else "a list"
        raise HandlerMissing(f"{cls.__name__}.{name} is a generator: return {result}, without yield")


def check_takes_job(name: str, handler: Callable[..., Any], *, what: str = "job") -> None:
    """Refuse a handler that can't be called with a job alone, or with a batch of jobs.

    Args:
        name: What to call it in the error's message.
        handler: A function or method. A decorator counts as it is, whatever it says that it wraps.
        what: The name of its one argument: ``job`` or ``jobs``.

    Raises:
        HandlerMissing: it takes no job, takes it by its name only, or needs more than that.
    """
    needed = [what]
    if isinstance(handler, MethodType):
        needed, handler = ["self", what], handler.__func__
    try:
        signature = inspect.signature(handler, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C: it says nothing of its arguments
        return
    try:
        signature.bind(*needed)
    except TypeError as error:
        called = "a job" if what == "job" else "a tuple of jobs"
        definition = f"{name.rpartition('.')[2]}({', '.join(needed)})"
        raise HandlerMissing(
            f"{name}{_without_types(signature)} can't be called with {called} ({error}): define {definition}"
        ) from None


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=signature.empty)
