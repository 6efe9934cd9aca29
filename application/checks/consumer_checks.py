"""What a consumer is refused for: its class, the schema of it, and its settings."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from ...domain import JobSchema, Limit, Rate, RetryPolicy, Unique, read_schema
from ...domain.bounds import check_int, check_name, check_seconds, check_time_limit
from ...domain.errors import HandlerMissing, InvalidInput, UsageError
from ...domain.model_changes import changes

_MAX_PREFETCH = 10_000
_MAX_CONCURRENCY = 10_000
_MAX_BATCH = 10_000


def schema_of(cls: type, base: type) -> JobSchema[Any, Any] | None:
    """Return the ``schema`` of a class of consumers, or None.

    Args:
        cls: The class.
        base: ``Consumer``, which the class may give its models in brackets.

    Raises:
        InvalidInput: as :meth:`Consumer.own_schema` says.
    """
    for name, option, value in _of_schemas(cls):
        raise InvalidInput(
            f"{cls.__name__}.{name}: belongs to the schema, as in JobSchema(…, {option}={value!r:.80})"
        )
    schema = getattr(cls, "schema", None)
    if schema is None:
        return None
    if not isinstance(schema, JobSchema):
        if not hasattr(schema, "input_schema"):
            raise InvalidInput(
                f"{cls.__name__}.schema {schema!r:.80}: must be a JobSchema, such as "
                "JobSchema(name=…, input=…)"
            )
        schema = read_schema(schema, f"{cls.__name__}.schema")
    for declared, model in zip(_declared_models(cls, base), (schema.input, schema.output), strict=False):
        if declared is Any:  # a class, as of Python 3.11: what a parameter that was left out stands for
            continue
        if isinstance(declared, type) and not issubclass(model, declared) and changes(declared, model):
            raise InvalidInput(
                f"{cls.__name__} is declared for {declared.__name__}, but its schema has "
                f"{model.__name__} in that place: write Consumer[Input, Output] as in JobSchema(…)"
            )
    return schema


def name_of(
    cls: type, schema: JobSchema[Any, Any] | None, job_type_name: str | None, queue: str | None
) -> str:
    """Return the name of a consumer's schema.

    Args:
        cls: The class.
        schema: Its own schema, if it has one.
        job_type_name: The name that the consumer was made with, if any.
        queue: The name of its queue, likewise.

    Raises:
        InvalidInput: there is no name, the schema has another, or the class has a ``queue_name`` of its own.
        InvalidName: the name breaks the rule for names.
    """
    name = schema.name if schema is not None else queue if job_type_name is None else job_type_name
    if isinstance(attribute := getattr(cls, "queue_name", None), str):
        raise InvalidInput(
            f"{cls.__name__}.queue_name: an instance has its queue from the constructor; remove the "
            f"attribute, and write {cls.__name__}(queue={attribute!r:.140})"
        )
    if name is None:
        raise InvalidInput(
            f"{cls.__name__}: pass the name of its queue, or set schema = JobSchema(…) in the class"
        )
    if job_type_name is not None and check_name("job type name", job_type_name) != name:
        raise InvalidInput(
            f"{cls.__name__}({job_type_name!r:.140}): its schema is named {name!r}; leave the name out, or "
            f"for another queue of that schema write {cls.__name__}(queue={job_type_name!r:.140})"
        )
    return name


def init_forgotten(cls: type, schema: JobSchema[Any, Any] | None) -> UsageError:
    """Return the error for a consumer whose ``__init__`` doesn't call that of its base."""
    owner = next(each for each in cls.__mro__ if "__init__" in vars(each))
    call = 'super().__init__("my_jobs"), with the name of its queue in place of my_jobs'
    if schema is not None:
        call = "super().__init__()"
    return UsageError(f"{owner.__name__}.__init__ must call {call}")


def _declared_models(cls: type, base: type) -> tuple[Any, ...]:
    """Return what stands in the brackets of ``base[…]``, or of a subclass, among the bases of a class."""
    for each in getattr(cls, "__orig_bases__", ()):
        if isinstance(origin := get_origin(each), type) and issubclass(origin, base):
            return get_args(each)
    return ()


def check_concurrency(concurrency: int) -> None:
    """Refuse a number of jobs at once that is out of range.

    Raises:
        InvalidInput: it is.
    """
    check_int("concurrency", concurrency, 1, _MAX_CONCURRENCY)


