"""Delays in RabbitMQ: never early, at most one unit late, and each hop leads to one queue."""

from fractions import Fraction
from unittest.mock import ANY, MagicMock, call

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs.adapters.rabbitmq import admin
from mindtrace.jobs.adapters.rabbitmq.delays import DELAY_UNIT_S, LEVELS, DelayLevels, levels_of, route
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.domain.bounds import MAX_DELAY_S

NAMES = Names("n", "q")


def waited_ms(levels: DelayLevels, level: int, headers: dict[str, str]) -> int:
    """Carry a message down the levels, as a headers exchange does, and return how long it waited."""
    numbers = {levels.level(number): number for number in range(LEVELS)}
    at, waited = levels.level(level), 0
    while at != NAMES.work:
        arguments = levels.arguments(numbers[at])
        waited += arguments["x-message-ttl"]
        assert arguments["x-dead-letter-exchange"] == at
        matching = [
            queue
            for queue, wanted in levels.hops(numbers[at]).items()
            if all(headers.get(name) == value for name, value in wanted.items())
        ]
        assert len(matching) == 1, "each level leads a message one way, and one only"
        (at,) = matching
    return waited


@pytest.mark.parametrize("priority", [None, 18])
@given(seconds=st.floats(min_value=0, max_value=MAX_DELAY_S, exclude_min=True, allow_subnormal=False))
def test_a_delay_is_never_early_and_at_most_one_unit_late(priority: int | None, seconds: float) -> None:
    """By way of every level that its headers name (DLY-1, DLY-2)."""
    level, headers = route(seconds)
    waited = Fraction(waited_ms(levels_of(NAMES, priority), level, headers), 1000)

    assert 0 <= waited - Fraction(seconds) < Fraction(DELAY_UNIT_S)


@pytest.mark.parametrize("seconds", [1e-9, DELAY_UNIT_S, DELAY_UNIT_S + 1e-9, 1.0, 3600.0, MAX_DELAY_S])
def test_the_bounds_of_delays_have_a_level(seconds: float) -> None:
    """The longest delay needs the highest there is, and the shortest the lowest."""
    assert 0 <= route(seconds).level < LEVELS
    assert route(1e-9).level == 0
    assert route(MAX_DELAY_S).level == LEVELS - 1


def test_a_level_leads_only_to_lower_ones_and_to_the_queue() -> None:
    """Made from the bottom, a level never leads to a queue that doesn't exist yet."""
    levels = levels_of(NAMES, None)
    for number in range(LEVELS):
        below = {levels.level(lower) for lower in range(number)}
        assert levels.hops(number).keys() == below | {NAMES.work}


def test_a_level_is_out_of_reach_before_it_is_deleted() -> None:
    """RabbitMQ 4.0.5 closes the connection of a client that publishes to a queue while it is deleted."""
    levels, channel = DelayLevels(NAMES, high=False), MagicMock()
    name = levels.level(3)

    admin._delete_level(levels, 3, channel, lambda _deleted: None)

    told = [one for one in channel.method_calls if one[0] in ("queue_unbind", "queue_delete")]
    assert told == [call.queue_unbind(name, NAMES.delays, name), call.queue_delete(name, callback=ANY)]


def test_a_level_is_in_reach_once_it_and_those_below_exist() -> None:
    """A message that comes in finds its way on."""
    levels, channel = DelayLevels(NAMES, high=False), MagicMock()

    levels.declare(2, channel)

    told = channel.method_calls
    made = [told.index(call.queue_declare(levels.level(n), durable=True, arguments=ANY)) for n in range(3)]
    opened = [told.index(call.queue_bind(levels.level(n), NAMES.delays, levels.level(n))) for n in range(3)]
    assert max(made) < min(opened)


@pytest.mark.parametrize(("priority", "high"), [(None, False), (0, False), (4, False), (6, True), (18, True)])
def test_messages_that_rabbitmq_serves_first_have_levels_of_their_own(
    priority: int | None, high: bool
) -> None:
    """A quorum queue serves priorities above 4 before the others (DLY-3)."""
    assert levels_of(NAMES, priority).high is high
