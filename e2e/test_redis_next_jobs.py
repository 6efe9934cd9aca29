"""Acks that publish the next jobs on Redis: replies that are lost or late, and a server that is full."""

from collections.abc import Iterator

import pytest

from background import Background
from brokers.proxy import Disruption
from conditions import eventually
from mindtrace.jobs import ConsumerBackend, QueueCounts
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import SETTLE_PUBLISH_AND_TAKE
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Dead, Message, Next, SettleOutcome

from .test_redis_lost_replies import Line, line

__all__ = ["line"]  # a fixture

SCRIPT = SETTLE_PUBLISH_AND_TAKE.sha.encode()
OK, ALREADY, REFUSED = SettleOutcome.OK, SettleOutcome.ALREADY, SettleOutcome.REFUSED


def chained(receipt: str, *ids: str) -> Ack:
    return Ack(receipt, then=tuple(Next("next", Message(id_, b"{}")) for id_ in ids))


def ids_in_next(line: Line) -> list[str]:
    with line.backend.open_consumer("next") as consumer:
        return [delivery.id for delivery in consumer.receive(100, 0.0)]


@pytest.fixture
def consumer(line: Line) -> Iterator[ConsumerBackend]:
    line.backend.declare(Queue("next"))
    with line.backend.open_consumer("jobs") as consumer:
        yield consumer


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])
def test_a_chained_ack_whose_reply_is_lost_counts_once(
    line: Line, consumer: ConsumerBackend, how: Disruption
) -> None:
    """It is sent again and answered as the first time, with what was taken along (THEN-2, CON-1)."""
    line.publish("a", "b")
    (delivery,) = consumer.receive(1, 0.0)
    line.proxy.disrupt_next(SCRIPT, how)

    outcomes, taken = consumer.settle([chained(delivery.receipt, "next")], take=1)

    assert line.proxy.disrupted == 1
    assert (outcomes, [each.id for each in taken]) == ([OK], ["b"])
    assert ids_in_next(line) == ["next"]


def test_a_chained_ack_that_was_never_answered_is_known_when_it_is_asked_for(
    line: Line, consumer: ConsumerBackend
) -> None:
    """It was carried out: then what is sent in its place publishes nothing more, and what it took is back."""
    line.publish("a", "b")
    (delivery,) = consumer.receive(1, 0.0)
    line.proxy.disrupt_next(SCRIPT, Disruption.SILENCE, times=100)
    with line.with_a_short_retry_timeout(), pytest.raises(BackendUnavailable):
        consumer.settle([chained(delivery.receipt, "first")], take=1)
    line.proxy.stop_disrupting()

    assert consumer.settle([chained(delivery.receipt, "second")]).outcomes == [ALREADY]
    assert ids_in_next(line) == ["first"]
    assert line.backend.counts("jobs") == QueueCounts(1, 0, 0, 0)
    (again,) = consumer.receive(1, 0.0)
    assert (again.id, again.crashes) == ("b", 0)


def test_a_chained_ack_that_arrives_after_it_was_given_up_publishes_nothing(
    line: Line, consumer: ConsumerBackend
) -> None:
    """It wasn't carried out, so it is sent anew; when the first one arrives, it is late."""
    line.publish("a")
    (delivery,) = consumer.receive(1, 0.0)
    line.proxy.disrupt_next(SCRIPT, Disruption.HOLD, times=100)
    with line.with_a_short_retry_timeout(), pytest.raises(BackendUnavailable):
        consumer.settle([chained(delivery.receipt, "first")])
    line.proxy.stop_disrupting()

    assert consumer.settle([chained(delivery.receipt, "second")]).outcomes == [OK]
    line.release()

    assert ids_in_next(line) == ["second"]


def test_a_full_server_refuses_next_jobs_and_settles_all_others(
    line: Line, consumer: ConsumerBackend
) -> None:
    """These jobs are held still, and settled when there is room again (THEN-3)."""
    line.publish("a", "b", "c", "d", "e")
    a, b, c, d, e = consumer.receive(5, 0.0)
    death = Dead(d.receipt, "rejected", "no good", chained(d.receipt, "alert").then)
    with line.server.admin() as admin:
        admin.config_set("maxmemory", 1)
        settlements = [Ack(a.receipt), chained(b.receipt, "next"), Ack(c.receipt, b"{}"), death]
        outcomes = consumer.settle([*settlements, Dead(e.receipt, "rejected", "no good")]).outcomes
        assert outcomes == [OK, REFUSED, OK, REFUSED, OK]
        admin.config_set("maxmemory", 0)
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 2, 1)

    assert consumer.settle([chained(b.receipt, "next"), death]).outcomes == [OK, OK]
    assert ids_in_next(line) == ["next", "alert"]


def test_memory_that_runs_out_after_a_reply_was_lost_changes_nothing(
    line: Line, consumer: ConsumerBackend
) -> None:
    """The refusal is of the repetition: the first try was carried out, and that is found out."""
    line.publish("a")
    (delivery,) = consumer.receive(1, 0.0)
    line.proxy.disrupt_next(SCRIPT, Disruption.SILENCE)
    line.proxy.disrupt_next(SCRIPT, Disruption.HOLD, times=1000)
    with Background() as thread, line.server.admin() as admin:
        answered = thread.submit(consumer.settle, [chained(delivery.receipt, "next")])
        body = QueueKeys("default", "next").body
        eventually(lambda: admin.hlen(body) == 1, "the next job is there")
        admin.config_set("maxmemory", 1)
        line.proxy.stop_disrupting()
        assert answered.result().outcomes == [ALREADY]
        admin.config_set("maxmemory", 0)
    assert ids_in_next(line) == ["next"]
