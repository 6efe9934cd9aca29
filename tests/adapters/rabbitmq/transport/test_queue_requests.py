"""What a node says of a queue whose leader is silent isn't taken for the queue's state."""

import logging
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pika import ConnectionParameters
from pika.channel import Channel
from pika.exceptions import ChannelClosedByClient

from mindtrace.jobs.adapters.rabbitmq.transport import queue_requests
from mindtrace.jobs.adapters.rabbitmq.transport.broker import Broker
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.queue_requests import QueueState, request_known_state
from mindtrace.jobs.errors import BackendUnavailable

EMPTY = QueueState(0, 0)
NEAR_S, FAR_S = 0.001, 0.5
"""How long an answer is on its way."""
SILENT_S = 0.25
"""How long a node waits for a leader."""


class FakeChannel:
    """A node that answers at once, in a time of its own, and says ``state`` of each queue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: QueueState, *, far_s: float, leader_s: float):
        self._now_s, self._far_s, self._leader_s, self._state = 0.0, far_s, leader_s, state
        self.closed: tuple[int, str] | None = None
        monkeypatch.setattr(queue_requests, "monotonic", lambda: self._now_s)

    def queue_declare(self, _queue: str, passive: bool, callback: Any) -> None:
        assert passive
        self._now_s += self._far_s + self._leader_s
        ready, consumers = self._state
        callback(SimpleNamespace(method=SimpleNamespace(message_count=ready, consumer_count=consumers)))

    def flow(self, active: bool, callback: Any) -> None:
        self._now_s += self._far_s
        callback(active)

    def close(self, code: int, text: str) -> None:
        self.closed = (code, text)


@pytest.mark.parametrize("far_s", [NEAR_S, FAR_S], ids=["near", "far"])
@pytest.mark.parametrize(
    ("state", "leader_s", "is_known"),
    [
        pytest.param(EMPTY, 0.0, True, id="empty"),
        pytest.param(EMPTY, SILENT_S, False, id="silent"),
        pytest.param(QueueState(3, 0), SILENT_S, True, id="slow, with jobs"),
        pytest.param(QueueState(0, 1), SILENT_S, True, id="slow, with a consumer"),
    ],
)
def test_an_empty_queue_is_told_from_one_whose_leader_is_silent(
    monkeypatch: pytest.MonkeyPatch, state: QueueState, leader_s: float, is_known: bool, far_s: float
) -> None:
    """However far away the node itself is (CNT-1)."""
    channel, replies = FakeChannel(monkeypatch, state, far_s=far_s, leader_s=leader_s), list[QueueState]()

    request_known_state("mtj:n/q", cast(Channel, channel), replies.append)

    assert replies == ([state] if is_known else [])
    assert (channel.closed is None) == is_known


def test_the_caller_is_told_of_the_silent_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that no server answers."""
    channel = FakeChannel(monkeypatch, EMPTY, far_s=NEAR_S, leader_s=SILENT_S)
    request_known_state("mtj:n/q", cast(Channel, channel), lambda _state: None)
    assert channel.closed is not None
    servers = [ConnectionParameters("rabbit.example")]
    broker = Broker(servers, "rabbit.example", retry_timeout_s=0.001, logger=logging.getLogger(__name__))

    def ask(_timeout_s: float) -> None:
        raise ConnectionBroken(ChannelClosedByClient(*channel.closed))

    with (
        closing(broker),
        pytest.raises(BackendUnavailable, match=r"answers, but .*the leader of mtj:n/q doesn't answer"),
    ):
        broker.retry(ask)
