"""Keys of a dict that its model doesn't know: a typing error that pydantic would drop without a word."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, PlainValidator, RootModel, WrapValidator

from .errors import InvalidPayload
from .json_fields import names_read
from .wording import closest

_SHOWN = 5
_RESHAPING = ("before", "wrap", "plain")
"""Modes of validators that may take keys which no field has."""


def refuse_unknown_keys(what: str, model: BaseModel, data: Mapping[str, Any]) -> None:
    """Refuse ``data`` if it, or a dict in it, has a key that isn't read.

    A model may say otherwise: by ``extra`` in its config, also by ``extra="ignore"``, or by a validator that
    sees the data before its fields do.

    Args:
        what: What is being read; it opens the error's message.
        model: What ``data`` was validated to.
        data: The keys and values that were given.

    Raises:
        InvalidPayload: there are such keys; the message names them, and those that they resemble.
    """
    keys = _keys_of(type(model))
    if keys is not None and not keys.deep and data.keys() <= keys.known:  # as most are
        return
    found: list[str] = []
    _collect(model, data, "", found)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InvalidPayload(f"{what}: {'; '.join(found[:_SHOWN])}{more}")


def describe_unknown_keys(model: type[BaseModel], data: Mapping[str, Any]) -> str:
    """Describe the keys of ``data`` itself that ``model`` doesn't read, for data that doesn't validate."""
    keys = _keys_of(model)
    if keys is None or keys.takes_all:
        return ""
    return "; ".join(_unknown(data, keys, "")[:_SHOWN])


class _Keys(NamedTuple):
    """The keys that a model reads."""

    model: type[BaseModel]
    known: frozenset[str]
    takes_all: bool
    """Whether the model takes all others, too."""
    deep: tuple[tuple[str, str], ...]
    """Those under which there may be another model, and the fields that it is in."""


def _collect(value: object, given: object, path: str, found: list[str]) -> None:
    """Describe the keys in ``given`` that no model in ``value`` reads; quick if there are none."""
    if type(given) is dict or isinstance(given, Mapping):
        cls: Any = type(value)
        keys = _keys_of(cls)
        if keys is not None:
            if not keys.takes_all and not given.keys() <= keys.known:
                found += _unknown(given, keys, path)
            for key, name in keys.deep:
                if key in given:
                    _collect(getattr(value, name), given[key], f"{path}{key}.", found)
        elif isinstance(value, RootModel):
            _collect(value.root, given, path, found)
        elif isinstance(value, Mapping):
            for key in given.keys() & value.keys():
                _collect(value[key], given[key], f"{path}{key}.", found)
    elif isinstance(given, list | tuple) and isinstance(value, list | tuple) and len(given) == len(value):
        for number, (item, given_item) in enumerate(zip(value, given, strict=True)):
            _collect(item, given_item, f"{path}{number}.", found)


def _unknown(given: Mapping[Any, Any], keys: _Keys, path: str) -> list[str]:
    unknown = (key for key in given if key not in keys.known)
    return [f"unknown key {f'{path}{key}'!r:.140} ({_advice(key, keys)})" for key in unknown]


def _advice(key: object, keys: _Keys) -> str:
    model = keys.model
    field = model.model_fields.get(key) if isinstance(key, str) else None
    if field is not None and isinstance(key, str) and (names := names_read(key, field, model)):
        return f"{model.__name__} reads {key} as {next(iter(names))!r}"
    if (close := closest(str(key), keys.known)) is not None:
        return f"did you mean {close!r}?"
    known = ", ".join(sorted(keys.known)) or "no fields"
    return f"{model.__name__} has {known if len(known) <= 200 else 'others'}"


@lru_cache(maxsize=1024)
def _keys_of(cls: type) -> _Keys | None:
    """Return what a model reads; None for another class."""
    if not issubclass(cls, BaseModel) or issubclass(cls, RootModel):
        return None
    decorators = cls.__pydantic_decorators__
    of_fields: list[Any] = [*decorators.field_validators.values(), *decorators.validators.values()]
    of_model: list[Any] = [*decorators.model_validators.values(), *decorators.root_validators.values()]
    reshaped = {
        name for validator in of_fields if validator.info.mode in _RESHAPING for name in validator.info.fields
    }
    known: set[str] = set()
    deep: list[tuple[str, str]] = []
    for name, field in cls.model_fields.items():
        names = names_read(name, field, cls)
        known.update(names)
        is_reshaped = not reshaped.isdisjoint((name, "*")) or any(
            isinstance(each, BeforeValidator | PlainValidator | WrapValidator) for each in field.metadata
        )
        if not is_reshaped and _holds_model(field.annotation):
            deep += [(key, name) for key, is_whole in names.items() if is_whole]
    for name, computed in cls.model_computed_fields.items():  # they are in a dump of the model
        known.update((name, computed.alias or name))
    takes_all = any(validator.info.mode in _RESHAPING for validator in of_model)
    return _Keys(cls, frozenset(known), takes_all or "extra" in cls.model_config, tuple(deep))


def _holds_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_holds_model, get_args(getattr(annotation, "__value__", annotation))))
