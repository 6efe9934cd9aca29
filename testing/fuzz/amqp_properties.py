"""Properties of AMQP messages as any client may write them, and as ours never are."""

import struct
from random import Random

from brokers.foreign_messages import RawProperties

_MESSAGE_ID, _PRIORITY, _HEADERS = 1 << 7, 1 << 11, 1 << 13


def properties(random: Random, job_id: str) -> RawProperties:
    """Make properties that RabbitMQ accepts, whatever a reader makes of them."""
    flags, values = 0, b""
    for bit, make in (
        (1 << 15, _short),
        (1 << 14, _short),
        (_HEADERS, _table),
        (1 << 12, lambda r: bytes([r.choice([1, 2, 2, 2])])),
        (_PRIORITY, lambda r: r.randbytes(1)),
        (1 << 10, _short),
        (1 << 9, _short),
        (_MESSAGE_ID, lambda r: _named(r, job_id)),
        (1 << 6, lambda r: struct.pack(">Q", r.choice([0, 1795529836588, 2**33, 2**63, 2**64 - 1]))),
        (1 << 5, _short),
        (1 << 3, _short),
    ):
        if random.random() < 0.5:
            flags |= bit
            values += make(random)
    return RawProperties(struct.pack(">H", flags) + values)


def _named(random: Random, job_id: str) -> bytes:
    name = job_id.encode() if random.random() < 0.8 else random.randbytes(random.randrange(256))
    return bytes([len(name)]) + name


def _short(random: Random) -> bytes:
    text = random.randbytes(random.randrange(20))
    return bytes([len(text)]) + text


def _long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _table(random: Random, depth: int = 0) -> bytes:
    entries = b""
    for _ in range(random.randrange(4)):
        known = [b"mindtrace-job", b"x-delivery-count", b"x-death", b"mindtrace-after-0", b"t"]
        name = random.choice([*known, random.randbytes(3)])
        entries += bytes([len(name)]) + name + _value(random, depth)
    return _long(entries)


def _value(random: Random, depth: int) -> bytes:
    simple = [
        b"t" + random.randbytes(1),
        b"b" + random.randbytes(1),
        b"B" + random.randbytes(1),
        b"s" + random.randbytes(2),
        b"u" + random.randbytes(2),
        b"I" + random.randbytes(4),
        b"i" + random.randbytes(4),
        b"l" + random.randbytes(8),
        b"f" + struct.pack(">f", random.uniform(-1e38, 1e38)),  # RabbitMQ refuses what is no finite number
        b"d" + struct.pack(">d", random.uniform(-1e307, 1e307)),
        b"D" + random.randbytes(5),
        b"T" + random.choice([random.randbytes(8), struct.pack(">Q", 1795529836588)]),
        b"V",
        b"x" + _long(random.randbytes(random.randrange(9))),
        b"S"
        + _long(random.choice([b"[1,0,0,[]]", b"{", b"[" * 3000, random.randbytes(8), b"[99999,0,0,[]]"])),
    ]
    if depth < 4 and random.random() < 0.3:
        array = b"".join(_value(random, depth + 1) for _ in range(random.randrange(3)))
        return random.choice([b"F" + _table(random, depth + 1), b"A" + _long(array), b"F" + _nested(300)])
    return random.choice(simple)


def _nested(depth: int) -> bytes:
    """A table in a table, and so on."""
    table = _long(b"")
    for _ in range(depth):
        table = _long(b"\x01aF" + table)
    return table
