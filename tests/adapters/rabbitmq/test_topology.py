"""What a queue is made of in RabbitMQ: names that fit, delays never early, ranks in their order."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs.adapters.rabbitmq.topology import (
    DELAY_UNIT_S,
    LEVELS,
    Names,
    conflict,
    delay_of,
    fresh_rank,
    ladder,
    priority_of,
    returned_rank,
    work_arguments,
)
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.limits import MAX_DELAY_S, MAX_PRIORITY

LADDER = {level.name: level for level in ladder(Names("n", "q"), LEVELS - 1)}


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange of RabbitMQ routes ``key`` along a binding of ``pattern``."""
    words, keys = pattern.split("."), key.split(".")
    if words[-1] != "#":
        return len(words) == len(keys) and all(w in ("*", k) for w, k in zip(words, keys, strict=True))
    words = words[:-1]
    return len(words) <= len(keys) and all(w in ("*", k) for w, k in zip(words, keys, strict=False))


def waited_units(level: int, key: str) -> int:
    """Carry a message down the levels, as the broker does, and return how long it waited."""
    names, units = Names("n", "q"), 0
    at = names.delay(level)
    while at != names.due:
        here = LADDER[at]
        waits, passes = matches(here.wait_key, key), matches(here.pass_key, key)
        assert waits != passes, "each level takes a message one way, and one only"
        if waits:
            ttl_ms = here.arguments["x-message-ttl"]
            units += ttl_ms // round(DELAY_UNIT_S * 1000)
            assert here.arguments["x-dead-letter-exchange"] == here.below
        at = here.below
    return units


@given(st.floats(min_value=0, max_value=MAX_DELAY_S, exclude_min=True, allow_subnormal=False))
def test_a_delay_is_never_early_and_at_most_one_unit_late(seconds: float) -> None:
    """By way of every level that its key names (DLY-1, DLY-2)."""
    delay = delay_of(seconds)
    waited = Fraction(waited_units(delay.level, delay.key)) * Fraction(DELAY_UNIT_S)

    assert 0 <= waited - Fraction(seconds) < Fraction(DELAY_UNIT_S)


@pytest.mark.parametrize("seconds", [1e-9, DELAY_UNIT_S, DELAY_UNIT_S + 1e-9, 1.0, 3600.0, MAX_DELAY_S])
def test_the_bounds_of_delays_have_a_level(seconds: float) -> None:
    """The longest delay needs the highest there is, and the shortest the lowest."""
    assert 0 <= delay_of(seconds).level < LEVELS
    assert delay_of(1e-9).level == 0
    assert delay_of(MAX_DELAY_S).level == LEVELS - 1


def test_the_longest_names_fit() -> None:
    """RabbitMQ takes 255 bytes, topic keys included."""
    names = Names("n" * 96, "q" * 128)
    every = [names.work, names.dead, names.life, names.due, names.reading, names.delay(LEVELS - 1)]

    assert max(map(len, every)) <= 255
    assert len(set(every)) == len(every)
    assert len(delay_of(MAX_DELAY_S).key) <= 255


def test_namespaces_and_queues_never_meet() -> None:
    """A slash and a colon are in no name of ours."""
    assert Names("a", "b").work != Names("a.b", "").work
    assert Names("a", "b").dead != Names("a", "b.dead").work


def test_what_came_back_goes_before_its_equals_and_behind_its_betters() -> None:
    """Each priority has a rank for those that came back, between it and the next (ORD-3, ORD-4)."""
    kind = QueueKind.PRIORITY
    ranks = [rank(kind, n) for n in range(MAX_PRIORITY + 1) for rank in (fresh_rank, returned_rank)]

    assert ranks == list(range(2 * MAX_PRIORITY + 2))
    assert work_arguments(kind)["x-max-priority"] == max(rank or 0 for rank in ranks)
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

    assert "exists as priority, not fifo" in conflict(Queue("q"), classic)
    assert "exists as priority, not fifo" in conflict(Queue("q"), ranked)
    assert "exists as fifo, not priority" in conflict(Queue("q", QueueKind.PRIORITY), quorum)
    assert "x-delivery-limit" in conflict(Queue("q"), "inequivalent arg 'x-delivery-limit'")
