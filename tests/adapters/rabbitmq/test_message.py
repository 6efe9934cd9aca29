"""A job as a message of RabbitMQ's: its history comes back as it was, and what others wrote is harmless."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from mindtrace.jobs.adapters.rabbitmq.message import (
    HEADER,
    DeathRecord,
    DeliveryHistory,
    dead_letter,
    dead_properties,
    fresh_properties,
    history_of,
    id_of,
    moved_properties,
    revived_properties,
)
from mindtrace.jobs.adapters.rabbitmq.transport.frames import (
    AROUND,
    Properties,
    message_frames,
    read_properties,
)
from mindtrace.jobs.domain import QueueKind
from mindtrace.jobs.domain.bounds import MAX_ERROR_CHARS, MAX_FAILURE_CHARS

COUNTS = st.integers(0, 10**6)
TEXTS = st.text(max_size=300)
FRAME_MAX = 131_072
HISTORIES = st.builds(
    DeliveryHistory,
    st.integers(1, 10**6),
    COUNTS,
    COUNTS,
    st.lists(st.tuples(st.integers(1, 10**6), TEXTS.filter(str.isprintable)), max_size=10).map(tuple),
)


@given(HISTORIES, st.sampled_from([QueueKind.FIFO, QueueKind.PRIORITY]), st.booleans())
def test_a_history_survives_a_move(history: DeliveryHistory, kind: QueueKind, returned: bool) -> None:
    """Attempts, deliveries, crashes and history (SET-2, SET-4)."""
    assert (
        history_of(moved_properties("id", kind, 3, history, frame_max=FRAME_MAX, returned=returned))
        == history
    )


@given(HISTORIES, COUNTS)
def test_what_the_broker_counted_is_added(history: DeliveryHistory, crashes: int) -> None:
    """It counts what came back by itself: as deliveries, and as crashes (RTY-3)."""
    properties = moved_properties("id", QueueKind.FIFO, 0, history, frame_max=FRAME_MAX)
    properties.headers["x-delivery-count"] = crashes
    found = history_of(properties)

    assert (found.number - history.number, found.crashes - history.crashes) == (crashes, crashes)


@given(HISTORIES, st.text(max_size=20), st.integers(0, 9), st.integers(0, 4_000_000_000_000))
def test_a_dead_letter_tells_all(history: DeliveryHistory, reason: str, priority: int, died_ms: int) -> None:
    """And its job begins anew with the priority that it had (SET-3, DLQ-2)."""
    properties = dead_properties(
        "id", history, DeathRecord(reason, "no good", died_ms, priority), frame_max=FRAME_MAX
    )
    letter = dead_letter(properties, b"body")

    assert (letter.id, letter.body, letter.error) == ("id", b"body", "no good")
    assert (letter.attempt, letter.crashes) == (history.attempt, history.crashes)
    assert [(failure.attempt, failure.error) for failure in letter.history] == list(history.failures)
    assert round(letter.died_at.timestamp() * 1000) == died_ms
    revived = revived_properties(properties, QueueKind.PRIORITY)
    assert (revived.message_id, revived.priority, revived.headers) == ("id", 2 * priority, None)


def test_a_job_that_nothing_happened_to_is_its_body_and_its_id() -> None:
    """Nothing is written, and nothing is to be read."""
    assert fresh_properties("id", 0).headers is None
    assert history_of(fresh_properties("id", 0)) == DeliveryHistory()


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
    history = history_of(properties)
    letter = dead_letter(properties, b"")

    assert history.attempt >= 1
    assert min(history.number, history.crashes, letter.crashes) >= 0
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
    assert history_of(Properties(headers={HEADER: header})) == DeliveryHistory()


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


@pytest.mark.parametrize("frame_max", [4096, 8192, FRAME_MAX])
@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", "\x00", "\ud800", '"'])
def test_errors_are_cut_so_that_a_message_fits_into_its_frame(frame_max: int, letter: str) -> None:
    """A longer header would end the connection. No attempt is left out, and each error keeps its end."""
    history = DeliveryHistory()
    for _ in range(20):
        history = history.failed(letter * 10**4 + "end")
    name, longest = "i" * 255, frame_max - AROUND
    moved = moved_properties(name, QueueKind.PRIORITY, 9, history, frame_max=frame_max)
    dead = dead_properties(
        name, history, DeathRecord("r" * 10**4, history.failures[0][1], 0, 9), frame_max=frame_max
    )
    for properties in (moved, dead):
        headers = properties.headers | {f"mindtrace-after-{level}": "24" for level in range(30)}
        assert message_frames(1, "", "key", properties._replace(headers=headers), b"", longest)

    assert history_of(moved).attempt == 21
    letter_ = dead_letter(dead, b"")
    for failures in (history_of(moved).failures, [(one.attempt, one.error) for one in letter_.history]):
        assert [attempt for attempt, _ in failures] == list(range(11, 21))
        assert all("end".endswith(error[-3:].lstrip("…")) for _, error in failures)
    assert letter_.error.endswith("end")
    assert letter_.reason.endswith("r")


def test_errors_that_fit_are_not_cut() -> None:
    history = DeliveryHistory()
    for number in range(10):
        history = history.failed(str(number) * MAX_ERROR_CHARS)
    assert history_of(moved_properties("id", QueueKind.FIFO, 0, history, frame_max=FRAME_MAX)) == history
    death = DeathRecord("rejected", "x" * MAX_FAILURE_CHARS, 0, 0)
    letter = dead_letter(dead_properties("id", history, death, frame_max=FRAME_MAX), b"")
    assert letter.error == death.error
    assert [failure.error for failure in letter.history] == [error for _, error in history.failures]


@pytest.mark.parametrize(
    ("ttl_s", "ttl_ms"), [(None, None), (1e-6, 1), (1.5, 1500), (366 * 86_400.0, 31_622_400_000)]
)
def test_a_dead_letter_is_kept_by_the_broker_for_its_time(ttl_s: float | None, ttl_ms: int | None) -> None:
    """And a job that is redriven has none any more."""
    death = DeathRecord("rejected", "no good", 0, 0)
    properties = dead_properties("id", DeliveryHistory(), death, frame_max=FRAME_MAX, ttl_s=ttl_s)
    assert properties.ttl_ms == ttl_ms
    assert revived_properties(properties, QueueKind.FIFO).ttl_ms is None


def came(headers: dict[str, Any], **properties: Any) -> Properties:
    """What is read of what another client, or the broker, wrote."""
    written = b"".join(BasicProperties(headers=headers, **properties).encode())
    return read_properties(written, 0, len(written))


def test_what_the_broker_took_out_of_a_queue_says_so() -> None:
    """Why, whence and when; with the history that the job had, and the priority it begins anew with."""
    history = DeliveryHistory(2, 3, 1, ((1, "no"),))
    ours = moved_properties("job", QueueKind.PRIORITY, 4, history, frame_max=FRAME_MAX)
    died_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    deaths = [{"count": 1, "reason": "expired", "queue": "mtj:n/q", "time": died_at}, {"time": died_at}]
    properties = came(
        ours.headers | {"x-death": deaths, "x-last-death-reason": "expired", "x-last-death-queue": "mtj:n/q"},
        message_id="job",
        priority=ours.priority,
    )
    letter = dead_letter(properties, b"body")

    assert (letter.reason, letter.died_at, letter.attempt, letter.crashes) == (
        "removed by the broker",
        died_at,
        2,
        1,
    )
    assert "'mtj:n/q'" in letter.error
    assert "message-ttl" in letter.error
    assert [(one.attempt, one.error) for one in letter.history] == [(1, "no")]
    assert revived_properties(properties, QueueKind.PRIORITY) == Properties("job", ours.priority)


@pytest.mark.parametrize("deaths", [None, 5, "x", [], [5], [[]], [{}], [{"time": "x"}], [{"time": 2**62}]])
def test_deaths_that_lie_have_no_time(deaths: Any) -> None:
    letter = dead_letter(came({"x-death": deaths, "x-last-death-reason": "rejected"}), b"")
    assert (letter.reason, letter.died_at.timestamp()) == ("removed by the broker", 0)


@pytest.mark.parametrize(
    ("properties", "error"),
    [
        (Properties("x"), "somebody else put it there"),
        (Properties("x", headers={"x-last-death-reason": 5}), "somebody else put it there"),
        (Properties("x", fault="header 'h' is cut off"), "can't be read: header 'h' is cut off"),
    ],
)
def test_a_dead_letter_that_is_none_of_ours_is_malformed(properties: Properties, error: str) -> None:
    """Also if somebody put it there whose properties nobody can read."""
    letter = dead_letter(properties, b"?")
    assert (letter.id, letter.reason, letter.body) == ("x", "malformed", b"?")
    assert error in letter.error


def test_a_history_that_lies_is_bounded() -> None:
    """However long an error somebody wrote, and whatever no terminal can print."""
    header = json.dumps([1, 0, 0, [[1, "\ud800" + "x" * 10**5]]])
    ((_, error),) = history_of(Properties(headers={HEADER: header})).failures
    assert len(error) == MAX_FAILURE_CHARS
    assert error.encode()
