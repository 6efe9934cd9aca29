"""Which fields of a model are written in an order that differs by process, as they hold sets."""

from typing import Any

from pydantic import BaseModel

_SETS = ("set", "frozenset")
_NO_SCHEMAS = frozenset({"config", "default", "function", "members", "metadata", "serialization"})
"""Entries of a core schema that hold no schema of a value that is written."""

CoreSchema = dict[str, Any]


def fields_with_sets(model: type[BaseModel]) -> set[str]:
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
