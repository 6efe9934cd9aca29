"""What a settlement publishes in place of a job: where it goes, when, and what the job has spent by then."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from mindtrace.jobs.adapters.rabbitmq.consumer.channel import Arrival, Subscription
from mindtrace.jobs.adapters.rabbitmq.consumer.settlement_messages import SettlementMessages
from mindtrace.jobs.adapters.rabbitmq.message import DeliveryHistory, history_of
from mindtrace.jobs.adapters.rabbitmq.topology import Names, fresh_rank, returned_rank
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing
from mindtrace.jobs.domain import QueueKind
from mindtrace.jobs.ports import Release, Retry

NAMES = Names("n", "q")
BEFORE = DeliveryHistory(attempt=3, number=5, crashes=1, failures=((1, "no"), (2, "no again")))
PRIORITY = 7


def replacement(settlement: Release | Retry, kind: QueueKind) -> Outgoing:
    channel: Any = SimpleNamespace(frame_max=131_072)
    messages = SettlementMessages(NAMES, kind, channel, logging.getLogger("test"))
    rank = fresh_rank(kind, PRIORITY)
    return messages.for_settlement(
        settlement, Arrival(Subscription("s", 1), 1, 1, False, rank, b"body", "id", BEFORE, "")
    )


@pytest.fixture(params=[QueueKind.FIFO, QueueKind.PRIORITY])
def kind(request: pytest.FixtureRequest) -> QueueKind:
    kind: QueueKind = request.param
    return kind


def test_a_delayed_release_spends_no_attempt_and_adds_no_failure(kind: QueueKind) -> None:
    """It counts one delivery more, and nothing else (SET-4)."""
    message = replacement(Release("r", 2.5), kind)

    assert history_of(message.properties) == BEFORE._replace(number=6)
    assert (message.properties.message_id, message.body) == ("id", b"body")


def test_a_delayed_release_waits_and_joins_the_queue_as_a_retry_does(kind: QueueKind) -> None:
    """By the delay queues, and then as a job that is published at that moment, with its own priority."""
    released, retried = replacement(Release("r", 2.5), kind), replacement(Retry("r", 2.5, "no"), kind)

    assert released.delay_s == 2.5
    assert released.properties.priority == fresh_rank(kind, PRIORITY)
    assert (released.queue, released.properties.priority, released.delay_s) == (
        retried.queue,
        retried.properties.priority,
        retried.delay_s,
    )


def test_a_release_without_delay_goes_before_the_others(kind: QueueKind) -> None:
    """To its old place, at once (ORD-4)."""
    message = replacement(Release("r"), kind)
    priority = PRIORITY if kind is QueueKind.PRIORITY else 0

    assert history_of(message.properties) == BEFORE._replace(number=6)
    assert (message.queue, message.delay_s) == (NAMES.work, 0.0)
    assert message.properties.priority == returned_rank(kind, priority)
