"""Who waits for many results on a real Redis learns of every end, also after it was away for long."""

import secrets
import time

import pytest

from brokers.redis_server import Address
from mindtrace.jobs import Queue
from mindtrace.jobs.adapters.redis import ended_jobs
from mindtrace.jobs.ports import Ack, Message


def test_who_announced_itself_too_late_is_told_to_look_all_up(
    redis_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wake-ups are sent only while somebody waits; another who does hides no gap."""
    with redis_address.client(f"test-{secrets.token_hex(4)}") as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message(f"job-{n}", b"{}") for n in range(5)])
        consumer = client.open_consumer("jobs")

        def end_one() -> str:
            (delivery,) = consumer.receive(1, 60.0)
            consumer.settle([Ack(delivery.receipt)])
            return delivery.id

        with client.ended_jobs("jobs") as late, client.ended_jobs("jobs") as other:
            end_one()
            assert late.wait(60.0) is None  # there was no wake-up to go on from
            id_ = end_one()
            monkeypatch.setattr(ended_jobs, "_MARGIN_MS", 0)
            assert late.wait(0.05) == [id_]
            time.sleep(0.1)  # its announcement is over, by the server's clock
            end_one()
            monkeypatch.setattr(ended_jobs, "_MARGIN_MS", 600_000)
            other.wait(0.01)
            end_one()
            assert late.wait(60.0) is None
            id_ = end_one()
            assert late.wait(60.0) == [id_]
        client.delete("jobs")
