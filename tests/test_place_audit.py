"""The audit of limits: it sees one place too many, and takes nothing for one that may be none."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from mindtrace.jobs import LocalClient
from mindtrace.jobs.ports import Place
from place_audit import Answer, PlaceLog, most_at_once


def taken(holder: str, at: float, ttl_s: float = 10.0) -> Answer:
    return Answer("key", holder, at, at + 0.1, ttl_s)


def left(holder: str, at: float) -> Answer:
    return Answer("key", holder, at, at + 0.1, None)


def test_holders_at_the_same_time_are_counted() -> None:
    assert most_at_once([taken("a", 0), taken("b", 5), taken("c", 20)]) == {"key": 2}


def test_a_place_ends_when_its_holder_begins_to_leave_it() -> None:
    assert most_at_once([taken("a", 0), left("a", 5), taken("b", 5)]) == {"key": 1}


def test_a_place_ends_with_its_time_counted_from_before_the_request() -> None:
    assert most_at_once([taken("a", 0), taken("b", 9.95)]) == {"key": 1}


def test_an_extension_is_no_second_place_and_makes_the_first_longer() -> None:
    assert most_at_once([taken("a", 0), taken("a", 5), taken("b", 12)]) == {"key": 2}


def test_leaving_before_it_was_taken_ends_nothing() -> None:
    assert most_at_once([left("a", 0), taken("a", 5), taken("b", 6)]) == {"key": 2}


def test_a_request_to_leave_that_may_come_late_ends_the_place_from_then_on() -> None:
    late = Answer("key", "a", 5, inf, None)
    assert most_at_once([taken("a", 0), late, taken("a", 6), taken("b", 7)]) == {"key": 1}


def test_a_place_may_end_sooner_by_a_later_request_that_was_not_answered() -> None:
    shorter = Answer("key", "a", 5, inf, 2.0)
    assert most_at_once([taken("a", 0), shorter, taken("b", 6.8)]) == {"key": 2}
    assert most_at_once([taken("a", 0), shorter, taken("b", 7)]) == {"key": 1}


def test_what_a_store_answers_is_written_down(tmp_path: Path) -> None:
    log = PlaceLog(tmp_path / "places")
    with LocalClient("audited") as client:
        store = client.coordination
        log.watch(store)
        places = [Place("key", 2, holder) for holder in "abc"]
        assert store.take_places(places, ttl_s=60.0) == [True, True, False]
        store.leave_places(places[:1])
        assert store.take_places(places[2:], ttl_s=60.0) == [True]
        store.take_places([Place("other", 1, "d")], ttl_s=60.0)
    assert len(log.answers()) == 11, "of each that was done there are two: before and after"
    assert log.most_at_once() == {"key": 2, "other": 1}


def test_a_place_counts_as_left_if_its_process_is_killed_before_it_could_say_so(tmp_path: Path) -> None:
    log = PlaceLog(tmp_path / "places")
    with LocalClient("audited") as client:
        store = client.coordination
        leave = store.leave_places

        def leave_and_be_killed(places: Sequence[Place]) -> None:
            leave(places)
            raise SystemExit

        store.leave_places = leave_and_be_killed  # type: ignore[method-assign]
        log.watch(store)
        first, second = Place("key", 1, "a"), Place("key", 1, "b")
        store.take_places([first], ttl_s=60.0)
        with pytest.raises(SystemExit):
            store.leave_places([first])
        assert store.take_places([second], ttl_s=60.0) == [True]
    assert log.most_at_once() == {"key": 1}
