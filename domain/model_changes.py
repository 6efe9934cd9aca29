"""What differs between two models: whether a class was merely defined again, or describes other jobs."""

from functools import lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import CoreSchema

_LONGEST = 120


def changes(before: type[BaseModel], after: type[BaseModel]) -> tuple[str, ...]:
    """Say what differs between two models, by their names and JSON schemas.

    A notebook cell that runs again, or a module that is loaded again, defines classes that are equal to no
    earlier ones. Titles, descriptions and the code of validators don't count.

    Args:
        before: The earlier model.
        after: The later one.

    Returns:
        Sentences without a full stop, such as ``Image.path was removed``; none if one stands for the other.
    """
    return () if before is after else _compare(before, after)


@lru_cache(maxsize=256)
def _compare(before: type[BaseModel], after: type[BaseModel]) -> tuple[str, ...]:
    if before.__qualname__ != after.__qualname__:
        return (f"{after.__qualname__} is another model than {before.__qualname__}",)
    old, new = _parts(before), _parts(after)
    said = []
    for name in old.keys() | new.keys():
        if name not in old:
            said.append(f"{name} was added")
        elif name not in new:
            said.append(f"{name} was removed")
        elif old[name] != new[name]:
            said.append(f"{name} was changed from {old[name]:.{_LONGEST}} to {new[name]:.{_LONGEST}}")
    return tuple(sorted(said))


def _parts(model: type[BaseModel]) -> dict[str, str]:
    """Describe each field of a model and of those within it, by its name."""
    import json  # here, as only models that were defined again are compared

    try:
        schema = _without_titles(model.model_json_schema(schema_generator=_AnyTypes))
    except PydanticUserError:  # a type of the user's refuses: then the name alone has to do
        return {}
    definitions = {model.__name__: schema, **schema.pop("$defs", {})}
    parts = {}
    for name, definition in definitions.items():
        required = definition.pop("required", [])
        for field, value in definition.pop("properties", {}).items():
            described = json.dumps(value, default=str)[1:-1].replace('"', "") or "anything"
            parts[f"{name}.{field}"] = f"{'required ' if field in required else ''}{described}"
        parts[name] = json.dumps(definition, default=str)
    return parts


def _without_titles(schema: Any) -> Any:
    """Drop what is said to readers only. A field may be named like that: its value isn't a string."""
    if isinstance(schema, dict):
        return {
            key: value if key in ("default", "const", "enum") else _without_titles(value)
            for key, value in schema.items()
            if not (key in ("title", "description") and isinstance(value, str)) and key != "examples"
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


class _AnyTypes(GenerateJsonSchema):
    """Describes also a type that has no JSON schema, such as one with validators of its own."""

    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {  # type: ignore[misc]
        *("skipped-choice", "non-serializable-default", "skipped-discriminator")
    }

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:
        return {"type": error_info}
