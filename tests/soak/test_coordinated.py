"""The account of what the workers of a soak coordinate: it finds what is wrong, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mindtrace.jobs import LocalClient
from mindtrace.jobs.ports import Place
from soak.coordinated import (
    CANCELLED,
    CHAINED,
    CROWDED,
    LIMITED,
    TICKS,
    UNIQUE,
    Line,
    Log,
    find_faults,
    used_of_allowed,
)

FIRST = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SCHEDULED = Line("scheduled", TICKS.name, FIRST.isoformat(), "", 1, 0.0)


def job(queue: str, name: str, key: str, *moments: float, pid: int = 1) -> list[Line]:
    """A job that was published, started and ended at these moments."""
    whats = ("published", "started", "ended")
    return [Line(what, queue, name, key, pid, moment) for what, moment in zip(whats, moments, strict=False)]


def slot(number: int) -> Line:
    return Line("ended", TICKS.name, f"soak-tick.20261126T12000{number}Z", "only", 1, 1.0)


GOOD = [
    SCHEDULED,
    slot(0),
    slot(1),
    *job(UNIQUE.name, "u1", "a", 1, 2, 3),
    *job(UNIQUE.name, "u2", "a", 3.1, 4, 5),
    *job(UNIQUE.name, "u3", "b", 1, 2, 6),
    Line("paused", LIMITED.name, "", "", 2, 10.0),
    *job(LIMITED.name, "l1", "a", 9, 10.9, 11),
    Line("resumed", LIMITED.name, "", "", 2, 20.0),
    *job(LIMITED.name, "l2", "a", 9, 20.1, 21),
    *job(CHAINED.name, "k1", "a", 1, 2, 3),
    *(Line("ended", CHAINED.name, f"k1.{number}", "a", 1, 4.0) for number in (1, 2)),
    *job(CANCELLED.name, "x1", "a", 1),
    Line("asked", CANCELLED.name, "x1", "", 2, 2.0),
    Line("cancelled", CANCELLED.name, "x1", "", 2, 3.0),
    *job(CANCELLED.name, "x2", "a", 1, 2, 3),
]


def found(tmp_path: Path, *more: Line, stopped: frozenset[int] = frozenset(), slots: int = 2) -> list[str]:
    last = FIRST + timedelta(seconds=slots - 1)
    return find_faults([*GOOD, *more], Log(tmp_path), last, stopped)


def test_a_good_run_has_no_faults(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_a_job_that_never_ran_and_a_slot_without_a_job_are_found(tmp_path: Path) -> None:
    assert found(tmp_path, *job(LIMITED.name, "l3", "a", 1)) == ["1 jobs never ran: ['l3']"]
    assert found(tmp_path, *job(CANCELLED.name, "x3", "a", 1)) == ["1 jobs never ran: ['x3']"]
    assert found(tmp_path, slots=3) == ["1 slots have no job: ['soak-tick.20261126T120002Z']"]


def test_the_links_of_a_chain_that_broke_are_found(tmp_path: Path) -> None:
    wrong = ["2 jobs never ran: ['k2.1', 'k2.2']"]
    assert found(tmp_path, *job(CHAINED.name, "k2", "a", 1, 2, 3)) == wrong


@pytest.mark.parametrize(
    ("pid", "expected"), [(1, ["x1 was started 4.00 s after it was cancelled"]), (7, [])]
)
def test_a_job_that_starts_when_it_was_cancelled_is_found(
    tmp_path: Path, pid: int, expected: list[str]
) -> None:
    late = Line("started", CANCELLED.name, "x1", "a", pid, 7.0)
    assert found(tmp_path, late, stopped=frozenset([7])) == expected


def test_two_unique_jobs_at_once_are_found(tmp_path: Path) -> None:
    assert found(tmp_path, *job(UNIQUE.name, "u4", "b", 5, 7, 8)) == ["b has two unique jobs at once"]


@pytest.mark.parametrize(("pid", "expected"), [(1, ["l3 was started 5.00 s after a pause"]), (7, [])])
def test_a_start_in_a_pause_is_found_unless_its_process_stood_still(
    tmp_path: Path, pid: int, expected: list[str]
) -> None:
    late = job(LIMITED.name, "l3", "a", 9, 15, 16, pid=pid)
    assert found(tmp_path, *late, stopped=frozenset([7])) == expected


def test_one_place_too_many_is_found(tmp_path: Path) -> None:
    log = Log(tmp_path)
    with LocalClient("soaked") as client:
        store = client.coordination
        log.places.watch(store)
        store.take_places([Place("key", 3, holder) for holder in "xyz"], ttl_s=60.0)
        store.take_places([Place("place/soak-single/a", 2, holder) for holder in "xy"], ttl_s=60.0)
    assert found(tmp_path) == ["3 places of key at once", "2 places of place/soak-single/a at once"]


def test_places_that_stay_empty_while_jobs_wait_are_found(tmp_path: Path) -> None:
    """Three keys have two places each."""
    last = job(CROWDED.name, "c9", "a", 14.0, 14.5, 14.6)
    full = [
        line
        for number in range(6)
        for line in job(CROWDED.name, f"c{number}", "a", 10.0, 12.0, 13.5, pid=number)
    ]
    assert used_of_allowed([*full, *last]) == [1.0, 0.5]
    assert found(tmp_path, *full, *last) == []
    alone = job(CROWDED.name, "c0", "a", 10.0, 12.0, 53.0)
    last = job(CROWDED.name, "c9", "a", 52.0, 53.0, 53.1)
    assert found(tmp_path, *alone, *last) == [
        "jobs used 17% of the places of soak-crowded in the best second"
    ]


def test_some_seconds_say_nothing_about_empty_places(tmp_path: Path) -> None:
    alone = job(CROWDED.name, "c0", "a", 10.0, 12.0, 13.5)
    last = job(CROWDED.name, "c9", "a", 14.0, 14.5, 14.6)
    assert found(tmp_path, *alone, *last) == []
