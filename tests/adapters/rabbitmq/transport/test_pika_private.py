"""Read and written past pika: deliveries arrive however the stream is cut (RCV-2), frames leave in order."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.frame import Heartbeat, Method
from pika.heartbeat import HeartbeatChecker
from pika.spec import Basic

from background import Background
from mindtrace.jobs.adapters.rabbitmq.transport.frames import Properties, ack_frame, message_frames
from mindtrace.jobs.adapters.rabbitmq.transport.pika_io_loop import PikaIOLoop

from .streams import OURS, PIKAS, Stream, Told, delivery, streaming

TOLD = st.builds(
    Told,
    st.integers(1, 2**63 - 1),
    st.booleans(),
    st.text("abc-", min_size=1, max_size=40),
    st.none() | st.dictionaries(st.sampled_from(["x-delivery-count", "y"]), st.integers(0, 1000), min_size=1),
    st.binary(max_size=60),
)
HEARTBEAT = Heartbeat().marshal()


@given(
    st.lists(
        st.tuples(TOLD, st.sampled_from([OURS, OURS, PIKAS]), st.sampled_from([1000, 20]), st.booleans()),
        max_size=8,
    ),
    st.data(),
)
def test_a_stream_may_be_cut_anywhere(sent: list[tuple[Told, str, int, bool]], data: st.DataObject) -> None:
    written = b"".join(
        delivery(told, consumer, body_frame) + (HEARTBEAT if beats else b"")
        for told, consumer, body_frame, beats in sent
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)), max_size=6)) | {0, len(written)})
    with streaming() as stream:
        for start, end in pairwise(cuts):
            stream.connection._on_data_available(written[start:end])
        assert stream.told == [told for told, *_ in sent]
        assert stream.connection.bytes_received == len(written)


CONFIRM = st.tuples(st.integers(1, 2**63 - 1), st.booleans(), st.booleans())


@given(st.lists(st.tuples(CONFIRM, st.booleans()), max_size=8), st.data())
def test_confirms_arrive_in_order_however_they_are_cut(
    sent: list[tuple[tuple[int, bool, bool], bool]], data: st.DataObject
) -> None:
    written = b"".join(
        Method(1, Basic.Ack(tag, multiple) if is_kept else Basic.Nack(tag, multiple)).marshal()
        + (HEARTBEAT if beats else b"")
        for (tag, multiple, is_kept), beats in sent
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)), max_size=6)) | {0, len(written)})
    heard: list[tuple[int, bool, bool]] = []
    with streaming() as stream:
        stream.connection._confirm_callbacks[1] = lambda *confirm: heard.append(confirm)
        for start, end in pairwise(cuts):
            stream.connection._on_data_available(written[start:end])
        assert heard == [confirm for confirm, _ in sent]
        assert stream.connection.bytes_received == len(written)


def test_what_comes_whole_takes_the_short_way() -> None:
    sent = [Told(number, False, f"id-{number}", None, b"{}" * number) for number in range(1, 50)]
    with streaming() as stream:
        stream.connection._on_data_available(b"".join(map(delivery, sent)))
        assert stream.told == sent
        assert stream.by_pika == 0


def test_only_what_is_cut_takes_the_long_way() -> None:
    """And not all that comes after it, for as long as each read ends within a delivery."""
    sent = [Told(number, False, f"id-{number}", None, b"{}" * 20) for number in range(1, 50)]
    written = b"".join(map(delivery, sent))
    with streaming() as stream:
        for start in range(0, len(written), 1000):
            stream.connection._on_data_available(written[start : start + 1000])
        assert stream.told == sent
        assert stream.by_pika <= len(written) // 1000


def test_every_delivery_is_a_sign_of_life() -> None:
    """Or the connection to a busy server, which sends no heartbeats then, would be taken for dead."""
    with streaming() as stream:
        heart = HeartbeatChecker(stream.connection, 10)
        for number in range(1, 4):
            stream.connection._on_data_available(delivery(Told(number, False, "id", None, b"{}")))
            heart._check_heartbeat()
            assert not heart.connection_is_idle
        assert stream.by_pika == 0


@pytest.mark.parametrize("place", ["method", "header", "body"])
def test_a_frame_that_ends_otherwise_is_left_to_pika(place: str) -> None:
    """Which then breaks off the connection; what came before it arrived."""
    whole = delivery(Told(1, False, "id", None, b"{}"))
    method_size = int.from_bytes(whole[3:7]) + 8
    header_size = int.from_bytes(whole[method_size + 3 : method_size + 7]) + 8
    end = {"method": method_size, "header": method_size + header_size, "body": len(whole)}[place] - 1
    spoilt = whole[:end] + b"\0" + whole[end + 1 :]
    with streaming() as stream:
        assert stream.connection._read_deliveries(whole + spoilt) == len(whole)
        assert len(stream.told) == 1


class Wire:
    """A stream's connection on a socket, and the other end of it."""

    def __init__(self, stream: Stream, loop: PikaIOLoop, here: socket.socket, there: socket.socket) -> None:
        here.setblocking(False)
        there.setblocking(False)
        self.connection = stream.connection
        self.connection.params.frame_max = 8 * 1024
        self.channel = self.connection._channels[1]
        self.there = there
        self._loop = loop
        protocol = SimpleNamespace(eof_received=lambda: None, connection_lost=lambda _error: None)
        self.connection._transport = _AsyncPlaintextTransport(here, protocol, SelectorIOServicesAdapter(loop))

    def arrived(self) -> bytes:
        """All that comes out at the other end, once the loop has nothing more to write."""
        read = b""
        while True:
            self._loop.turn(0.0)
            try:
                read += self.there.recv(1 << 20)
            except BlockingIOError:
                if self._loop.was_idle:
                    return read


