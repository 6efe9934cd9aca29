"""A function as the handler of a consumer."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic

from ..domain import Job, JobSchema, QueueKind, RetryPolicy
from ..domain.errors import HandlerMissing, InvalidInput
from .consumer import Consumer
from .handler_signature import check_takes_job
from .job_queue import Answer, InT, OutT


class JobHandler(Generic[InT, OutT]):
    """A function that runs jobs, with all that a consumer needs to know. Made by :func:`job_handler`.

    A worker finds it as ``module:name``. Calling it calls the function, as in a test.
    """

    def __init__(
        self,
        function: Callable[[Job[InT]], Answer[OutT]],
        schema: JobSchema[InT, OutT],
        queue_type: QueueKind | str,
        retry: RetryPolicy | None,
        concurrency: int,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.schema = schema
        self.queue_type = queue_type
        self.retry = retry
        members = {
            "schema": schema,
            "queue_type": queue_type,
            "retry": retry,
            "concurrency": concurrency,
            "run": staticmethod(function),
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
        }
        self._consumer_class: type[Consumer[InT, OutT]] = type(function.__name__, (Consumer,), members)

    def __call__(self, job: Job[InT]) -> Answer[OutT]:
        """Call the function."""
        return self.function(job)

    def consumer(self, *, queue: str | None = None) -> Consumer[InT, OutT]:
        """Make a consumer that runs jobs by the function.

        Args:
            queue: The name of the queue, if it isn't the schema's.
        """
        return self._consumer_class(queue=queue)

    def __repr__(self) -> str:
        return f"<job handler {self.function.__qualname__} of {self.schema.name!r}>"


def job_handler(
    schema: JobSchema[InT, OutT],
    *,
    queue_type: QueueKind | str = QueueKind.FIFO,
    retry: RetryPolicy | None = None,
    concurrency: int = 1,
) -> Callable[[Callable[[Job[InT]], Answer[OutT]]], JobHandler[InT, OutT]]:
    """Make a function the handler of jobs; it may be an ``async def``.

    Args:
        schema: The schema of the jobs.
        queue_type: The type of the queue: ``"fifo"``, ``"stack"`` or ``"priority"``.
        retry: A retry policy instead of the schema's.
        concurrency: How many jobs a consumer runs at once.

    Raises:
        InvalidInput: ``schema`` is no ``JobSchema``.
        HandlerMissing: what is decorated is no function, or can't be called with a job.
    """
    if not isinstance(schema, JobSchema):
        raise InvalidInput(f"@job_handler({schema!r:.80}): pass the JobSchema, as in @job_handler(schema)")

    def decorate(function: Callable[[Job[InT]], Answer[OutT]]) -> JobHandler[InT, OutT]:
        if not inspect.isroutine(function):
            raise HandlerMissing(
                f"@job_handler: {function!r:.80} is no function; write it above one, or derive a class from "
                "Consumer"
            )
        check_takes_job(getattr(function, "__name__", "the handler"), function)
        return JobHandler(function, schema, queue_type, retry, concurrency)

    return decorate
