"""RabbitMQ with a borrowed coordination store: what publishers decide together, and where the store is."""

import secrets
import threading
from collections.abc import Iterator

import pytest

from background import Background
from brokers.rabbitmq_server import Address
from conditions import LIMIT_S
from mindtrace.jobs import LocalClient, PublishOutcome, PublishStatus, RabbitMQClient
from mindtrace.jobs.application.broker.guarded_publish import publish_guarded
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import ABSENT, Guard, Message

QUEUE = "guarded"
PUBLISHERS = 2
KEYS = [f"schedules/nightly/{number}" for number in range(200)]


@pytest.fixture
def namespace() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def client(rabbitmq_address: Address, namespace: str) -> Iterator[RabbitMQClient]:
    """A client of the queue, which its tests share with others of the namespace."""
    with rabbitmq_address.client(namespace, retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def test_of_publishers_that_race_one_publishes_each_job(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """At every key they start together: one is answered, the other kept out, and none publishes twice."""
    together = threading.Barrier(PUBLISHERS, timeout=LIMIT_S)

    def publish_all(publisher: int) -> list[PublishOutcome | None]:
        with rabbitmq_address.client(namespace, store=lender.coordination, retry_timeout_s=LIMIT_S) as mine:
            outcomes = []
            for number, key in enumerate(KEYS):
                guard = Guard(key, ABSENT, str(publisher).encode())
                together.wait()
                outcomes.append(publish_guarded(mine, QUEUE, Message(f"{number}.{publisher}", b"{}"), guard))
            return outcomes

    with LocalClient() as lender, Background() as threads:
        answers = threads.map(publish_all, range(PUBLISHERS))
        with rabbitmq_address.client(namespace, store=lender.coordination) as any_of_them:
            records = any_of_them.coordination.scan("")

    winners = [[answer for answer in of_key if answer is not None] for of_key in zip(*answers, strict=True)]
    assert [[answer.status for answer in of_key] for of_key in winners] == [[PublishStatus.ACCEPTED]] * len(
        KEYS
    )
    assert records.keys() == set(KEYS), "no claim is left"
    assert [f"{number}.{records[key].value.decode()}" for number, key in enumerate(KEYS)] == [
        of_key[0].id for of_key in winners
    ]
    assert client.counts(QUEUE).ready == len(KEYS)
