"""Messages and acknowledgements as frames of AMQP, written and read in as few steps as they allow."""

from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from pika import BasicProperties
from pika.frame import Method
from pika.spec import Basic

from .tables import Unreadable, read_table

METHOD, HEADER, BODY = 1, 2, 3
"""The kinds of frames."""
FRAME_END = 0xCE
AROUND = 8
"""How much longer a frame is than what it carries."""
BASIC = 60
"""The class of all that concerns messages."""
DELIVER = 60
"""The method that a delivery begins with."""
ACK, NACK = 80, 120
"""The methods by which either side acknowledges messages, and refuses them."""
_PERSISTENT = 2
_LONGEST_NAME = 255
_END = bytes([FRAME_END])

ACK_FRAME = Struct(">BHLHHQBB")
"""A frame's kind, channel and size; the class and the method; a delivery tag; multiple; the frame's end."""
_ACK_BYTES = 13
HEADER_START = Struct(">BHLHHQ")
"""A frame's kind, channel and size; the class; a weight; the size of the body."""
_HEADER_BYTES = 12
BODY_START = Struct(">BHL")
"""A frame's kind, channel and size."""
_PLAIN = Struct(">HBB")
"""Which properties there are: how to keep the message, and its id; the length of the latter."""
_RANKED = Struct(">HBBB")
"""The same with a priority before the id."""
_IS_PLAIN, _IS_RANKED = 0x1080, 0x1880

_SHORT, _TABLE, _OCTET = 1, 4, 0
"""How many bytes the length before a property takes: of a short string, of a table, of one byte."""
_LAYOUT = (_SHORT, _SHORT, _TABLE, _OCTET, _OCTET, _SHORT, _SHORT, _SHORT, _SHORT)
"""The properties up to the last one that is used, in their order: content type and encoding, headers,
delivery mode, priority, correlation id, reply to, expiration, message id."""
_HEADERS, _PRIORITY, _MESSAGE_ID = 2, 4, 8
"""The places of those that are used."""
_FIRST_FLAG, _MORE_FLAGS = 0x8000, 0x0001
_FLAGS_BYTES = 2


class HeaderTooLong(ValueError):
    """A frame has no room for a message's properties, and AMQP can't cut them into several frames."""


class Properties(NamedTuple):
    """The properties of a message that are used; every message of ours is persistent."""

    message_id: str | bytes | None = None
    """Bytes if it isn't UTF-8, which no message of ours has."""
    priority: int | None = None
    headers: dict[str, Any] | None = None
    fault: str = ""
    """Why they can't be read, or not all of them; empty where they can."""
    ttl_ms: int | None = None
    """For how long the broker keeps the message, once it is the first of its queue; not read."""


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Acknowledge a delivery, or all up to it."""
    return ACK_FRAME.pack(METHOD, channel, _ACK_BYTES, BASIC, ACK, tag, multiple, FRAME_END)


def message_frames(
    channel: int, exchange: str, routing_key: str, properties: Properties, body: bytes, longest: int
) -> bytes:
    """Publish a message that must be routed.

    Args:
        channel: The number of an open one.
        exchange: Where to; at most 255 bytes, as all names.
        routing_key: Likewise.
        properties: The message's.
        body: The message itself.
        longest: How many bytes fit into a frame.

    Raises:
        ShortStringTooLong: a name or the id has more than 255 bytes.
        HeaderTooLong: the properties don't fit into a frame.
    """
    written = _written(properties, longest)
    head = HEADER_START.pack(HEADER, channel, _HEADER_BYTES + len(written), BASIC, 0, len(body))
    publish = _publish_frame(channel, exchange, routing_key)
    if 0 < len(body) <= longest:
        return b"".join((publish, head, written, _END, BODY_START.pack(BODY, channel, len(body)), body, _END))
    pieces = [publish, head, written, _END]
    for start in range(0, len(body), longest):
        piece = body[start : start + longest]
        pieces += BODY_START.pack(BODY, channel, len(piece)), piece, _END
    return b"".join(pieces)


def read_properties(data: bytes, start: int, end: int) -> Properties:
    """Read the properties of a message that lie between these places of ``data``; never raises."""
    flags, first, second = 0, 0, 0
    if end - start >= _RANKED.size:  # the shortest of ours has an id of one character, and no priority
        flags, _, first, second = _RANKED.unpack_from(data, start)
    if flags == _IS_PLAIN and (name_at := start + _PLAIN.size) + first == end:
        priority = None
    elif flags == _IS_RANKED and (name_at := start + _RANKED.size) + second == end:
        priority = first
    else:
        return _read_any_properties(data[start:end])
    name = data[name_at:end]
    try:
        return Properties(name.decode(), priority)
    except UnicodeDecodeError:
        return Properties(name, priority)


def _read_any_properties(data: bytes) -> Properties:
    """Read properties that anybody may have written."""
    pieces: dict[int, bytes] = {}
    headers, fault = None, ""
    try:
        _cut(data, pieces)
        if (table := pieces.get(_HEADERS)) is not None:
            headers = read_table(table)
    except Unreadable as error:
        fault = str(error)
    name, priority = pieces.get(_MESSAGE_ID), pieces.get(_PRIORITY)
    return Properties(
        None if name is None else _text(name), None if priority is None else priority[0], headers, fault
    )


def _cut(data: bytes, pieces: dict[int, bytes]) -> None:
    """Cut properties into ``pieces``, by their places in the layout, each without its length.

    Raises:
        Unreadable: they are cut off, or of more kinds than AMQP has; ``pieces`` has those before.
    """
    flags, at = int.from_bytes(data[:_FLAGS_BYTES]), _FLAGS_BYTES
    if at > len(data):
        raise Unreadable("the properties are cut off")
    if flags & _MORE_FLAGS:
        raise Unreadable("the properties have flags that AMQP doesn't know")
    for place, length_bytes in enumerate(_LAYOUT):
        if flags & _FIRST_FLAG >> place:
            size = int.from_bytes(data[at : at + length_bytes]) if length_bytes else 1
            at += length_bytes
            if at + size > len(data):
                raise Unreadable("the properties are cut off")
            pieces[place] = data[at : at + size]
            at += size


def _text(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _written(properties: Properties, longest: int) -> bytes:
    message_id, priority, headers, _, ttl_ms = properties
    if headers is None and ttl_ms is None and type(message_id) is str:
        name = message_id.encode()
        if len(name) <= _LONGEST_NAME:
            if priority is None:
                return _PLAIN.pack(_IS_PLAIN, _PERSISTENT, len(name)) + name
            return _RANKED.pack(_IS_RANKED, _PERSISTENT, priority, len(name)) + name
    return _written_by_pika(properties, longest)


def pika_properties(properties: Properties) -> BasicProperties:
    """Return the properties as pika has them, of a message that outlives the broker."""
    message_id, priority, headers, _, ttl_ms = properties
    return BasicProperties(
        message_id=message_id,
        priority=priority,
        headers=headers,
        expiration=None if ttl_ms is None else str(ttl_ms),
        delivery_mode=_PERSISTENT,
    )


def _written_by_pika(properties: Properties, longest: int) -> bytes:
    written = b"".join(pika_properties(properties).encode())
    if _HEADER_BYTES + len(written) > longest:
        raise HeaderTooLong(f"properties of {len(written):,} bytes: a frame has {longest:,}")
    return written


@lru_cache(maxsize=256)
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frame: bytes = Method(channel, publish).marshal()
    return frame
