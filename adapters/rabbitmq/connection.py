"""pika's connection, where its inner parts must be reached for: what costs most, and what has no door.

Nothing else here touches what pika keeps to itself. Between a job's arrival and its acknowledgement the
broker waits, so reading the one and writing the other is done in as few steps as the protocol allows.
"""

import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from struct import Struct
from typing import Any

from pika import SelectConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorWrongState
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel
from pika.frame import Header

from .frames import (
    AROUND,
    BASIC,
    BODY,
    BODY_START,
    DELIVER,
    FRAME_END,
    HEADER,
    HEADER_START,
    METHOD,
    Properties,
    ack_frame,
    message_frames,
    read_properties,
)

OnDelivery = Callable[[int, bool, Properties, bytes], None]
"""Told the delivery tag, whether it was delivered before, the properties and the body."""

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 64 * 1024
"""What is written at once: long enough that the call doesn't count, short enough to be cut without cost."""
_DELIVER = Struct(">BHLHHB")
"""A frame's kind, channel and size; the class and the method; the length of a consumer tag."""
_TAG = Struct(">QB")
"""A delivery tag, and whether it is a redelivery."""


class Connection(SelectConnection):  # type: ignore[misc]
    """A connection that reads whole deliveries by itself, and leaves all else to pika.

    A delivery that comes in pieces is put together by pika, and its consumer is told by the same callback.
    But pika never reads the properties of a message, because anybody may have written them, and what it can't
    decode ends the connection. Its callbacks get our :class:`Properties` instead.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._consumers: dict[bytes, OnDelivery] = {}
        self._outgoing: deque[bytes] = deque()
        """Frames of our own that the next :meth:`flush` writes."""
        self._look: Any = None
        """Tells whether there is something to read, at the cost of one call; None where nothing does."""
        super().__init__(*args, **settings)

    def consume(
        self, channel: Channel, queue: str, tag: str, on_delivery: OnDelivery, callback: Callable[[Any], None]
    ) -> None:
        """Begin to consume, under a tag that no other consumer of this connection has.

        Args:
            channel: One of this connection.
            queue: Where from.
            tag: The consumer's.
            on_delivery: Called for every message.
            callback: Called once the server has agreed.
        """
        self._consumers[tag.encode()] = on_delivery

        def on_message(_channel: Channel, method: Any, properties: Properties, body: bytes) -> None:
            on_delivery(method.delivery_tag, method.redelivered, properties, body)

        channel.basic_consume(queue, on_message, consumer_tag=tag, callback=callback)

    def cancel(self, channel: Channel, tag: str, callback: Callable[[Any], None]) -> None:
        """Cease to consume; what is under way already is delivered all the same.

        pika would send that back, and the broker would count it as a crash.
        """

        def cancelled(frame: Any) -> None:
            self._consumers.pop(tag.encode(), None)
            callback(frame)

        channel.basic_cancel(tag, callback=cancelled)
        channel._cancelled.discard(tag)

    def acknowledge(self, channel: Channel, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, or all up to it, with the next :meth:`flush`.

        Raises:
            ChannelWrongStateError: the channel isn't open.
        """
        channel._raise_if_not_open()
        self._outgoing.append(ack_frame(channel.channel_number, tag, multiple=multiple))

    def publish(
        self, channel: Channel, exchange: str, routing_key: str, properties: Properties, body: bytes
    ) -> None:
        """Publish a message that must be routed, with the next :meth:`flush`.

        Raises:
            ChannelWrongStateError: the channel isn't open.
            ShortStringTooLong: a name or the id has more than 255 bytes; nothing was written.
            HeaderTooLong: the properties don't fit into a frame; nothing was written.
        """
        channel._raise_if_not_open()
        number, longest = channel.channel_number, self._body_max_length
        self._outgoing.append(message_frames(number, exchange, routing_key, properties, body, longest))

    def forget_consumers(self) -> None:
        """Their channel is gone, or going."""
        self._consumers.clear()

    def flush(self) -> None:
        """Write now what is to be written, as the other side waits for it.

        pika would do so in the next turn of the loop, and make a call, and thereby a packet, of each frame.
        """
        transport = self._transport
        if transport is None:
            return
        if transport._tx_buffers:  # what pika is to write comes first, whoever came first
            self._hand_over()
            _join(transport._tx_buffers)
            transport._on_socket_writable()
        elif self._outgoing and transport._state == transport._STATE_ACTIVE:
            self._write(transport._sock)

    def _write(self, sock: Any) -> None:
        """Write our frames; what the system doesn't take at once is left to pika."""
        if len(self._outgoing) > 1:
            _join(self._outgoing)
        while self._outgoing:
            piece = self._outgoing[0]
            try:
                sent = sock.send(piece)
            except OSError:  # it takes nothing now, or never again: pika finds out which
                sent = 0
            if sent < len(piece):
                self._outgoing[0] = piece[sent:]
                self._hand_over()
            else:
                self._outgoing.popleft()

    def _hand_over(self) -> None:
        """Have pika write our frames as soon as it can."""
        while self._outgoing:
            self._adapter_emit_data(self._outgoing.popleft())

    @property
    def has_unread(self) -> bool:
        """Whether something may have come that wasn't read yet, be it the end; any thread may ask."""
        try:
            return self._look is None or bool(self._look.poll(0))
        except RuntimeError:  # another thread is looking this moment
            return True

    def drop(self) -> None:
        """Break it, as if the network did so: pika's own close waits for an answer, without end."""
        if (transport := self._transport) is not None:
            with suppress(OSError, TypeError):  # it is closed already
                # Not TLS's own, after which what is here already would be read as it came: enciphered.
                socket.socket.shutdown(transport._sock, socket.SHUT_RDWR)

    # -- what pika calls --------------------------------------------------------------------------

    def _proto_connection_made(self, transport: Any) -> None:
        if type(transport) is _AsyncPlaintextTransport:
            # It reads until nothing is left, which is one read too many whenever something comes. (With TLS
            # it must: what was deciphered already shows nowhere else.)
            transport._consume = partial(self._read_once, transport)
        if hasattr(select, "poll"):  # not on Windows
            self._look = select.poll()
            self._look.register(transport._sock, select.POLLIN)
        super()._proto_connection_made(transport)

    def _read_once(self, transport: Any) -> None:
        data = transport._sock.recv(_READ_BYTES)
        if not data:
            raise transport.RxEndOfFile
        self._on_data_available(data)

    def _on_data_available(self, data_in: bytes) -> None:
        # As pika does, but that the short way is tried before each frame: of many deliveries at once the last
        # is mostly cut, and pika's is that one, not all that come after it.
        self._frame_buffer += data_in
        while self._frame_buffer:
            if at := self._read_deliveries(self._frame_buffer):
                self._trim_frame_buffer(at)  # which counts it too, as a sign of life
                continue
            size, frame = self._read_frame()
            if not frame:
                return
            self._trim_frame_buffer(size)
            self._process_frame(frame)

    def _read_frame(self) -> tuple[int, Any]:
        """Return the first frame of the buffer and its length; 0 and None if it isn't complete."""
        data = self._frame_buffer
        if data[0] == HEADER and len(data) > HEADER_START.size:
            _, channel, size, class_id, _, body_size = HEADER_START.unpack_from(data)
            end = size + AROUND
            if class_id == BASIC and end <= len(data) and data[end - 1] == FRAME_END:
                properties = read_properties(data, HEADER_START.size, end - 1)
                return end, Header(channel, body_size, properties)
        frame: tuple[int, Any] = super()._read_frame()
        return frame

    def _read_deliveries(self, data: bytes) -> int:
        """Read the whole deliveries that ``data`` begins with, and say where they end."""
        at, end, consumers = 0, len(data), self._consumers
        # The shortest delivery has a tag of one character, the default exchange and no properties.
        while end - at > _DELIVER.size + _TAG.size + HEADER_START.size + AROUND:
            kind, _, size, class_id, method_id, length = _DELIVER.unpack_from(data, at)
            header = at + size + AROUND
            if kind != METHOD or class_id != BASIC or method_id != DELIVER:
                break
            tag_at = at + _DELIVER.size + length
            on_delivery = consumers.get(data[tag_at - length : tag_at])
            if on_delivery is None or end < header + HEADER_START.size:
                break
            tag, redelivered = _TAG.unpack_from(data, tag_at)
            kind, _, size, _, _, body_size = HEADER_START.unpack_from(data, header)
            body = header + size + AROUND
            if kind != HEADER or end < body + bool(body_size) * (body_size + AROUND):
                break
            after = body
            content = b""
            if body_size:
                kind, _, size = BODY_START.unpack_from(data, body)
                after = body + body_size + AROUND
                if kind != BODY or size != body_size:  # it comes in several frames
                    break
                content = data[after - 1 - body_size : after - 1]
            if data[header - 1] != FRAME_END or data[body - 1] != FRAME_END or data[after - 1] != FRAME_END:
                break
            properties = read_properties(data, header + HEADER_START.size, body - 1)
            on_delivery(tag, bool(redelivered & 1), properties, content)
            at = after
        return at


def _join(buffers: deque[bytes]) -> None:
    """Make few long pieces of many short ones."""
    pieces: list[bytes] = []
    size = 0
    for _ in range(len(buffers)):
        piece = buffers.popleft()
        if pieces and size + len(piece) > _WRITE_BYTES:
            buffers.append(b"".join(pieces))
            pieces.clear()
            size = 0
        pieces.append(piece)
        size += len(piece)
    buffers.append(b"".join(pieces))


def abort(attempt: Any) -> None:
    """Give up making a connection, at whatever point that is.

    Once the server has been asked to let us in, pika's own way stops half-way, at an assertion that never
    holds there; this is what it does next.
    """
    with suppress(AMQPConnectorWrongState, AssertionError):  # the former: it was given up before
        attempt.abort()
    connection = attempt._connector and attempt._connector._amqp_conn
    if connection is not None and not connection.is_closing:
        connection.close()
