"""What a queue is made of in RabbitMQ: names that fit, ranks in their order."""

import pytest

from mindtrace.jobs.adapters.rabbitmq.delays import LEVELS, all_levels
from mindtrace.jobs.adapters.rabbitmq.topology import (
    Names,
    conflict,
    fresh_rank,
    priority_of,
    returned_rank,
    work_arguments,
)
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.bounds import MAX_PRIORITY


def test_the_longest_names_fit() -> None:
    """RabbitMQ takes 255 bytes."""
    names = Names("n" * 96, "q" * 128)
    levels = [levels.level(LEVELS - 1) for levels in all_levels(names)]
    every = [
        names.work,
        names.dead,
        names.alive,
        names.stray,
        names.changing,
        names.reading,
        *levels,
        names.delays,
    ]

    assert max(map(len, every)) <= 255
    assert len(set(every)) == len(every)


def test_namespaces_and_queues_never_meet() -> None:
    """A slash and a colon are in no name of ours."""
    assert Names("a", "b").work != Names("a.b", "").work
    assert Names("a", "b").dead != Names("a", "b.dead").work
    assert Names("a", "b").delays == Names("a", "c").delays != Names("b", "b").delays


def test_what_came_back_goes_before_its_equals_and_behind_its_betters() -> None:
    """Each priority has a rank for those that came back, between it and the next (ORD-3, ORD-4)."""
    kind = QueueKind.PRIORITY
    ranks = [rank(kind, n) for n in range(MAX_PRIORITY + 1) for rank in (fresh_rank, returned_rank)]

    assert ranks == list(range(2 * MAX_PRIORITY + 2))
    assert work_arguments(Names("n", "q"), kind)["x-max-priority"] == max(rank or 0 for rank in ranks)
    assert [priority_of(kind, rank) for rank in ranks] == [n // 2 for n in range(len(ranks))]


@pytest.mark.parametrize(("kind", "rank"), [(QueueKind.PRIORITY, 255), (QueueKind.FIFO, 255)])
def test_a_rank_that_somebody_else_chose_is_some_priority(kind: QueueKind, rank: int) -> None:
    """What AMQP has room for doesn't break what the domain allows."""
    assert 0 <= priority_of(kind, rank) <= MAX_PRIORITY
    assert returned_rank(kind, priority_of(kind, rank)) <= 255


def test_a_conflict_tells_the_difference() -> None:
    """Of kinds, in our words; of anything else, in the server's (ADM-1)."""
    said = "inequivalent arg '{}' for queue 'q' in vhost '/': received {} but current is {}"
    classic = said.format("x-queue-type", "'quorum'", "'classic'")
    quorum = said.format("x-queue-type", "'classic'", "'quorum'")
    ranked = said.format("x-max-priority", "none", "the value '19' of type 'signedint'")
    strategy = said.format("x-dead-letter-strategy", "none", "the value 'at-least-once' of type 'longstr'")

    assert "has the type priority, not fifo" in str(conflict(Queue("q"), classic))
    assert "has the type priority, not fifo" in str(conflict(Queue("q"), ranked))
    assert "has the type fifo, not priority" in str(conflict(Queue("q", QueueKind.PRIORITY), quorum))
    assert "has the type fifo, not priority" in str(conflict(Queue("q", QueueKind.PRIORITY), strategy))
    assert "x-delivery-limit" in str(conflict(Queue("q"), "inequivalent arg 'x-delivery-limit'"))
