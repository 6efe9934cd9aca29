"""Statements for connections of callers, in the words of their drivers."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Parameters = Mapping[str, Sequence[Any]]
"""The lists that a statement is given, by their names and in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class CallerStatement:
    """A statement whose parameters are lists, and which answers one list of texts, or NULL.

    Attributes:
        named: The text for psycopg, with names of its parameters.
        numbered: The text for asyncpg, with numbers. Its parameters are lists of texts, bytes in base64: of
            other types, asyncpg asks the server within the caller's transaction, and converts them by codecs
            that the caller may have set.
    """

    named: str
    numbered: str


def as_texts(parameters: Parameters) -> list[list[str]]:
    """Return parameters as a numbered statement takes them."""
    return [[_as_text(value) for value in values] for values in parameters.values()]


def _as_text(value: Any) -> str:
    return b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value)
