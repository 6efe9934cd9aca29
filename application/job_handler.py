"""A function as a consumer class."""

import inspect
from collections.abc import Callable

from ..domain import Job, JobSchema, QueueKind, RetryPolicy
from ..domain.errors import HandlerMissing, InvalidInput
from .consumer import Consumer
from .job_queue import Answer, InT, OutT


def job_handler(
    schema: JobSchema[InT, OutT],
    *,
    queue_type: QueueKind | str = QueueKind.FIFO,
    retry: RetryPolicy | None = None,
) -> Callable[[Callable[[Job[InT]], Answer[OutT]]], type[Consumer[InT, OutT]]]:
    """Make a consumer class of a function that runs one job; it may be an ``async def``.

    The class takes the function's place and name, so a worker finds it as ``module:name``. Call
    ``name().run(job)`` to run the function in a test.

    Args:
        schema: The schema of the jobs.
        queue_type: The type of the queue: ``"fifo"``, ``"stack"`` or ``"priority"``.
        retry: A retry policy instead of the schema's.

    Raises:
        InvalidInput: ``schema`` is no ``JobSchema``.
        HandlerMissing: what is decorated is no function.
    """
    if not isinstance(schema, JobSchema):
        raise InvalidInput(f"@job_handler({schema!r:.80}): pass the JobSchema, as in @job_handler(schema)")

    def decorate(
        function: Callable[[Job[InT]], Answer[OutT]],
    ) -> type[Consumer[InT, OutT]]:
        if not inspect.isroutine(function):
            raise HandlerMissing(f"@job_handler: {function!r:.80} is no function")
        members = {
            "schema": schema,
            "queue_type": queue_type,
            "retry": retry,
            "run": staticmethod(function),
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
        }
        return type(function.__name__, (Consumer,), members)

    return decorate
