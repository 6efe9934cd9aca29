"""Messages as foreign clients of RabbitMQ write them: every type of AMQP, odd values, damaged bytes."""

from random import Random
from struct import pack
from typing import Any

from pika import BasicProperties


class RawProperties(BasicProperties):  # type: ignore[misc]
    """Properties that are written as the bytes that were given."""

    def __init__(self, written: bytes) -> None:
        super().__init__()
        self._written = written

    def encode(self) -> list[bytes]:
        """What pika puts into the header frame."""
        return [self._written]


def text(value: bytes) -> bytes:
    """A long string, of UTF-8 or not."""
    return b"S" + pack(">L", len(value)) + value


def array(*values: bytes) -> bytes:
    """An array of encoded values."""
    content = b"".join(values)
    return b"A" + pack(">L", len(content)) + content


def table(**fields: bytes) -> bytes:
    """A table of encoded values."""
    content = b"".join(bytes([len(key)]) + key.encode() + value for key, value in fields.items())
    return b"F" + pack(">L", len(content)) + content


def nested(depth: int, *, arrays: bool = False) -> bytes:
    """A table in a table, or an array in an array, so many times."""
    value = b"t\x01"
    for _ in range(depth):
        value = array(value) if arrays else table(a=value)
    return value


ODD_VALUES: dict[str, bytes] = {
    "a timestamp in milliseconds": b"T" + pack(">Q", 1_790_000_000_000),
    "the last timestamp": b"T" + pack(">Q", 2**64 - 1),
    "a decimal": b"D" + pack(">Bi", 255, -5),
    "no UTF-8": text(b"\xff\xff"),
    "bytes": b"x" + pack(">L", 3) + b"\xff\xfe\xfd",
    "nothing": b"V",
    "a byte": b"b\xff",
    "a short": b"s" + pack(">h", -1),
    "the least integer": b"l" + pack(">q", -(2**63)),
    "a float": b"d" + pack(">d", 1e300),
    "2000 tables": nested(2000),
    "5000 arrays": nested(5000, arrays=True),
    "a giant": text(b"x" * 100_000),
}
"""Values of a header, encoded, that RabbitMQ accepts and passes on."""


def with_header(value: bytes, **properties: Any) -> bytes:
    """Encode properties with one header ``h`` besides."""
    written = b"".join(BasicProperties(headers={"h": None}, **properties).encode())
    before, after = written.split(pack(">L", 3) + b"\x01hV")
    return before + table(h=value)[1:] + after


_SIZES = {"t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "T": 8, "f": 4, "D": 5, "V": 0}


def any_value(random: Random, depth: int = 3) -> bytes:
    """Encode some value of some type, well-formed."""
    kind = random.choice("SxAF" + "".join(_SIZES) if depth else "Sx" + "".join(_SIZES))
    if kind in _SIZES:
        return kind.encode() + random.randbytes(_SIZES[kind])
    if kind in "Sx":
        return kind.encode() + text(random.randbytes(random.randrange(30)))[1:]
    values = [any_value(random, depth - 1) for _ in range(random.randrange(4))]
    return array(*values) if kind == "A" else table(**{f"k{n}": value for n, value in enumerate(values)})


def mutated(random: Random, data: bytes) -> bytes:
    """Damage ``data`` in one to four places."""
    damaged = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(damaged) + 1)
        match random.randrange(5):
            case 0:
                damaged[at : at + 1] = random.randbytes(1)
            case 1:
                damaged[at : at + random.randint(1, 20)] = b""
            case 2:
                damaged[at:at] = random.randbytes(random.randint(1, 20))
            case 3:
                damaged[at : at + 4] = pack(">L", random.choice((0, 1, 255, 2**16, 2**31, 2**32 - 1)))
            case _:
                damaged[at : at + 1] = bytes([random.choice(b"tbBsUuIiLlfdTDVSxAF\x00")])
    return bytes(damaged)
