"""JSON from strangers: bounded before it is parsed, and refused where parsers disagree (SEC-2).

The common body is small and flat, so each bound is first tested by a count that can only overstate it. Only
a body that such a count can't clear pays for the exact scan of its skeleton: itself without its strings.
"""

import re
from collections.abc import Iterable
from math import inf
from typing import Any

from pydantic_core import from_json

from .bounds import MAX_BODY_BYTES, MAX_DEPTH, MAX_DIGITS
from .errors import BodyTooLarge, MalformedBody

# A string that never ends is taken to the end of the body: to look for its close anew from every quote in it
# would take time by the square of its length.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


def parse_object(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        BodyTooLarge: it is longer than ``max_bytes``.
        MalformedBody: it isn't UTF-8 or JSON; nests deeper than 64 levels; has a key twice, a NaN, or a
            number of more than 200 digits or past what a double can hold; or isn't an object.
    """
    check_bounds(body, max_bytes=max_bytes)
    try:
        # Keys repeat and values seldom do: a cache of values would hold 1.4 MiB of strings, and win nothing.
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise MalformedBody(f"not JSON: {error}") from None
    if type(value) is not dict:
        raise MalformedBody(f"not a JSON object but {_json_type(value)}")
    # A key owns one colon, and a colon in a string can only add to them: where the counts agree, no key
    # was swallowed by a twin of the same name.
    keys = _count_keys(value)
    if body.count(b":") != keys and _skeleton(body).count(b":") != keys:
        raise MalformedBody("an object has the same key twice")
    return value


def check_bounds(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> None:
    """Check the size, the depth and the length of numbers of a JSON text without parsing it.

    Raises:
        BodyTooLarge: it is longer than ``max_bytes``.
        MalformedBody: it nests deeper than 64 levels, or has a number of more than 200 digits.
    """
    size = len(body)
    if size > max_bytes:
        raise BodyTooLarge(
            f"body of {size:,} bytes: the limit is {max_bytes:,} bytes; store large data elsewhere, and send "
            "its path"
        )
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH or (
        size > MAX_DIGITS and _LONG_NUMBER.search(body) is not None
    ):
        _check_skeleton(_skeleton(body))


def _check_skeleton(skeleton: bytes) -> None:
    if _depth(skeleton) > MAX_DEPTH:
        raise MalformedBody(f"nested deeper than {MAX_DEPTH} levels: flatten it, or send the path of a file")
    if _LONG_NUMBER.search(skeleton):
        raise MalformedBody(f"a number of more than {MAX_DIGITS} digits: send it as a text")


def _skeleton(body: bytes) -> bytes:
    return _STRING.sub(b'""', body)


def _depth(skeleton: bytes) -> int:
    depth = deepest = 0
    for byte in skeleton.translate(None, _NO_BRACKETS):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _count_keys(value: dict[str, Any] | list[Any]) -> int:
    """Count the keys of ``value`` and all that it holds, and refuse an infinity on the way.

    It recurses no deeper than the bound on nesting.
    """
    keys = 0
    items: Iterable[Any] = value
    if type(value) is dict:
        keys = len(value)
        items = value.values()
    for item in items:
        kind = type(item)
        if kind is dict or kind is list:
            keys += _count_keys(item)
        elif kind is float and (item == inf or item == -inf):
            raise MalformedBody("a number is larger than a double can hold")
    return keys


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "a boolean"}.get(type(value), "a number")
