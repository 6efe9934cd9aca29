"""Which models survive JSON. A schema is refused when it is made if a field would be lost later.

The check walks the core schema that pydantic builds of a model. It says how each field is read and written,
with whatever annotations, validators and serializers it was declared.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from inspect import isabstract
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo

from .errors import InvalidSchema

_NO_SCHEMAS = frozenset(
    {"config", "computed_fields", "default", "expected", "function", "members", "metadata", "serialization"}
)
"""Entries of a core schema that hold no schema of a value, or none that is read."""
_ITEMS = {
    "dict": "values_schema",
    "list": "items_schema",
    "set": "items_schema",
    "frozenset": "items_schema",
    "tuple": "items_schema",
}
"""Where a collection says of what type its items are, if it does."""
_WRITTEN = (
    *(str, bytes, int, float, Decimal, Enum, UUID, PurePath, BaseModel),
    *(date, time, timedelta, dict, list, tuple, set, frozenset, deque),
)
"""Classes whose instances pydantic writes by itself."""


def check_fields(what: str, model: type[BaseModel]) -> bool:
    """Refuse ``model`` if a field of it doesn't survive JSON.

    Args:
        what: What the model is for; it opens the error's message.
        model: The model.

    Returns:
        Whether the model has values without a type, such as those of a field that is ``Any``.

    Raises:
        InvalidSchema: a field would be lost, changed or refused on its way; the message names the field.
    """
    if issubclass(model, RootModel):
        raise InvalidSchema(f"{what} {model.__name__} is a RootModel; use a model with named fields")
    model.model_rebuild(raise_errors=False)  # where it waits for its first use
    schema = model.__pydantic_core_schema__
    if not isinstance(schema, dict):
        raise InvalidSchema(
            f"{what} {model.__name__} refers to a class that isn't defined yet: define that first, "
            f"or call {model.__name__}.model_rebuild() when it is"
        )
    walk = _Walk(what)
    walk.visit(schema, _Place("", model, True, True, {}, {}))
    return walk.untyped


class _Place(NamedTuple):
    """Where a part of a model's core schema stands."""

    field: str
    """The names of the fields that lead here, joined by dots."""
    owner: type
    """The innermost class with fields."""
    read: bool
    """Whether pydantic reads JSON here; not behind a validator that may have made something else of it."""
    written: bool
    """Whether pydantic writes this by itself; not beneath a serializer of the user's."""
    config: Mapping[str, Any]
    root: Mapping[str, Any]
    """The config of the whole, by which pydantic writes what a serializer returns."""

    def inside(self, name: str) -> "_Place":
        return self._replace(field=f"{self.field}.{name}" if self.field else name)


