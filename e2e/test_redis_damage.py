"""Records in Redis that are damaged, foreign or very many: each costs itself alone.

A plain driver damages them, in a namespace of the test's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis

from brokers.redis_server import Address
from mindtrace.jobs import RedisClient
from mindtrace.jobs.adapters.redis.connections import Argument
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import Script
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.ports import Ack, Dead, Message


@dataclass(frozen=True)
class Bed:
    """One queue, and a plain driver to damage it with."""

    client: RedisClient
    admin: Redis
    keys: QueueKeys

    def declare(self, kind: QueueKind = QueueKind.FIFO) -> None:
        self.client.declare(Queue("jobs", kind))

    def publish(self, *ids: str, body: bytes = b"{}") -> None:
        self.client.publish("jobs", [Message(id_, body) for id_ in ids])

    def drain(self) -> list[str]:
        """Take and ack what there is, and return the ids."""
        ids = []
        with self.client.open_consumer("jobs") as consumer:
            while deliveries := consumer.receive(100, 0.0):
                ids += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
        return ids

    def bury(self) -> None:
        """Let all that there is die."""
        with self.client.open_consumer("jobs") as consumer:
            while deliveries := consumer.receive(500, 0.0):
                consumer.settle([Dead(delivery.receipt, "rejected", "no") for delivery in deliveries])


@pytest.fixture
def bed(redis_address: Address) -> Iterator[Bed]:
    namespace = f"damage-{token_hex(4)}"
    with redis_address.client(namespace) as client, redis_address.admin() as admin:
        bed = Bed(client, admin, QueueKeys(namespace, "jobs"))
        bed.declare()
        yield bed
        client.delete("jobs")


# -- listings of any size -------------------------------------------------------------------------


def test_more_dead_letters_are_listed_than_a_script_can_return_at_once(bed: Bed) -> None:
    """Lua returns at most some 8,000 values of a call."""
    ids = [f"job-{number}" for number in range(8_200)]
    bed.publish(*ids)
    bed.bury()

    assert [letter.id for letter in bed.client.dead_letters("jobs", limit=10_000)] == ids
    assert [letter.id for letter in bed.client.dead_letters("jobs", limit=8_100, offset=50)] == ids[50:8_150]


def test_large_dead_letters_are_listed_a_few_at_a_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the server nor the client needs the memory for all of their bodies at once."""
    ids = [f"job-{number}" for number in range(12)]
    bed.publish(*ids, body=b"x" * 1024 * 1024)
    bed.bury()
    link, pages = bed.client._link, list[int]()
    run = link.run

    def spy(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        answer = run(script, keys, arguments)
        pages.append(len(answer[1]))
        return answer

    monkeypatch.setattr(link, "run", spy)

    assert [letter.id for letter in bed.client.dead_letters("jobs")] == ids
    assert pages == [5, 5, 2]
