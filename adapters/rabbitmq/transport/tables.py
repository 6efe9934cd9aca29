"""Tables of AMQP, read so that nothing a foreign client wrote into one can raise, recurse or take long."""

from struct import Struct
from typing import Any, NamedTuple

_TEXT, _BYTES, _ARRAY, _TABLE = b"S", b"x", b"A", b"F"
_SIZED = (_TEXT, _BYTES, _ARRAY, _TABLE)
"""The types that begin with their length."""
_LENGTH_BYTES = 4
_FIXED = {
    b"t": Struct(">?"),
    b"b": Struct(">b"),
    b"B": Struct(">B"),
    b"s": Struct(">h"),
    b"U": Struct(">h"),
    b"u": Struct(">H"),
    b"I": Struct(">i"),
    b"i": Struct(">I"),
    b"L": Struct(">q"),
    b"l": Struct(">q"),
    b"f": Struct(">f"),
    b"d": Struct(">d"),
    b"T": Struct(">Q"),  # a number: not every timestamp is a date that Python knows
    b"D": Struct(">5x"),  # a decimal, read as None
    b"V": Struct(""),
}
"""The types of a fixed size."""


class Unreadable(ValueError):
    """A table, or the properties around it, can't be read; the message says what is wrong."""


class Nested(NamedTuple):
    """An array or a table inside a table, which is read only if somebody asks for it."""

    is_table: bool
    data: bytes


def read_table(data: bytes) -> dict[str, Any]:
    """Read a table, given without the length before it.

    Raises:
        Unreadable: a field has an unknown type, or goes beyond the end.
    """
    table: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key_at = at + 1
        at = key_at + data[at]
        key = data[key_at:at].decode("utf-8", "backslashreplace")
        try:
            table[key], at = _read_value(data, at)
        except Unreadable as error:
            raise Unreadable(f"header {key!r:.80} {error}") from None
    return table


def read_array(data: bytes) -> list[Any]:
    """Read what a :class:`Nested` array holds.

    Raises:
        Unreadable: an item has an unknown type, or goes beyond the end.
    """
    items: list[Any] = []
    at = 0
    while at < len(data):
        item, at = _read_value(data, at)
        items.append(item)
    return items


def _read_value(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value that begins at ``at``, and where it ends."""
    kind = data[at : at + 1]
    at += 1
    if (fixed := _FIXED.get(kind)) is not None:
        if at + fixed.size > len(data):
            raise Unreadable("is cut off")
        unpacked = fixed.unpack_from(data, at)
        return unpacked[0] if unpacked else None, at + fixed.size
    if kind and kind not in _SIZED:
        raise Unreadable(f"has the unknown type {kind!r}")
    size_at, at = at, at + _LENGTH_BYTES
    after = at + int.from_bytes(data[size_at:at])
    if at > len(data) or after > len(data):
        raise Unreadable("is cut off")
    content = data[at:after]
    if kind == _TEXT:
        try:
            return content.decode(), after
        except UnicodeDecodeError:
            return content, after
    return content if kind == _BYTES else Nested(kind == _TABLE, content), after
