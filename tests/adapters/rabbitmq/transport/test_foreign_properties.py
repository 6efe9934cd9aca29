"""Whatever a foreign client wrote into a message's properties is read or told, and harms no other message."""

import sys
from random import Random
from struct import pack
from typing import Any

import pytest
from pika import BasicProperties
from pika.frame import Header, Method
from pika.spec import Basic

from brokers.foreign_messages import (
    ODD_VALUES,
    RawProperties,
    any_value,
    array,
    mutated,
    nested,
    table,
    text,
    with_header,
)
from mindtrace.jobs.adapters.rabbitmq.transport.frames import Properties, read_properties
from mindtrace.jobs.adapters.rabbitmq.transport.tables import Nested, Unreadable, read_array, read_table

from .streams import OURS, PIKAS, Told, delivery, streaming

DAMAGED = 4000


def read(written: bytes) -> Properties:
    return read_properties(b"before" + written + b"after", 6, 6 + len(written))


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_what_a_job_does_not_need_is_never_decoded(value: bytes) -> None:
    """The id, the priority and the other headers are read, whatever stands between them."""
    properties = read(with_header(value, message_id="job", priority=3, timestamp=2**63))

    assert (properties.message_id, properties.priority, properties.fault) == ("job", 3, "")
    assert set(properties.headers or ()) == {"h"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"t\x02", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"U\xff\xff", -1),
        (b"u\xff\xff", 2**16 - 1),
        (b"I" + b"\xff" * 4, -1),
        (b"i" + b"\xff" * 4, 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f" + pack(">f", 0.5), 0.5),
        (b"d" + pack(">d", 0.1), 0.1),
        (b"T" + b"\xff" * 8, 2**64 - 1),
        (b"D\x02" + pack(">i", 314), None),
        (b"V", None),
        (text("ü".encode()), "ü"),
        (text(b"\xff"), b"\xff"),
        (b"x" + pack(">L", 1) + b"a", b"a"),
        (array(b"V"), Nested(is_table=False, data=b"V")),
        (table(a=b"V"), Nested(is_table=True, data=b"\x01aV")),
    ],
)
def test_every_type_is_known(value: bytes, expected: Any) -> None:
    """A table and an array stay as they are until somebody asks what is in them."""
    assert read(with_header(value)).headers == {"h": expected}
    assert read_array(value * 2) == [expected] * 2


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"Q1234", "header 'h' has the unknown type b'Q'"),
        (b"", "header 'h' is cut off"),
        (b"S\x00\x00", "header 'h' is cut off"),
        (text(b"1234")[:-1], "header 'h' is cut off"),
        (b"l123", "header 'h' is cut off"),
    ],
)
def test_headers_that_cannot_be_read_are_told(value: bytes, why: str) -> None:
    """The id behind them is read all the same."""
    properties = read(with_header(value, message_id="job"))

    assert (properties.message_id, properties.headers, properties.fault) == ("job", None, why)
    if value:
        with pytest.raises(Unreadable):
            read_array(b"V" + value)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (b"", "cut off"),
        (b"\x10", "cut off"),
        (b"\x20\x00\xff\xff\xff\xff", "cut off"),
        (b"\x00\x80\x05job", "cut off"),
        (b"\x08\x00", "cut off"),
        (b"\x00\x01\x00\x00", "flags that AMQP doesn't know"),
    ],
)
def test_properties_that_cannot_be_read_are_told(written: bytes, why: str) -> None:
    assert why in read(written).fault


def test_a_name_that_is_no_utf_8_is_shown() -> None:
    assert read_table(b"\x02\xffaV") == {"\\xffa": None}


def seeds(random: Random) -> list[bytes]:
    """Properties as they come: ours, a dead letter of the broker, odd ones, any."""
    deaths = array(table(reason=text(b"expired"), time=b"T" + pack(">Q", 1), count=b"l" + pack(">q", 1)))
    ours = BasicProperties(
        message_id="id", priority=3, headers={"mindtrace-job": b"[1,0,0,[]]"}, delivery_mode=2
    )
    whole = BasicProperties(
        content_type="a",
        content_encoding="b",
        headers={"x-delivery-count": 3, "text": "ü"},
        correlation_id="c",
        reply_to="d",
        expiration="e",
        message_id="f",
        timestamp=1,
        type="g",
        user_id="h",
        app_id="i",
        cluster_id="j",
    )
    odd = [with_header(value, message_id="id") for value in ODD_VALUES.values() if len(value) < 100]
    written = [b"".join(each.encode()) for each in (ours, whole, BasicProperties(message_id="x" * 255))]
    some = [with_header(any_value(random), message_id="id") for _ in range(200)]
    return [*written, *odd, *some, with_header(deaths, message_id="id"), with_header(nested(20))]


def test_damaged_properties_neither_raise_nor_harm_the_messages_around_them() -> None:
    """Thousands of them, whole or in pieces, to both kinds of consumers, between deliveries of ours."""
    random = Random(15)
    originals = seeds(random)
    limit = sys.getrecursionlimit()
    with streaming() as stream:
        neighbours, faults = [], 0
        for number in range(DAMAGED):
            written = mutated(random, random.choice(originals))
            body = b"{}" * random.randrange(3)
            method = Basic.Deliver(random.choice([OURS, PIKAS]), 1, False, "", "queue")
            frames = Method(1, method).marshal() + Header(1, len(body), RawProperties(written)).marshal()
            if body:
                frames += b"\x03\x00\x01" + pack(">L", len(body)) + body + b"\xce"
            neighbours.append(Told(number + 2, False, f"id-{number}", None, b"{}"))
            data = frames + delivery(neighbours[-1])
            cut = random.randrange(len(data))
            for piece in (data[:cut], data[cut:]):
                stream.connection._on_data_available(piece)
            faults += bool(read(written).fault)
        came = [told for told in stream.told if told.tag > 1]

    assert came == neighbours
    assert len(stream.told) == 2 * DAMAGED
    assert DAMAGED // 10 < faults < DAMAGED, "some can be read, some can't"
    assert sys.getrecursionlimit() == limit