class _Walk:
    def __init__(self, what: str) -> None:
        self._what = what
        self._definitions: dict[str, dict[str, Any]] = {}
        self._seen: set[tuple[str, bool, bool]] = set()
        self.untyped = False

    def visit(self, schema: dict[str, Any], place: _Place) -> None:
        """Check one core schema and all that it consists of."""
        kind = schema["type"]
        if kind == "definitions":
            self._definitions.update((each["ref"], each) for each in schema["definitions"])
            self.visit(schema["schema"], place)
            return
        if "serialization" in schema and place.written:
            place = self._behind_serializer(schema["serialization"], place)
        if kind == "definition-ref":
            self._visit_definition(schema["schema_ref"], place)
            return
        if kind in ("model", "dataclass", "typed-dict") and "cls" in schema:
            place = place._replace(owner=schema["cls"])
        if kind == "model":
            self._check_model(schema["cls"], place)
        if "config" in schema:
            place = place._replace(config=schema["config"], root=place.root or schema["config"])
        self._check_value(kind, schema, place)
        for child, child_place in _children(kind, schema, place):
            self.visit(child, child_place)

    def _visit_definition(self, ref: str, place: _Place) -> None:
        key = (ref, place.read, place.written)
        if key not in self._seen and ref in self._definitions:
            self._seen.add(key)
            self.visit(self._definitions[ref], place)

    def _behind_serializer(self, serialization: dict[str, Any], place: _Place) -> _Place:
        if serialization["type"].startswith("include-exclude"):
            return place
        function = serialization.get("function")
        name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
        if module == "pydantic.types" and "secret" in name.lower():
            self._refuse(
                place,
                "is a secret, which pydantic writes as asterisks, and a broker would keep in clear text: "
                "publish its name and look it up in the handler, or, if clear text is fine, return its value "
                "from a @field_serializer",
            )
        return place._replace(written=False)

    def _check_model(self, model: type[BaseModel], place: _Place) -> None:
        if model.model_config.get("extra") == "allow":
            self.untyped = True
        if not issubclass(model, RootModel):
            for name, field in model.model_fields.items():
                self._check_names(name, field, model, place.inside(name))

    def _check_names(self, name: str, field: FieldInfo, model: type[BaseModel], place: _Place) -> None:
        if field.exclude:
            if field.is_required():
                self._refuse(
                    place,
                    "is required but excluded from serialization, so no consumer would ever see it; give it "
                    "a default, or don't exclude it",
                )
            return
        written = field.serialization_alias or name
        if not names_read(name, field, model).get(written):
            read_as = field.validation_alias or name
            self._refuse(place, f"is written as {written!r} but read as {read_as!r}; give it one alias")

    def _check_value(self, kind: str, schema: dict[str, Any], place: _Place) -> None:
        if kind in ("any", "function-plain") or (kind in _ITEMS and _ITEMS[kind] not in schema):
            self.untyped = True
        elif kind == "generator":
            self._refuse(
                place, "is an Iterable or a Generator, which can be read only once; use a list or a Sequence"
            )
        elif kind == "callable":
            self._refuse_object(place, "a Callable", "publish the name of what the handler is to call")
        elif kind == "is-subclass":
            self._refuse_object(place, "a class", "publish its name")
        elif kind == "is-instance" and (place.read or not _is_written(schema["cls"])):
            name = getattr(schema["cls"], "__name__", str(schema["cls"]))
            advice = "save it and publish its path, or give the field a validator and a serializer"
            self._refuse_object(place, f"of type {name}", advice)
        elif kind == "json" and place.read and place.written:
            self._refuse(place, "is a Json, which isn't written as it is read; use the type in its brackets")
        elif kind == "enum" and place.read and place.written:
            self._check_enum(schema["cls"], place)
        elif kind == "bytes":
            self._check_bytes(place)
        elif kind == "union" and place.written and {"str", "bytes"} <= _types_of_choices(schema):
            self._refuse(place, "is str or bytes, which JSON can't tell apart; use a field for each")

    def _refuse_object(self, place: _Place, what: str, advice: str) -> None:
        if place.read or place.written:
            self._refuse(place, f"is {what}, which JSON can't carry: {advice}")

    def _check_enum(self, enum: type[Enum], place: _Place) -> None:
        from pydantic import TypeAdapter  # here, as few models have an enum

        adapter = TypeAdapter(enum)
        for member in enum:
            try:
                kept = adapter.validate_json(adapter.dump_json(member)) is member
            except ValueError:
                kept = False
            if not kept:
                self._refuse(
                    place,
                    f"is {enum.__name__}, whose value {member.name} JSON can't carry: use strings or numbers",
                )

    def _check_bytes(self, place: _Place) -> None:
        """Compare how bytes are written and read: by default as UTF-8, which most bytes aren't."""
        read = place.config.get("val_json_bytes", "utf8")
        if place.written:
            survives = read in ("base64", "hex") and read == place.config.get("ser_json_bytes", "utf8")
        else:  # what a serializer returns is written as the whole is
            survives = not place.read or read == place.root.get("ser_json_bytes", "utf8")
        if not survives:
            owner, config = (
                place.owner.__name__,
                "ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')",
            )
            advice = f"give it __pydantic_config__ = {config}"
            if issubclass(place.owner, BaseModel):
                advice = f"derive it from JobInput or JobOutput, or give it model_config = {config}"
            self._refuse(place, f"is bytes, of which {owner} keeps only text: {advice}")

    def _refuse(self, place: _Place, problem: str) -> None:
        raise InvalidSchema(f"{self._what} field {place.field!r} {problem}")


def names_read(name: str, field: FieldInfo, model: type[BaseModel]) -> dict[str, bool]:
    """Return the keys by which ``model`` reads a field, and whether the field is all that is read there.

    They are its name, its aliases, or both; of an ``AliasPath``, the first step.
    """
    alias, config = field.validation_alias, model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    names = {name: True} if alias is None or by_name else {}
    if alias is not None and config.get("validate_by_alias", True):
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            path = choice.path if isinstance(choice, AliasPath) else [choice]
            names[str(path[0])] = names.get(str(path[0]), False) or len(path) == 1
    return names


def _children(kind: str, schema: dict[str, Any], place: _Place) -> Iterator[tuple[dict[str, Any], _Place]]:
    if kind == "json-or-python":
        yield schema["json_schema"], place
    elif kind == "lax-or-strict":
        yield schema["lax_schema"], place
    elif kind == "chain":
        for number, step in enumerate(schema["steps"]):
            yield step, place if number == 0 else place._replace(read=False)
    else:
        if kind in ("function-before", "function-wrap", "function-plain"):
            place = place._replace(read=False)
        for key, value in schema.items():
            if key not in _NO_SCHEMAS:
                yield from _schemas_in(value, place)


def _schemas_in(value: object, place: _Place) -> Iterator[tuple[dict[str, Any], _Place]]:
    """Find the core schemas in an entry of one, and the names of the fields that they are of."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _schemas_in(item, place)
    elif isinstance(value, dict):
        if value.get("serialization_exclude") is True:
            return  # never written, and so never read
        if isinstance(value.get("type"), str):
            yield value, place.inside(value["name"]) if isinstance(value.get("name"), str) else place
            return
        for name, item in value.items():
            within = isinstance(item, dict) and str(item.get("type")).endswith("-field")
            yield from _schemas_in(item, place.inside(name) if within else place)


def _types_of_choices(union: dict[str, Any]) -> set[str]:
    choices = (
        choice[0] if isinstance(choice, tuple) else choice for choice in union["choices"]
    )  # some are named
    return {choice["type"] for choice in choices}


def _is_written(cls: object) -> bool:
    return isinstance(cls, type) and (issubclass(cls, _WRITTEN) or is_dataclass(cls) or isabstract(cls))
