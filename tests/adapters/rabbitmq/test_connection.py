"""Deliveries read by the short way arrive like those that pika reads, however the stream is cut (RCV-2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, ConnectionParameters
from pika.channel import Channel
from pika.frame import Body, Header, Heartbeat, Method
from pika.heartbeat import HeartbeatChecker
from pika.spec import Basic

from mindtrace.jobs.adapters.rabbitmq.connection import Connection
from mindtrace.jobs.adapters.rabbitmq.frames import Properties
from mindtrace.jobs.adapters.rabbitmq.loop import Loop

OURS, PIKAS = "jobs-1", "letters-1"


class Told(NamedTuple):
    tag: int
    redelivered: bool
    job_id: str
    headers: dict[str, object] | None
    body: bytes


class Stream:
    """A connection with one open channel and two consumers, one of them by pika's way only."""

    def __init__(self, loop: Loop) -> None:
        self.told: list[Told] = []
        self.by_pika = 0
        self.connection = Connection(
            ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False
        )
        channel = Channel(self.connection, 1, lambda _: None)
        channel._set_state(Channel.OPEN)
        channel._consumers[OURS] = channel._consumers[PIKAS] = self._on_message
        self.connection._channels[1] = channel
        self.connection._consumers[OURS.encode()] = self._on_delivery

    def _on_message(
        self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self.by_pika += 1
        self._on_delivery(method.delivery_tag, method.redelivered, Properties.of(properties), body)

    def _on_delivery(self, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        self.told.append(Told(tag, redelivered, properties.message_id, properties.headers, body))


@contextmanager
def streaming() -> Iterator[Stream]:
    loop = Loop()
    try:
        yield Stream(loop)
    finally:
        loop.close()


def delivery(told: Told, consumer: str = OURS, body_frame: int = 1000) -> bytes:
    """As a server writes it, its body in frames of at most so many bytes."""
    method = Basic.Deliver(consumer, told.tag, told.redelivered, "", "queue")
    properties = BasicProperties(message_id=told.job_id, delivery_mode=2, headers=told.headers)
    frames = [Method(1, method), Header(1, len(told.body), properties)]
    frames += [Body(1, told.body[at : at + body_frame]) for at in range(0, len(told.body), body_frame)]
    return b"".join(frame.marshal() for frame in frames)


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
