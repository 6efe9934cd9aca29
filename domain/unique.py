"""Which jobs count as the same, so that only one of them is in a queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, get_args

from pydantic import BaseModel

from .bounds import check_seconds
from .errors import InvalidSchema

_DIGEST_BYTES = 16
_SETS = ("set", "frozenset")
_NO_SCHEMAS = frozenset({"config", "default", "function", "members", "metadata", "serialization"})
"""Entries of a core schema that hold no schema of a value that is written."""

CoreSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unique:
    """Makes the jobs of a schema unique: of those with the same input, one at a time is in the queue.

    Args:
        by: The name of the input's field that tells jobs apart, or several; by default those that are marked
            as :class:`UniqueField`, or all fields if none is.
        period_s: For how many seconds after its publish a job keeps others out even if it has ended, more
            than 0; None keeps them out only while it waits or runs.
        replace: Have a publish take the place of the job that waits, instead of being the duplicate. A job
            that a worker has taken runs, and the new one waits beside it. Not together with ``period_s``.
            None, the default, replaces only if ``debounce_s`` is given.
        debounce_s: Replace, and delay each job by so many seconds, more than 0: it runs once no other was
            published for so long. The ``delay_s`` of a publish counts instead, also 0, and so does the
            ``not_before`` of a job.

    Raises:
        InvalidSchema: ``by`` is neither a name nor a tuple of names, or names one twice; the options exclude
            each other; or ``period_s`` or ``debounce_s`` is out of range.
    """

    by: str | tuple[str, ...] = ()
    period_s: float | None = None
    replace: bool | None = None
    debounce_s: float | None = None

    def __post_init__(self) -> None:
        given: object = (self.by,) if isinstance(self.by, str) else self.by
        if not isinstance(given, tuple | list) or not all(isinstance(name, str) and name for name in given):
            raise InvalidSchema(
                f'by {self.by!r:.80}: pass the name of an input field, such as by="path", or a tuple of names'
            )
        object.__setattr__(self, "by", tuple(given))
        if len(set(self.by)) < len(self.by):
            raise InvalidSchema(f"by {self.by!r:.140}: names a field twice")
        for name in ("period_s", "debounce_s"):
            self._check_seconds(name)
        if self.replace is not None and not isinstance(self.replace, bool):
            raise InvalidSchema(f"replace {self.replace!r:.80}: must be True, False or None")
        if self.debounce_s is not None and self.replace is False:
            raise InvalidSchema(
                "replace=False and debounce_s: choose one: debouncing replaces the job that waits"
            )
        if self.replaces and self.period_s is not None:
            raise InvalidSchema(
                "period_s and replace or debounce_s: choose one: a period keeps later jobs out, and with "
                "replace or debounce_s the last one runs"
            )

    def _check_seconds(self, name: str) -> None:
        given = getattr(self, name)
        if given is not None:
            object.__setattr__(self, name, check_seconds(name, given, InvalidSchema))
            if not given:
                raise InvalidSchema(f"{name} 0: must be more than 0 seconds, or None for none")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in ``by``."""
        return (self.by,) if isinstance(self.by, str) else self.by

    @property
    def replaces(self) -> bool:
        """Whether a publish takes the place of a job that waits."""
        return self.debounce_s is not None if self.replace is None else self.replace


@dataclass(frozen=True, slots=True)
class UniqueField:
    """Marks a field of the input that tells jobs apart, if its schema is unique and names none itself.

    As in::

    class Image(JobInput):
        path: Annotated[str, UniqueField()]
        requested_by: str
    """


def written_names(what: str, model: type[BaseModel], unique: Unique) -> tuple[str, ...]:
    """Return the names under which the fields of ``unique`` are written in a payload.

    Args:
        what: What has the input; it opens the error's message.
        model: The input model.
        unique: The fields; a model that takes any key takes any name.

    Raises:
        InvalidSchema: the model has no such field, it isn't written, only a part of it is marked, or it holds
            a set, which each process writes in an order of its own.
    """
    names = []
    fields = unique.fields or _marked(what, model)
    _refuse_sets(what, model, fields)
    for name in fields:
        field = model.model_fields.get(name)
        if field is None and model.model_config.get("extra") != "allow":
            known = ", ".join(model.model_fields) or "none"
            raise InvalidSchema(
                f"{what}: unique by {name!r:.140}, but {model.__name__} has the fields {known}"
            )
        if field is not None and field.exclude:
            raise InvalidSchema(f"{what}: unique by {name!r}, which is excluded from serialization")
        names.append(name if field is None else field.serialization_alias or name)
    return tuple(names)


def _refuse_sets(what: str, model: type[BaseModel], fields: Sequence[str]) -> None:
    in_no_order = _fields_with_sets(model)
    for name in fields or model.model_fields:
        if name in in_no_order:
            raise InvalidSchema(
                f"{what}: unique by {name!r}, which holds a set, and each process writes that in its own "
                "order: use a sorted list, have a @field_serializer sort it, or name other fields in by"
            )


def _fields_with_sets(model: type[BaseModel]) -> set[str]:
    """Return the names of the fields that hold a set or frozenset, themselves or anywhere within.

    What a serializer of the user's writes is left to that: it may sort the set.
    """
    schema = model.__pydantic_core_schema__
    assert isinstance(schema, dict)  # noqa: S101 - the model was checked before
    definitions = {each["ref"]: each for each in schema.get("definitions", ())}
    fields = _fields_of(schema, definitions)
    return {name for name, field in fields.items() if _holds_set(field, definitions, set())}


def _fields_of(schema: CoreSchema, definitions: dict[str, CoreSchema]) -> dict[str, CoreSchema]:
    while schema["type"] != "model-fields":  # wrapped in the model, its validators and definitions
        schema = definitions[schema["schema_ref"]] if "schema_ref" in schema else schema["schema"]
    fields: dict[str, CoreSchema] = schema["fields"]
    return fields


def _holds_set(part: object, definitions: dict[str, CoreSchema], seen: set[str]) -> bool:
    if isinstance(part, list | tuple):
        return any(_holds_set(each, definitions, seen) for each in part)
    if not isinstance(part, dict) or part.get("serialization_exclude") is True:
        return False
    serialization = part.get("serialization")
    if serialization is not None and not serialization["type"].startswith("include-exclude"):
        return False
    if part.get("type") in _SETS:
        return True
    ref = part.get("schema_ref")
    if isinstance(ref, str):
        if ref in seen:
            return False
        seen.add(ref)
        return _holds_set(definitions.get(ref), definitions, seen)
    return any(_holds_set(value, definitions, seen) for key, value in part.items() if key not in _NO_SCHEMAS)


def _marked(what: str, model: type[BaseModel]) -> list[str]:
    for name, field in model.model_fields.items():
        if _has_mark(field.annotation):
            raise InvalidSchema(
                f"{what}: a part of field {name!r} is marked as UniqueField: mark the whole, as in "
                "Annotated[str | None, UniqueField()]"
            )
    return [name for name, field in model.model_fields.items() if any(map(_is_mark, field.metadata))]


def _is_mark(value: object) -> bool:
    return isinstance(value, UniqueField) or value is UniqueField


def _has_mark(annotation: object) -> bool:
    return any(_is_mark(part) or _has_mark(part) for part in get_args(annotation))


def digest(payload: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return what tells a payload, as it is written, from others: 32 hexadecimal digits.

    Args:
        payload: The fields by the names under which they are written.
        names: Those that count; none means all. One that isn't written counts as such.
    """
    import json  # here, as few schemas are unique

    counted = {name: payload[name] for name in names if name in payload} if names else payload
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
