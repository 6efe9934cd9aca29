"""The only file that uses private names of pika: what costs most, and what has no public way.

Between a job's arrival and its acknowledgement the broker waits, so reading the one and writing the other is
done in as few steps as the protocol allows. A test lists the names, and looks for them in the installed
release.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Any

from pika.adapters.utils import io_services_utils
from pika.channel import Channel
from pika.frame import Header

from .driver_connection import DriverConnection, OnConfirm, OnDelivery, require_open
from .frames import (
    ACK,
    ACK_FRAME,
    AROUND,
    BASIC,
    BODY,
    BODY_START,
    DELIVER,
    FRAME_END,
    HEADER,
    HEADER_START,
    METHOD,
    NACK,
    Properties,
    ack_frame,
    message_frames,
    read_properties,
)
from .pika_io_loop import PikaIOLoop

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 64 * 1024
"""What is written at once: long enough that the call doesn't count, short enough to be cut without cost."""
_DELIVER = Struct(">BHLHHB")
"""A frame's kind, channel and size; the class and the method; the length of a consumer tag."""
_TAG = Struct(">QB")
"""A delivery tag, and whether it is a redelivery."""


def resolver_loop(function: object) -> object:
    """Return the loop that pika resolves a host for, where ``function`` is what a timer calls for that."""
    return getattr(getattr(function, "__self__", None), "_loop", None)


class PrivateConnection(DriverConnection):
    """A connection that reads whole deliveries and confirms by itself, and leaves all else to pika.

    A delivery that comes in pieces is put together by pika, and its consumer is told by the same callback.
    But pika never reads the properties of a message, because anybody may have written them, and what it can't
    decode ends the connection.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._callbacks: dict[bytes, OnDelivery] = {}
        """By consumer tag."""
        self._confirm_callbacks: dict[int, OnConfirm] = {}
        """By channel."""
        self._outgoing: deque[bytes] = deque()
        """Frames of our own that the next :meth:`flush` writes."""
        super().__init__(*args, **settings)

    @classmethod
    def abandon(cls, attempt: Any, loop: PikaIOLoop) -> None:
        connection = attempt._connector and attempt._connector._amqp_conn
        if connection is not None and not connection.is_closing:
            connection.close()

    def consume(
        self,
        channel: Channel,
        queue: str,
        tag: str,
        prefetch: int,
        on_delivery: OnDelivery,
        callback: Callable[[Any], None],
    ) -> None:
        self._callbacks[tag.encode()] = on_delivery

        def on_message(_channel: Channel, method: Any, properties: Properties, body: bytes) -> None:
            on_delivery(method.delivery_tag, method.redelivered, properties, body)

        channel.basic_qos(prefetch_count=prefetch, callback=lambda _frame: None)
        channel.basic_consume(queue, on_message, consumer_tag=tag, callback=callback)

    def cancel(self, channel: Channel, tag: str, callback: Callable[[Any], None]) -> None:
        def cancelled(frame: Any) -> None:
            self._callbacks.pop(tag.encode(), None)
            callback(frame)

        channel.basic_cancel(tag, callback=cancelled)
        channel._cancelled.discard(tag)

    def acknowledge(self, channel: Channel, tag: int, *, multiple: bool = False) -> None:
        require_open(channel)
        self._outgoing.append(ack_frame(channel.channel_number, tag, multiple=multiple))

    def publish(
        self, channel: Channel, routing_key: str, properties: Properties, body: bytes, exchange: str = ""
    ) -> None:
        require_open(channel)
        number = channel.channel_number
        frames = message_frames(number, exchange, routing_key, properties, body, self.longest_body_frame)
        self._outgoing.append(frames)

    def confirm(self, channel: Channel, on_confirm: OnConfirm, callback: Callable[[Any], None]) -> None:
        self._confirm_callbacks[channel.channel_number] = on_confirm
        super().confirm(channel, on_confirm, callback)

    def forget_channel(self) -> None:
        self._callbacks.clear()
        self._confirm_callbacks.clear()

    def flush(self) -> None:
        # pika would do so in the next turn of the loop, and make a call, and thereby a packet, of each frame.
        transport = self._transport
        if transport is None:
            return
        if transport._tx_buffers:  # what pika is to write comes first, whoever came first
            self._leave_to_pika()
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
                self._leave_to_pika()
            else:
                self._outgoing.popleft()

    def _leave_to_pika(self) -> None:
        """Have pika write our frames as soon as it can."""
        while self._outgoing:
            self._adapter_emit_data(self._outgoing.popleft())

    # -- what pika calls --------------------------------------------------------------------------

    def _proto_connection_made(self, transport: Any) -> None:
        if type(transport) is io_services_utils._AsyncPlaintextTransport:
            # It reads until nothing is left, which is one read too many whenever something comes. (With TLS
            # it must: what was deciphered already shows nowhere else.)
            transport._consume = partial(self._read_once, transport)
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
            read = self._read_confirms if self._confirm_callbacks else self._read_deliveries
            if at := read(self._frame_buffer):
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

    def _read_confirms(self, data: bytes) -> int:
        """Read the confirms that ``data`` begins with, and return where they end."""
        at = 0
        while len(data) - at >= ACK_FRAME.size:
            kind, channel, _, class_id, method_id, tag, bits, frame_end = ACK_FRAME.unpack_from(data, at)
            on_confirm = self._confirm_callbacks.get(channel)
            if kind != METHOD or class_id != BASIC or method_id not in (ACK, NACK) or frame_end != FRAME_END:
                break
            if on_confirm is None:
                break
            on_confirm(tag, bool(bits & 1), method_id == ACK)
            at += ACK_FRAME.size
        return at

    def _read_deliveries(self, data: bytes) -> int:
        """Read the whole deliveries that ``data`` begins with, and return where they end."""
        at, end, callbacks = 0, len(data), self._callbacks
        # The shortest delivery has a tag of one character, the default exchange and no properties.
        while end - at > _DELIVER.size + _TAG.size + HEADER_START.size + AROUND:
            kind, _, size, class_id, method_id, length = _DELIVER.unpack_from(data, at)
            header = at + size + AROUND
            if kind != METHOD or class_id != BASIC or method_id != DELIVER:
                break
            tag_at = at + _DELIVER.size + length
            on_delivery = callbacks.get(data[tag_at - length : tag_at])
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