def check_batch(batch_size: int, batch_wait_s: float) -> None:
    """Refuse settings of batches that are out of range.

    Raises:
        InvalidInput: one is.
    """
    check_int("batch_size", batch_size, 1, _MAX_BATCH)
    check_seconds("batch_wait_s", batch_wait_s)


def check_time_limits(timeout_s: float | None, kill_after_s: float | None, owner: str = "") -> None:
    """Refuse time limits that are out of range.

    Args:
        timeout_s: For how long a handler may run.
        kill_after_s: For how long it may go on after that.
        owner: What has them; it opens the error's message.

    Raises:
        InvalidInput: one is.
    """
    if timeout_s is not None:
        check_time_limit(f"{owner}timeout_s", timeout_s)
    if kill_after_s is not None:
        check_seconds(f"{owner}kill_after_s", kill_after_s)


def check_settings(
    concurrency: int, lease_s: float, prefetch: int | None, poll_timeout_s: float, timeout_s: float | None
) -> None:
    """Refuse settings of :meth:`Consumer.connect` that are out of range.

    Raises:
        InvalidInput: one is.
    """
    check_concurrency(concurrency)
    if check_seconds("lease_s", lease_s) == 0:
        raise InvalidInput("lease_s 0: must be more than 0 seconds")
    if prefetch is not None:
        check_int("prefetch", prefetch, 1, _MAX_PREFETCH)
    check_seconds("poll_timeout_s", poll_timeout_s)
    check_time_limits(timeout_s, None)


def check_options(consumer: Any) -> None:
    """Refuse a consumer whose ``retry``, ``loop_factory`` or time limits can't be used.

    Raises:
        InvalidInput: one can't.
    """
    cls, retry = type(consumer), consumer.retry
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidInput(
            f"{cls.__name__}.retry {retry!r:.80}: must be a RetryPolicy, such as RetryPolicy(max_attempts=3)"
        )
    check_time_limits(consumer.timeout_s, consumer.kill_after_s, f"{cls.__name__}.")
    loop_factory = cls.loop_factory
    if loop_factory is not None and not callable(loop_factory):
        raise InvalidInput(
            f"{cls.__name__}.loop_factory {loop_factory!r:.80}: must be a function that makes an event loop, "
            "such as uvloop.new_event_loop"
        )


def check_hooks(consumer: Any, *, is_async: bool) -> None:
    """Refuse an ``async def`` that no event loop would run.

    Args:
        consumer: The consumer.
        is_async: Whether its handler is an ``async def``.

    Raises:
        InvalidInput: a hook is one, and the handler isn't.
    """
    for name in ("on_start", "on_stop"):
        if not is_async and inspect.iscoroutinefunction(getattr(consumer, name)):
            raise InvalidInput(
                f"{type(consumer).__name__}.{name} is an async def, and the handler is a plain function, "
                "so no event loop runs it: make both an async def, or neither"
            )


def _of_schemas(cls: type) -> Iterator[tuple[str, str, object]]:
    """What a class has that its schema hasn't and should have, and that nobody would obey there.

    Yields:
        The attribute, what it is called in a schema, and its value.
    """
    schema = getattr(cls, "schema", None)
    options = {"rate": Rate, "concurrency_limit": Limit, "unique": Unique}
    for name, value in ((each, vars(base)[each]) for base in cls.__mro__ for each in vars(base)):
        for option, kind in options.items():
            if isinstance(value, kind) and value is not getattr(schema, option, None):
                yield name, option, value


def base_class_called(arguments: Sequence[object]) -> HandlerMissing:
    """Return the error of ``Consumer(…)``, which has no handler."""
    given = "takes no function" if arguments and callable(arguments[0]) else "is a base class"
    return HandlerMissing(
        f"Consumer {given}: derive a class that defines run(self, job), or write "
        "@job_handler(schema) above a function and call its consumer()"
    )


def loop_runs_already(consumer: str) -> UsageError:
    """Return the error of consuming with an ``async def`` in a thread that runs an event loop."""
    return UsageError(
        f"{consumer}.run is an async def, and this thread runs an event loop already: "
        "await consumer.consume_async() in place of consume()"
    )
