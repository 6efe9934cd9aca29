"""Envelopes as they should be, and what others may make of them."""

import json
from random import Random
from typing import Any

SCHEMA = "fuzz"
_TOKENS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"true", b"null", b"[", b"]", b"{", b"}", b'""'),
    *(b'"\\ud800"', b'"\\u0000"', b"9" * 300, b"1.7976931348623157e309", b'"x":1,"x":2', b"\xff\xfe"),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"[" * 70 + b"]" * 70, b"[" * 3000, b"0x10", b"01", b"-0"),
    *(b"\x00", b"\n", b"\\", b"/*", b"'", b'"\xc3\x28"', b"1_000", b"-9223372036854775809", b"\xef\xbb\xbf"),
    *(b"18446744073709551616", b'{"$ref":1}', b'"__class__"', b"253402300800", b"1e18"),
]
_ODD: dict[str, list[Any]] = {
    "priority": [0, 1, 9, 10, -1, True, 1.0, "1", None, 2**70],
    "not_before": [0, 1.5, -1, 1e20, 253402300799, None, "x", True, 10**30],
    "max_attempts": [0, 1, 10**6, 10**6 + 1, -5, True, 1.0, None, "2"],
    "timeout_s": [600, 600.5, 0, -1, 1e20, True, None, "x"],
    "headers": [{}, {"a": "b"}, {"a": 1}, {"x" * 2000: "y"}, [], None, {"a": None}, "s", {"\ud800": "x"}],
}
_PAYLOADS: list[Any] = [
    *({"n": 1}, {"n": 2}, {"n": 3}, {"s": "text"}, {"f": 0.5}, {"s": "é" * 50}, {"d": {"a": {"b": 1}}}),
    *({"n": "x"}, {"f": 1e300}, {"l": [[[1]]]}, [], None, 5, {"zzz": 1}, {"n": 2**70}, {"n": True}),
    *({"n": 1.0}, {"s": "\ud800"}),
]
_VALUES: list[Any] = [None, True, -1, "", [], {}, 1e400, "x" * 300, 0, 2, 1.5]


def envelope(random: Random, job_id: str) -> bytes:
    """Make an envelope that may be odd in what it says, and then damage some of its bytes."""
    fields: dict[str, Any] = {"v": 1, "id": job_id, "schema": SCHEMA, "created_at": 1795529836.588716}
    fields |= {name: random.choice(odd) for name, odd in _ODD.items() if random.random() < 0.08}
    fields["payload"] = random.choice(_PAYLOADS)
    for name in list(fields):
        if (chance := random.random()) < 0.02:
            del fields[name]
        elif chance < 0.04:
            fields[name] = random.choice(_VALUES)
    text = json.dumps(fields, ensure_ascii=random.random() < 0.5)
    return damaged(random, text.encode("utf-8", "surrogatepass"))


def damaged(random: Random, data: bytes) -> bytes:
    """Change, drop, insert, cut or repeat a few bytes; or none."""
    out = bytearray(data)
    for _ in range(random.choice([0, 0, 0, 0, 1, 1, 2, 5])):
        at = random.randrange(len(out) + 1)
        end = at + random.randrange(1, 8)
        out[at:end] = random.choice(
            [b"", random.randbytes(1), random.randbytes(6), random.choice(_TOKENS), bytes(out[at:])]
        )
        if random.random() < 0.05:
            del out[at:]
    return bytes(out)
