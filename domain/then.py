"""What a handler returns to have the next job published in the step in which its own job is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from pydantic import BaseModel
from typing_extensions import TypeVar

from .errors import InvalidInput
from .schema import JobSchema, read_schema

ResultT = TypeVar("ResultT", covariant=True, default=Any)
OutT = TypeVar("OutT", default=Any)
NextT = TypeVar("NextT", bound=BaseModel)


class NextJob(NamedTuple):
    """A job that a :class:`Then` publishes, as its handler describes it."""

    schema: JobSchema[Any, Any]
    payload: BaseModel | Mapping[str, Any]
    delay_s: float
    priority: int
    id: str | None
    queue: str | None
    timeout_s: float | None


@dataclass(frozen=True, slots=True, init=False)
class Then(Generic[ResultT]):
    """This job is done, and the next one is published in the same step. A handler returns it (THEN-1).

    The next job exists if and only if this one is done (THEN-2). On RabbitMQ it is published first, and may
    come twice, under one id, if a worker dies between the two.

    The schema is registered if it isn't yet. A next job that can't be published makes this job a dead letter:
    if the payload doesn't fit, or ``queue`` isn't registered with the orchestrator of the consumer, or the
    schema is ``unique``. If its queue was deleted meanwhile, or the broker has no room for it, this job is
    retried by its policy (THEN-3).

    Args:
        schema: The schema of the next job.
        payload: An instance of that schema's input model, or a dict that validates as one.
        result: The result of this job, as a handler returns it by itself.
        delay_s: Seconds before the next job may run, by the broker's clock.
        priority: 0 to 9, higher first, on a priority queue.
        id: The next job's id. By default it follows from this job, so that it stays the same if the handler
            runs again.
        queue: The queue of the next job, if it isn't the schema's.
        timeout_s: For how many seconds the next job's handler may run, whatever its schema says.

    Raises:
        InvalidInput: the schema is no ``JobSchema``, or the payload is no model's instance and no dict.
    """

    result: ResultT | Mapping[str, Any] | None
    """The result of the job whose handler returns this."""
    jobs: tuple[NextJob, ...]
    """The next jobs, in the order in which they are published."""

    def __init__(
        self,
        schema: JobSchema[NextT, Any],
        payload: NextT | Mapping[str, Any],
        *,
        result: ResultT | Mapping[str, Any] | None = None,
        delay_s: float = 0.0,
        priority: int = 0,
        id: str | None = None,  # noqa: A002 - the field's name
        queue: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        schema = _checked(schema, payload)
        object.__setattr__(self, "result", result)
        job = NextJob(schema, payload, delay_s, priority, id, queue, timeout_s)
        object.__setattr__(self, "jobs", (job,))

    @staticmethod
    def all(*following: "Then[Any]", result: OutT | Mapping[str, Any] | None = None) -> "Then[OutT]":
        """Publish several next jobs, or none: all of them, or none if one can't be published.

        Args:
            *following: The next jobs, without results.
            result: The result of this job.

        Raises:
            InvalidInput: what follows is no ``Then``, or has a result.
        """
        for each in following:
            if not isinstance(each, Then):
                raise InvalidInput(
                    f"Then.all({each!r:.80}): pass each next job by itself, as in Then.all(*thens)"
                )
            if each.result is not None:
                raise InvalidInput("a job has one result: pass it to Then.all(…, result=…), not to its Thens")
        made: Then[OutT] = object.__new__(Then)
        object.__setattr__(made, "result", result)
        object.__setattr__(made, "jobs", tuple(job for each in following for job in each.jobs))
        return made


def _checked(schema: object, payload: object) -> JobSchema[Any, Any]:
    """Return the schema; refuse here, where the handler's line is known, what the job would die of later."""
    if hasattr(payload, "input_schema") and not hasattr(schema, "input_schema"):
        raise InvalidInput(
            f"Then({type(schema).__name__}, {type(payload).__name__}): pass the schema first, as in "
            "Then(schema, payload)"
        )
    if isinstance(payload, type):
        name = payload.__name__
        raise InvalidInput(
            f"Then(schema, {name}): pass an instance, as in Then(schema, {name}(…)), not the class"
        )
    known = read_schema(schema, "Then")
    if not isinstance(payload, BaseModel | Mapping):
        raise InvalidInput(
            f"Then({known.name}, {type(payload).__name__}): expected {known.input.__name__} or a dict"
        )
    return known
