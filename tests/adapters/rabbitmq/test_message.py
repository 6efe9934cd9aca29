"""A job as a message of RabbitMQ's: its past comes back as it was, and what others wrote is harmless."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs.adapters.rabbitmq.frames import Properties
from mindtrace.jobs.adapters.rabbitmq.message import (
    HEADER,
    Death,
    Past,
    dead_letter,
    dead_properties,
    fresh_properties,
    id_of,
    moved_properties,
    past_of,
    revived_properties,
)
from mindtrace.jobs.domain import QueueKind

COUNTS = st.integers(0, 10**6)
TEXTS = st.text(max_size=300)
PASTS = st.builds(
    Past,
    st.integers(1, 10**6),
    COUNTS,
    COUNTS,
    st.lists(st.tuples(st.integers(1, 10**6), TEXTS.filter(str.isprintable)), max_size=10).map(tuple),
)


@given(PASTS, st.sampled_from([QueueKind.FIFO, QueueKind.PRIORITY]), st.booleans())
def test_a_past_survives_a_move(past: Past, kind: QueueKind, returned: bool) -> None:
    """Attempts, deliveries, crashes and history (SET-2, SET-4)."""
    assert past_of(moved_properties("id", kind, 3, past, returned=returned)) == past


@given(PASTS, COUNTS)
def test_what_the_broker_counted_is_added(past: Past, crashes: int) -> None:
    """It counts what came back by itself: as deliveries, and as crashes (RTY-3)."""
    properties = moved_properties("id", QueueKind.FIFO, 0, past)
    properties.headers["x-delivery-count"] = crashes
    found = past_of(properties)

    assert (found.number - past.number, found.crashes - past.crashes) == (crashes, crashes)


@given(PASTS, st.text(max_size=20), st.integers(0, 9), st.integers(0, 4_000_000_000_000))
def test_a_dead_letter_tells_all(past: Past, reason: str, priority: int, died_ms: int) -> None:
    """And its job begins anew with the priority that it had (SET-3, DLQ-2)."""
    properties = dead_properties("id", past, Death(reason, "no good", died_ms, priority))
    letter = dead_letter(properties, b"body")

    assert (letter.id, letter.body, letter.error) == ("id", b"body", "no good")
    assert (letter.attempt, letter.crashes) == (past.attempt, past.crashes)
    assert [(failure.attempt, failure.error) for failure in letter.history] == list(past.history)
    assert round(letter.died_at.timestamp() * 1000) == died_ms
    revived = revived_properties(properties, QueueKind.PRIORITY)
    assert (revived.message_id, revived.priority, revived.headers) == ("id", 2 * priority, None)


def test_a_job_that_nothing_happened_to_is_its_body_and_its_id() -> None:
    """Nothing is written, and nothing is to be read."""
    assert fresh_properties("id", 0).headers is None
    assert past_of(fresh_properties("id", 0)) == Past()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
JSON_LIKE = st.lists(
    st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text()), max_size=9
)


@given(ANYTHING | JSON_LIKE.map(repr) | st.binary(), ANYTHING)
def test_no_header_of_others_breaks_anything(header: Any, count: Any) -> None:
    """What isn't ours says nothing, and everything that is read of it is in bounds (SEC-2)."""
    properties = Properties(headers={HEADER: header, "x-delivery-count": count})
    past = past_of(properties)
    letter = dead_letter(properties, b"")

    assert past.attempt >= 1
    assert min(past.number, past.crashes, letter.crashes) >= 0
    assert 0 <= revived_properties(properties, QueueKind.PRIORITY).priority <= 18


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"[Infinity,0,0,[]]",
        b"[1,0,0,[]",
        b'[1,0,0,[],"r","e",1e300,0]',
        b"[0,0,0,[]]",
        None,
        7,
    ],
)
def test_a_header_that_lies_says_nothing(header: Any) -> None:
    """Too deep, endless, torn, out of bounds, of another type."""
    assert past_of(Properties(headers={HEADER: header})) == Past()


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        (None, "unnamed"),
        ("", "unnamed"),
        (b"\xff", "\\xff"),
        (b"\xff" * 255, ("\\xff" * 255)[:255]),
        ("job", "job"),
    ],
)
def test_every_message_has_an_id(name: Any, id_: str) -> None:
    """Whatever somebody else called it, or didn't."""
    assert id_of(Properties(message_id=name)) == id_


def test_errors_are_bounded_so_that_a_message_fits_into_its_frame() -> None:
    """A frame has 128 KiB, and a header that is larger would end the connection."""
    past = Past()
    for _ in range(20):
        past = past.failed("ü\ud800" * 10**6)
    encoded = dead_properties("id", past, Death("r" * 10**6, "e" * 10**6, 0, 0)).headers[HEADER]

    assert len(encoded) <= 100 * 1024
    assert len(past.history) == 10
    assert past_of(Properties(headers={HEADER: encoded})).attempt == 21