@contextmanager
def wired() -> Iterator[Wire]:
    here, there = socket.socketpair()
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loop = PikaIOLoop()
        try:
            yield Wire(Stream(loop), loop, here, there)
        finally:
            loop.close()


@given(
    st.lists(st.tuples(st.sampled_from(["publish", "ack", "pika", "flush", "read"]), st.integers(0, 40_000)))
)
def test_frames_leave_in_their_order_however_full_the_socket_is(steps: list[tuple[str, int]]) -> None:
    """Whoever wrote them: of ours that weren't flushed when pika wrote, only their own order is promised."""
    with wired() as wire:
        connection, channel = wire.connection, wire.channel
        unflushed, expected, read = b"", b"", b""
        for number, (step, size) in enumerate(steps, 1):
            if step == "publish":
                body = bytes([number % 256]) * size
                connection.publish(channel, "queue", Properties("id"), body)
                unflushed += message_frames(
                    1, "", "queue", Properties("id"), body, connection.longest_body_frame
                )
            elif step == "ack":
                connection.acknowledge(channel, number)
                unflushed += ack_frame(1, number, multiple=False)
            elif step == "pika":
                connection._output_marshaled_frames([HEARTBEAT])
                expected += HEARTBEAT
            elif step == "flush":
                connection.flush()
                expected, unflushed = expected + unflushed, b""
            else:
                read += wire.arrived()
        connection.flush()
        assert read + wire.arrived() == expected + unflushed


def test_a_full_socket_leaves_the_rest_to_the_loop() -> None:
    """Nothing waits for the other end to read, and nothing is written twice."""
    with wired() as wire:
        body = b"x" * 1_000_000
        wire.connection.publish(wire.channel, "queue", Properties("id"), body)
        wire.connection.flush()
        assert wire.connection._transport.get_write_buffer_size() > 0
        longest = wire.connection.longest_body_frame
        assert wire.arrived() == message_frames(1, "", "queue", Properties("id"), body, longest)
        assert wire.connection._transport.get_write_buffer_size() == 0


def test_what_came_unread_shows_at_once_be_it_the_end() -> None:
    with wired() as wire:
        wire.connection._proto_connection_made(wire.connection._transport)
        wire.connection.watch()
        wire.arrived()
        assert not wire.connection.has_unread
        wire.there.send(HEARTBEAT)
        assert wire.connection.has_unread
        wire.connection._read_once(wire.connection._transport)
        assert not wire.connection.has_unread
        wire.there.close()
        assert wire.connection.has_unread


def test_any_thread_may_look_for_what_came() -> None:
    with wired() as wire, Background() as threads:
        wire.connection._proto_connection_made(wire.connection._transport)
        wire.connection.watch()
        wire.there.send(HEARTBEAT)
        looks = threads.map(lambda _: [wire.connection.has_unread for _ in range(5_000)], range(4))
        assert all(map(all, looks))
