"""Schemas of jobs: their input and output models, and what validates by them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypeVar

from .bounds import check_dead_ttl, check_expiry, check_name, check_seconds, check_time_limit
from .defaults import DEFAULT_RESULT_TTL_S
from .errors import InvalidInput, InvalidPayload, InvalidSchema
from .foreign_names import ForeignCalls
from .foreign_scalars import plain_scalars
from .json_fields import check_fields
from .limits import Limit, Rate, check_limits
from .model_changes import changes
from .queue import QueueKind, QueueType
from .retry import RetryPolicy
from .signatures import why_not_called_with
from .unique import Unique, written_names
from .unknown_keys import describe_unknown_keys, refuse_unknown_keys

if TYPE_CHECKING:
    from .dead_job import DeadJob
    from .then import Then

OnExpired: TypeAlias = Literal["end", "dead"]
KILL_AFTER_S = 10.0
"""How long a handler may go on after its time limit, unless its schema or its consumer says otherwise."""


class _JobModel(BaseModel):
    model_config = ConfigDict(
        frozen=True, allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )

    if not TYPE_CHECKING:  # checkers know the fields as arguments, as of any pydantic model

        def __init__(self, /, **data: Any) -> None:
            """Validate the fields. Where pydantic refuses a scalar of NumPy, try what Python has for it.

            Raises:
                InvalidPayload: a key is misspelt, which pydantic would drop without a word (PUB-6).
            """
            __tracebackhide__ = True
            try:
                made = self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError:
                plain = plain_scalars(data)
                if plain is data:
                    raise
                super().__init__(**plain)
            else:
                if made is not self:
                    super().__init__(**data)  # which warns of it
            if len(data) > len(self.__pydantic_fields_set__):
                refuse_unknown_keys(type(self).__name__, self, data)

        __init__.__pydantic_base_init__ = True  # or pydantic would call it where it needn't


class JobInput(_JobModel):
    """Base class of input models. Instances are immutable; NaN and infinity are refused; bytes are base64.

    A key that no field has is refused with ``InvalidPayload``, unless the class says otherwise by ``extra``
    in its ``model_config``. Jobs that are read may have keys of a newer release.
    """


class JobOutput(_JobModel):
    """Base class of output models, with the same settings as :class:`JobInput`."""


class AnyJSON(BaseModel):
    """Any JSON object, as the input or the output of a schema: ``JobSchema("echo", AnyJSON)``.

    Its fields are attributes, such as ``job.payload.path``; ``job.payload.model_dump()`` is the dict. Only
    the limits of every payload are checked.
    """

    model_config = ConfigDict(extra="allow", frozen=True)


InModelT = TypeVar("InModelT", bound=BaseModel)
OutModelT = TypeVar("OutModelT", bound=BaseModel, default=JobOutput)
OnDead: TypeAlias = "Then[Any] | Callable[[DeadJob[InModelT]], Then[Any] | None]"


@dataclass(frozen=True, init=False)
class JobSchema(ForeignCalls, Generic[InModelT, OutModelT]):
    """A kind of job: its name, the model of its input and the model of its output.

    Args:
        name: The name of the schema and of its queue.
        input: The model class of the payload. If you pass an instance, its class is used.
        output: The model of the result, likewise; by default a model without fields: what a handler returns
            isn't kept then.
        retry: When a failed job runs again, and when it is dead.
        result_ttl_s: Seconds for which a result is kept, more than 0.
        dead_ttl_s: Seconds for which a dead letter is kept, more than 0, by the broker's clock (DLQ-5). By
            default it is kept for ever, until somebody redrives or discards it.
        expires_s: Seconds for which a job may wait, more than 0, from the moment when it may run, by the
            broker's clock. A job that waited for longer isn't run. By default it may wait for ever. The
            ``expires_s`` of a publish counts instead.
        on_expired: What becomes of such a job: ``"end"`` ends it as expired, and ``"dead"`` makes it a dead
            letter.
        unique: Which jobs count as the same, so that one of them at a time is in the queue; None means none.
        rate: How fast jobs start, over all workers; by default as fast as they can.
        concurrency_limit: How many jobs run at once over all workers: of the whole queue, or for each value
            of a field. By default there is no limit.
        timeout_s: For how many seconds a handler may run, more than 0; by default as long as it takes. A
            consumer, a worker's ``--timeout`` and a publish may say otherwise. A coroutine is cancelled then,
            and a plain handler sees ``timed_out`` and gets ``JobTimedOut``. The attempt has failed.
        kill_after_s: How many seconds a handler may go on after that, until a worker gives it up, and has its
            process replaced.
        on_dead: Which jobs are published as one becomes a dead letter, in the same step (THEN-4): a ``Then``,
            or a function that a worker calls with the :class:`DeadJob`, and that returns a ``Then``, or None
            for no job. If the function fails, or what it returns can't be published, the job is dead all the
            same, and an error is logged. By default there is none.
        queue_type: The type of its queue: ``"fifo"`` (oldest first), ``"stack"`` (newest first) or
            ``"priority"``. By default it is that of the queue, if that is declared, and else ``"fifo"``.
        input_schema: Another name for ``input``.
        output_schema: Another name for ``output``.

    Raises:
        InvalidName: the name isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
        InvalidSchema: a model is missing, given twice or no pydantic model; or one of its fields doesn't
            survive JSON; or ``retry``, ``unique``, ``rate``, ``concurrency_limit`` or ``on_dead`` is of
            another type, or names a field that the input doesn't have; or ``result_ttl_s``, ``dead_ttl_s``,
            ``expires_s``, ``timeout_s`` or ``kill_after_s`` is out of range.
        InvalidInput: there is no such ``queue_type``.
    """

    name: str
    input: type[InModelT]
    output: type[OutModelT]
    retry: RetryPolicy
    result_ttl_s: float
    dead_ttl_s: float | None
    expires_s: float | None
    on_expired: OnExpired
    unique: Unique | None
    unique_names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The fields of ``unique``, by the names under which they are written; empty for all."""
    rate: Rate | None
    concurrency_limit: Limit | None
    timeout_s: float | None
    kill_after_s: float
    on_dead: "OnDead[InModelT] | None" = field(hash=False)
    queue_type: QueueKind | None
    has_untyped_input: bool = field(init=False, compare=False, repr=False)
    """Whether the input has values without a type, such as those of a field that is ``Any``."""
    has_untyped_output: bool = field(init=False, compare=False, repr=False)
    """Likewise the output."""

    def __init__(
        self,
        name: str,
        input: type[InModelT] | InModelT | None = None,  # noqa: A002 - the name that the API promises
        output: type[OutModelT] | OutModelT | None = None,
        *,
        retry: RetryPolicy | None = None,
        result_ttl_s: float = DEFAULT_RESULT_TTL_S,
        dead_ttl_s: float | None = None,
        expires_s: float | None = None,
        on_expired: OnExpired = "end",
        unique: Unique | None = None,
        rate: Rate | None = None,
        concurrency_limit: Limit | None = None,
        timeout_s: float | None = None,
        kill_after_s: float = KILL_AFTER_S,
        on_dead: "OnDead[InModelT] | None" = None,
        queue_type: QueueType | None = None,
        input_schema: type[InModelT] | InModelT | None = None,
        output_schema: type[OutModelT] | OutModelT | None = None,
    ) -> None:
        check_name("schema name", name)
        of_schema = f"schema {name!r}: "
        input_model = _model_class(name, "input", input, input_schema)
        if input_model is None:
            raise InvalidSchema(
                f"schema {name!r}: input is missing; pass a JobInput class, or AnyJSON for any JSON object"
            )
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise InvalidSchema(
                f"schema {name!r}: retry must be a RetryPolicy, such as RetryPolicy(max_attempts=3), got "
                f"{retry!r:.80}"
            )
        if check_seconds(f"{of_schema}result_ttl_s", result_ttl_s, InvalidSchema) == 0:
            raise InvalidSchema(f"{of_schema}result_ttl_s 0: must be more than 0 seconds")
        if expires_s is not None:
            expires_s = check_expiry(expires_s, InvalidSchema, what=f"{of_schema}expires_s")
        if dead_ttl_s is not None:
            dead_ttl_s = check_dead_ttl(f"{of_schema}dead_ttl_s", dead_ttl_s)
        if on_expired not in ("end", "dead"):
            raise InvalidSchema(f'schema {name!r}: on_expired {on_expired!r:.80}: must be "end" or "dead"')
        if unique is not None and not isinstance(unique, Unique):
            raise InvalidSchema(
                f'schema {name!r}: unique must be a Unique, such as Unique(by="path"), got {unique!r:.80}'
            )
        check_limits(name, input_model, rate, concurrency_limit)
        if timeout_s is not None:
            timeout_s = check_time_limit(f"{of_schema}timeout_s", timeout_s, InvalidSchema)
        if on_dead is not None:
            check_on_dead(name, on_dead)
        output_model = _model_class(name, "output", output, output_schema) or JobOutput
        fields = {
            "name": name,
            "input": input_model,
            "output": output_model,
            "retry": retry or RetryPolicy(),
            "result_ttl_s": float(result_ttl_s),
            "dead_ttl_s": dead_ttl_s,
            "expires_s": expires_s,
            "on_expired": on_expired,
            "has_untyped_input": check_fields(f"schema {name!r}: input", input_model),
            "unique": unique,
            "unique_names": written_names(f"schema {name!r}", input_model, unique) if unique else (),
            "rate": rate,
            "concurrency_limit": concurrency_limit,
            "timeout_s": timeout_s,
            "kill_after_s": check_seconds(f"{of_schema}kill_after_s", kill_after_s, InvalidSchema),
            "on_dead": on_dead,
            "queue_type": None if queue_type is None else QueueKind.parse(queue_type, of_schema),
            "has_untyped_output": check_fields(f"schema {name!r}: output", output_model),
        }
        for attribute, value in fields.items():
            object.__setattr__(self, attribute, value)

    @property
    def is_limited(self) -> bool:
        """Whether its jobs have a rate or a concurrency limit."""
        return self.rate is not None or self.concurrency_limit is not None

    @property
    def input_schema(self) -> type[InModelT]:
        """Another name for ``input``."""
        return self.input

    @property
    def output_schema(self) -> type[OutModelT]:
        """Another name for ``output``."""
        return self.output


