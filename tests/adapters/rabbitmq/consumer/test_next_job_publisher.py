"""The next jobs of acks, where the broker confirms some and not others."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs.adapters.rabbitmq.consumer.next_job_publisher import NextJobPublisher
from mindtrace.jobs.domain.errors import BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Ack, Message, Next, PublishOutcome, PublishStatus

PLACED: Any = (0, None)


class Broker:
    """Takes messages into all queues but those of ``errors``."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.errors: dict[str, Exception] = {}

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if queue in self.errors:
            raise self.errors[queue]
        self.published += [message.id for message in messages]
        return [PublishOutcome(message.id, PublishStatus.ACCEPTED) for message in messages]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def publisher(broker: Broker) -> NextJobPublisher:
    return NextJobPublisher(broker.publish, logging.getLogger("test"))


def ack(**steps: str) -> Ack:
    """Return an ack whose next jobs go into the queues by these names, under these ids."""
    return Ack("receipt", then=tuple(Next(queue, Message(id_, b"")) for queue, id_ in steps.items()))


def test_a_next_job_that_is_confirmed_is_not_published_again_with_the_next_try(
    broker: Broker, publisher: NextJobPublisher
) -> None:
    broker.errors = {"full": BackendUnavailable("full")}
    chained = [(PLACED, ack(free="first", full="second"))]
    for _ in range(3):
        assert publisher.publish(chained).open == [PLACED]
    broker.errors = {}
    assert publisher.publish(chained).confirmed == [PLACED]

    assert broker.published == ["first", "second"]
    assert not publisher._confirmed


def test_nothing_is_remembered_of_an_ack_that_is_refused(broker: Broker, publisher: NextJobPublisher) -> None:
    broker.errors = {"missing": QueueNotFound("missing")}

    assert publisher.publish([(PLACED, ack(free="first", missing="second"))]).refused == [PLACED]
    assert not publisher._confirmed


def test_an_ack_whose_confirmed_next_job_is_another_by_now_publishes_it(
    broker: Broker, publisher: NextJobPublisher
) -> None:
    broker.errors = {"full": BackendUnavailable("full")}
    publisher.publish([(PLACED, ack(free="first", full="second"))])
    publisher.publish([(PLACED, ack(free="other", full="second"))])

    assert broker.published == ["first", "other"]
