"""A function as the handler of a consumer of batches."""

from collections.abc import Callable, Sequence
from functools import update_wrapper

from ...domain import Job, JobSchema, QueueType, RetryPolicy
from ...domain.model_types import InT, OutT
from ..checks.consumer_checks import check_batch, check_time_limits
from ..checks.handler_signature import check_takes_job
from ..consuming.middleware import Middleware, check_middleware
from .batch_consumer import BatchAnswer, BatchConsumer
from .job_handler import FunctionHandler, check_decorated, check_function, make_class


class BatchHandler(FunctionHandler[InT, OutT]):
    """A function that runs batches of jobs. Made by :func:`batch_handler`.

    A worker finds it as ``module:name``. Calling it calls the function, as in a test.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Job[InT]]], BatchAnswer[OutT]],
        schema: JobSchema[InT, OutT],
        queue_type: QueueType | None,
        retry: RetryPolicy | None,
        batch_size: int,
        batch_wait_s: float,
        middleware: Sequence[Middleware],
        timeout_s: float | None,
        kill_after_s: float | None,
    ) -> None:
        members = {
            "schema": schema,
            "queue_type": queue_type,
            "retry": retry,
            "batch_size": batch_size,
            "batch_wait_s": batch_wait_s,
            "middleware": check_middleware("batch_handler", middleware),
            "timeout_s": timeout_s,
            "kill_after_s": kill_after_s,
            "run_batch": staticmethod(function),
        }
        super().__init__(function, schema, make_class(BatchConsumer, function, members))
        update_wrapper(self, function)
        self.function = function

    def __call__(self, jobs: Sequence[Job[InT]]) -> BatchAnswer[OutT]:
        """Call the function."""
        return self.function(jobs)

    def consumer(self, *, queue: str | None = None) -> BatchConsumer[InT, OutT]:
        """Make a consumer that runs batches by the function.

        Args:
            queue: The name of the queue, if it isn't the schema's.
        """
        consumer = super().consumer(queue=queue)
        assert isinstance(consumer, BatchConsumer)  # noqa: S101 - of the class that is made above
        return consumer


def batch_handler(
    schema: JobSchema[InT, OutT],
    *,
    batch_size: int = BatchConsumer.batch_size,
    batch_wait_s: float = BatchConsumer.batch_wait_s,
    queue_type: QueueType | None = None,
    retry: RetryPolicy | None = None,
    middleware: Sequence[Middleware] = (),
    timeout_s: float | None = None,
    kill_after_s: float | None = None,
) -> Callable[[Callable[[Sequence[Job[InT]]], BatchAnswer[OutT]]], BatchHandler[InT, OutT]]:
    """Make a function the handler of batches of jobs, as ``run_batch`` of a :class:`BatchConsumer`.

    Args:
        schema: The schema of the jobs.
        batch_size: How many jobs a batch has at most, 1 to 10,000.
        batch_wait_s: How many seconds a batch that isn't full waits for more jobs.
        queue_type: The type of the queue, if it isn't the schema's.
        retry: A retry policy instead of the schema's.
        middleware: What surrounds each run of the function; see :attr:`Consumer.middleware`.
        timeout_s: For how many seconds a call may run, instead of the schema's ``timeout_s``.
        kill_after_s: How many seconds it may go on after that, instead of the schema's ``kill_after_s``.

    Raises:
        InvalidInput: ``schema`` is no ``JobSchema``, or a setting is out of range.
        HandlerMissing: what is decorated is no function.
    """
    check_decorated("batch_handler", schema)
    check_batch(batch_size, batch_wait_s)
    check_time_limits(timeout_s, kill_after_s)

    def decorate(function: Callable[[Sequence[Job[InT]]], BatchAnswer[OutT]]) -> BatchHandler[InT, OutT]:
        check_function("batch_handler", function)
        check_takes_job(getattr(function, "__name__", "the handler"), function, what="jobs")
        return BatchHandler(
            function,
            schema,
            queue_type,
            retry,
            batch_size,
            batch_wait_s,
            middleware,
            timeout_s,
            kill_after_s,
        )

    return decorate