def check_on_dead(name: str, on_dead: object) -> None:
    """Refuse what can't be a schema's ``on_dead``.

    Raises:
        InvalidSchema: it is neither a ``Then`` without a result nor a plain function of one argument.
    """
    from .then import Then  # which needs this module

    example = f"schema {name!r}: on_dead must be Then(schema, payload), or a function that returns one"
    if isinstance(on_dead, Then):
        if on_dead.result is not None:
            raise InvalidSchema(f"schema {name!r}: on_dead has a result, and a dead job has none")
    elif iscoroutinefunction(on_dead):
        raise InvalidSchema(f"{example}: {on_dead!r:.80} is an async def, and nobody would await it")
    elif isinstance(on_dead, type) or not callable(on_dead):
        raise InvalidSchema(f"{example}; got {on_dead!r:.80}")
    elif (why := why_not_called_with(on_dead, "a DeadJob")) is not None:
        raise InvalidSchema(f"{example}: {on_dead!r:.80} can't be called with a DeadJob alone ({why})")


class SchemaLike(Protocol):
    """What can be read as a :class:`JobSchema`: one, or a model with these fields, as of mindtrace-core."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def input_schema(self) -> type[BaseModel] | None: ...  # noqa: D102
    @property
    def output_schema(self) -> type[BaseModel] | None: ...  # noqa: D102


def read_schema(value: object, call: str) -> JobSchema[Any, Any]:
    """Return ``value`` as a schema: it is one, or a pydantic model that has its fields.

    Args:
        value: What the caller was given.
        call: The name of the call, for the message.

    Raises:
        InvalidInput: it is neither.
        InvalidSchema: its models can't be used.
    """
    if isinstance(value, JobSchema):
        return value
    if isinstance(value, BaseModel) and hasattr(value, "input_schema"):
        output = getattr(value, "output_schema", None)
        return JobSchema(getattr(value, "name", ""), input_schema=value.input_schema, output_schema=output)
    example = "JobSchema(name=…, input=…)"
    if isinstance(getattr(value, "schema", None), JobSchema):
        example = f"{getattr(value, '__name__', type(value).__name__)}.schema"
    raise InvalidInput(f"{call}({value!r:.80}): pass a JobSchema, such as {example}")


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate_payload(schema: JobSchema[InModelT, Any], data: object) -> InModelT:
    """Return ``data`` as an instance of the schema's input model.

    Raises:
        InvalidPayload: ``data`` is of another model, doesn't validate, or is a dict with a key that the model
            doesn't know.
    """
    return _validate_known_keys("payload", schema.input, data)


def validate_result(schema: JobSchema[Any, OutModelT], data: object) -> OutModelT:
    """Return ``data``, which a handler returned, as an instance of the schema's output model.

    Raises:
        InvalidPayload: ``data`` is of another model, doesn't validate, or is a dict with a key that the model
            doesn't know.
    """
    return _validate_known_keys("result", schema.output, data)


def _validate_known_keys(what: str, model: type[ModelT], data: object) -> ModelT:
    try:
        valid = validate_model(what, model, data)
    except InvalidPayload as error:
        unknown = describe_unknown_keys(model, data) if isinstance(data, Mapping) else ""
        if not unknown:
            raise
        raise InvalidPayload(f"{error}; {unknown}") from error.__cause__
    if valid is not data and (type(data) is dict or isinstance(data, Mapping)):
        refuse_unknown_keys(what, valid, data)
    return valid


def validate_model(what: str, model: type[ModelT], data: object) -> ModelT:
    """Return ``data`` as an instance of ``model``; an instance of it is returned as it is.

    Raises:
        InvalidPayload: ``data`` is of another model, or doesn't validate; ``what`` opens the message.
    """
    if isinstance(data, model):
        return data
    try:
        if isinstance(data, Mapping):
            try:
                return model.model_validate(data)
            except ValidationError:
                plain = plain_scalars(data)
                if plain is data:
                    raise
                return model.model_validate(plain)
        if isinstance(data, BaseModel) and type(data).__qualname__ == model.__qualname__:
            return _of_new_class(what, model, data)
    except ValidationError as error:
        raise InvalidPayload(f"{what}: {describe(error)}") from error
    got = f"the class {data.__name__}" if isinstance(data, type) else type(data).__name__
    many = "; publish_batch takes many jobs" if what == "payload" and isinstance(data, list) else ""
    raise InvalidPayload(f"{what}: expected {model.__name__} or a dict, got {got}{many}")


def _of_new_class(what: str, model: type[ModelT], data: BaseModel) -> ModelT:
    """Make of an instance one of a class that was defined again since, as by a notebook cell."""
    differences = changes(type(data), model)
    if differences:
        raise InvalidPayload(
            f"{what}: {model.__name__} was defined again since this instance was made, and differs: "
            f"{'; '.join(differences[:5])}. Make the instance anew"
        )
    try:
        text = type(data).__pydantic_serializer__.to_json(data, by_alias=True)
    except PydanticSerializationError as error:
        raise InvalidPayload(f"{what}: can't be written as JSON: {error}") from error
    return model.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]


def describe(error: ValidationError) -> str:
    """Say in one line which fields of which model are wrong, without the values, which may be secret."""
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    shown = "; ".join(problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"doesn't fit {error.title} ({shown}{more})"


def _model_class(schema: str, role: str, given: object, alias: object) -> type[Any] | None:
    if given is not None and alias is not None:
        raise InvalidSchema(f"schema {schema!r}: pass {role} or {role}_schema, not both")
    model = given if given is not None else alias
    if isinstance(model, BaseModel):
        model = type(model)
    if model is None:
        return None
    if not isinstance(model, type) or not issubclass(model, BaseModel) or model is BaseModel:
        raise InvalidSchema(
            f"schema {schema!r}: {role} must be a pydantic model class, got {model!r:.80}: "
            f"{_remedy(role, model)}"
        )
    return model


def _remedy(role: str, model: object) -> str:
    """Say what to pass in place of something that is no model."""
    if model is BaseModel:
        return "it has no fields and would drop them all; pass AnyJSON for any JSON object"
    base = f"Job{role.capitalize()}"
    if isinstance(model, type) and is_dataclass(model):
        return f"write class {model.__name__}({base}) without @dataclass"
    if isinstance(model, type):
        return f"derive a class from {base}, with a field for each value; or pass AnyJSON for any JSON object"
    return f"pass a class that derives from {base}"
