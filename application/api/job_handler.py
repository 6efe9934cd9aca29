"""A function as the handler of a consumer."""

import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from ...domain import Job, JobSchema, QueueType, RetryPolicy
from ...domain.errors import HandlerMissing, InvalidInput
from ...domain.foreign_names import foreign_call
from ...domain.model_types import Answer, InT, OutT
from ..checks.consumer_checks import check_concurrency, check_time_limits
from ..checks.handler_signature import check_takes_job
from ..consuming.middleware import Middleware, check_middleware
from .consumer import Consumer

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ...domain.schedule import Cron, Every


class FunctionHandler(Generic[InT, OutT]):
    """A function in the place of a consumer class: what a worker and a type checker need to know of it.

    A worker finds it as ``module:name``.

    Args:
        function: What runs jobs.
        consumer_class: What makes its consumers; it has the schema and the settings.
    """

    schema: JobSchema[InT, OutT]

    def __init__(
        self,
        function: Callable[..., Any],
        schema: JobSchema[InT, OutT],
        consumer_class: type[Consumer[InT, OutT]],
    ) -> None:
        self.schema = schema
        self._name = function.__qualname__
        self._consumer_class = consumer_class

    @property
    def queue_type(self) -> QueueType | None:
        """The type of the queue, if it isn't the schema's."""
        return self._consumer_class.queue_type

    @property
    def retry(self) -> RetryPolicy | None:
        """The retry policy instead of the schema's, if there is one."""
        return self._consumer_class.retry

    def consumer(self, *, queue: str | None = None) -> Consumer[InT, OutT]:
        """Make a consumer that runs jobs by the function.

        Args:
            queue: The name of the queue, if it isn't the schema's.
        """
        return self._consumer_class(queue=queue)

    if not TYPE_CHECKING:  # checkers know what it has

        def __getattr__(self, name: str) -> NoReturn:
            """Say how to get what a consumer has."""
            if (remedy := foreign_call(self._name, name)) is not None:
                raise AttributeError(remedy)
            missing = f"{type(self).__name__} has no {name!r}"
            if not name.startswith("_") and hasattr(self._consumer_class, name):
                function = self._name.rpartition(".")[2]
                missing += f": its consumers have; make one, as in consumer = {function}.consumer()"
            raise AttributeError(missing)

    def __repr__(self) -> str:
        return f"<job handler {self._name} of {self.schema.name!r}>"


class JobHandler(FunctionHandler[InT, OutT]):
    """A function that runs jobs, with all that a consumer needs to know. Made by :func:`job_handler`.

    A worker finds it as ``module:name``. Calling it calls the function, as in a test.
    """

    def __init__(
        self,
        function: Callable[[Job[InT]], Answer[OutT]],
        schema: JobSchema[InT, OutT],
        queue_type: QueueType | None,
        retry: RetryPolicy | None,
        concurrency: int,
        loop_factory: "Callable[[], AbstractEventLoop] | None",
        schedule: "Cron | Every | None",
        middleware: Sequence[Middleware],
        timeout_s: float | None,
        kill_after_s: float | None,
    ) -> None:
        members = {
            "schema": schema,
            "queue_type": queue_type,
            "retry": retry,
            "concurrency": concurrency,
            "loop_factory": loop_factory,
            "schedule": schedule,
            "middleware": check_middleware("job_handler", middleware),
            "timeout_s": timeout_s,
            "kill_after_s": kill_after_s,
            "run": staticmethod(function),
        }
        super().__init__(function, schema, make_class(Consumer, function, members))
        update_wrapper(self, function)
        self.function = function

    def __call__(self, job: Job[InT]) -> Answer[OutT]:
        """Call the function."""
        return self.function(job)


def make_class(base: type[Any], function: Callable[..., Any], members: dict[str, Any]) -> type[Any]:
    """Make a class of consumers that runs jobs by ``function``, and goes by its name."""
    copied = ("__doc__", "__module__", "__qualname__")
    return type(function.__name__, (base,), members | {name: getattr(function, name) for name in copied})


def check_decorated(name: str, schema: object) -> None:
    """Refuse what isn't a schema in the brackets of the decorator ``name``.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(schema, JobSchema):
        raise InvalidInput(f"@{name}({schema!r:.80}): pass the JobSchema, as in @{name}(schema)")


def check_function(name: str, function: object) -> None:
    """Refuse what isn't a function below the decorator ``name``.

    Raises:
        HandlerMissing: it is none.
    """
    if not inspect.isroutine(function):
        raise HandlerMissing(
            f"@{name}: {function!r:.80} is no function; write it above one, or derive a class from Consumer"
        )


def job_handler(
    schema: JobSchema[InT, OutT],
    *,
    queue_type: QueueType | None = None,
    retry: RetryPolicy | None = None,
    concurrency: int = 1,
    loop_factory: "Callable[[], AbstractEventLoop] | None" = None,
    schedule: "Cron | Every | None" = None,
    middleware: Sequence[Middleware] = (),
    timeout_s: float | None = None,
    kill_after_s: float | None = None,
) -> Callable[[Callable[[Job[InT]], Answer[OutT]]], JobHandler[InT, OutT]]:
    """Make a function the handler of jobs; it may be an ``async def``.

    Args:
        schema: The schema of the jobs.
        queue_type: The type of the queue, if it isn't the schema's.
        retry: A retry policy instead of the schema's.
        concurrency: How many jobs a consumer runs at once.
        loop_factory: Makes the event loop of an ``async def``; see :attr:`Consumer.loop_factory`.
        schedule: When jobs are published; see :attr:`Consumer.schedule`.
        middleware: What surrounds each run of the function; see :attr:`Consumer.middleware`.
        timeout_s: For how many seconds the function may run, instead of the schema's ``timeout_s``.
        kill_after_s: How many seconds it may go on after that, instead of the schema's ``kill_after_s``.

    Raises:
        InvalidInput: ``schema`` is no ``JobSchema``, or ``concurrency`` or a time limit is out of range.
        HandlerMissing: what is decorated is no function, or can't be called with a job.
    """
    check_decorated("job_handler", schema)
    check_concurrency(concurrency)
    check_time_limits(timeout_s, kill_after_s)

    def decorate(function: Callable[[Job[InT]], Answer[OutT]]) -> JobHandler[InT, OutT]:
        check_function("job_handler", function)
        check_takes_job(getattr(function, "__name__", "the handler"), function)
        return JobHandler(
            function,
            schema,
            queue_type,
            retry,
            concurrency,
            loop_factory,
            schedule,
            middleware,
            timeout_s,
            kill_after_s,
        )

    return decorate
