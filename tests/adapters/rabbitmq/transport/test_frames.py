"""Frames that are written and read here are those that pika writes and reads."""

from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.exceptions import ShortStringTooLong
from pika.frame import Body, Header, Method
from pika.spec import Basic

from mindtrace.jobs.adapters.rabbitmq.transport.frames import (
    AROUND,
    HeaderTooLong,
    Properties,
    ack_frame,
    message_frames,
    read_properties,
)
from mindtrace.jobs.adapters.rabbitmq.transport.pika_private import _WRITE_BYTES, _join

CHANNELS = st.integers(1, 2**16 - 1)
NAMES = st.text(max_size=60)
HEADERS = st.none() | st.dictionaries(
    st.text(max_size=20),
    st.integers(-(2**31), 2**31 - 1) | st.text(max_size=20) | st.binary(max_size=60),
    max_size=3,
)
PROPERTIES = st.builds(
    Properties,
    st.none() | NAMES,
    st.none() | st.integers(0, 255),
    HEADERS,
    ttl_ms=st.none() | st.integers(0, 2**40),
)


@given(CHANNELS, NAMES, NAMES, PROPERTIES, st.integers(0, 5000).map(bytes), st.integers(1000, 2000))
@example(1, "", "jobs", Properties("job"), b"{}", 131_064)
def test_a_message_is_written_as_pika_writes_it(
    channel: int, exchange: str, routing_key: str, properties: Properties, body: bytes, longest: int
) -> None:
    name, priority, headers, _, ttl_ms = properties
    expiration = None if ttl_ms is None else str(ttl_ms)
    theirs = BasicProperties(
        message_id=name, priority=priority, headers=headers, expiration=expiration, delivery_mode=2
    )
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frames: list[Any] = [Method(channel, publish), Header(channel, len(body), theirs)]
    frames += [Body(channel, body[start : start + longest]) for start in range(0, len(body), longest)]

    written = message_frames(channel, exchange, routing_key, properties, body, longest)
    assert written == b"".join(frame.marshal() for frame in frames)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "name"),
    [("x" * 256, "key", "id"), ("", "ü" * 128, "id"), ("", "key", "ü" * 128)],
)
def test_what_no_frame_has_room_for_is_refused(exchange: str, routing_key: str, name: str) -> None:
    with pytest.raises(ShortStringTooLong):
        message_frames(1, exchange, routing_key, Properties(name), b"", 1000)


def test_properties_that_no_frame_has_room_for_are_refused() -> None:
    """Or the server would close the connection, and the fate of all that is under way would be unknown."""
    properties = Properties("id", headers={"h": b"x" * 100})
    whole = Header(1, 0, BasicProperties(message_id="id", headers=properties.headers, delivery_mode=2))
    longest = len(whole.marshal()) - AROUND

    assert message_frames(1, "", "key", properties, b"", longest)
    with pytest.raises(HeaderTooLong):
        message_frames(1, "", "key", properties, b"", longest - 1)


@given(CHANNELS, st.integers(0, 2**64 - 1), st.booleans())
def test_an_acknowledgement_is_written_as_pika_writes_it(channel: int, tag: int, multiple: bool) -> None:
    assert ack_frame(channel, tag, multiple=multiple) == Method(channel, Basic.Ack(tag, multiple)).marshal()


SHORT = st.none() | st.text(max_size=30) | st.binary(max_size=30)
OCTETS = st.none() | st.integers(0, 255)


@given(
    st.builds(
        BasicProperties,
        content_type=SHORT,
        headers=HEADERS,
        delivery_mode=OCTETS,
        priority=OCTETS,
        reply_to=SHORT,
        message_id=SHORT,
        timestamp=st.none() | st.integers(0, 2**63),
        app_id=SHORT,
    )
    | st.builds(BasicProperties, delivery_mode=OCTETS, priority=OCTETS, message_id=SHORT),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
@example(BasicProperties(delivery_mode=2, message_id=b"\xff"), b"", b"")
@example(BasicProperties(delivery_mode=2, message_id="", priority=1), b"", b"")
def test_properties_are_read_as_pika_reads_them(theirs: BasicProperties, before: bytes, after: bytes) -> None:
    """Whoever wrote them, and whatever they hold."""
    written = b"".join(theirs.encode())
    whole = before + written + after
    read = BasicProperties().decode(written)
    expected = Properties(read.message_id, read.priority, read.headers)
    assert read_properties(whole, len(before), len(before) + len(written)) == expected


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=20))
def test_short_pieces_become_long_ones_in_their_order(sizes: list[int]) -> None:
    """None so long that it would cost much to keep a part of it for later."""
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    joined = deque(pieces)
    _join(joined)
    assert b"".join(joined) == b"".join(pieces)
    assert all(len(piece) <= _WRITE_BYTES for piece in joined)
    assert all(len(one) + len(other) > _WRITE_BYTES for one, other in pairwise(joined))


def test_a_long_piece_stays_as_it_is() -> None:
    joined = deque([b"a", b"b" * 2 * _WRITE_BYTES, b"c", b"d"])
    _join(joined)
    assert [len(piece) for piece in joined] == [1, 2 * _WRITE_BYTES, 2]
