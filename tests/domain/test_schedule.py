"""When schedules are due: where clocks change against a table written by hand, else by properties."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs import Cron, Every, errors
from mindtrace.jobs.domain.schedule import Due, Timing

MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(timing: Timing, after: datetime, count: int) -> list[datetime]:
    found: list[datetime] = []
    for _ in range(count):
        after = timing.next_after(after)
        found.append(after)
    return found


class Row(NamedTuple):
    why: str
    zone: str
    cron: str
    after: str
    slots: list[str]


# Clocks change in Vienna on 29 March and 25 October at 01:00 UTC, in New York on 8 March at 07:00 and on
# 1 November at 06:00 UTC, each by an hour. On Lord Howe Island they change by half an hour: on 4 April 2026
# back, at 15:00 UTC, from 02:00 to 01:30, and on 3 October forward, at 15:30 UTC, from 02:00 to 02:30.
TABLE = [
    Row(
        "Vienna: a time of day that doesn't exist is when the clocks change",
        "Europe/Vienna",
        "30 2 * * *",
        "2026-03-27T12:00",
        ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"],
    ),
    Row(
        "Vienna: two times of day that don't exist are one slot",
        "Europe/Vienna",
        "0,30 2 * * *",
        "2026-03-28T12:00",
        ["2026-03-29T01:00", "2026-03-30T00:00", "2026-03-30T00:30"],
    ),
    Row(
        "Vienna: a time of day that comes twice is the first",
        "Europe/Vienna",
        "30 2 * * *",
        "2026-10-23T12:00",
        ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
    ),
    Row(
        "Vienna: asked between the two, a time of day is over",
        "Europe/Vienna",
        "45 2 * * *",
        "2026-10-25T01:10",
        ["2026-10-26T01:45"],
    ),
    Row(
        "Vienna: the first hour after the change is as always",
        "Europe/Vienna",
        "0 3 * * *",
        "2026-03-27T12:00",
        ["2026-03-28T02:00", "2026-03-29T01:00", "2026-03-30T01:00"],
    ),
    Row(
        "Vienna: each half hour skips what doesn't exist",
        "Europe/Vienna",
        "*/30 * * * *",
        "2026-03-29T00:00",
        ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"],
    ),
    Row(
        "Vienna: with a star, a time that doesn't exist is no slot",
        "Europe/Vienna",
        "*/30 2 * * *",
        "2026-03-28T00:30",
        ["2026-03-28T01:00", "2026-03-28T01:30", "2026-03-30T00:00", "2026-03-30T00:30"],
    ),
    Row(
        "Vienna: with a star, a time that comes twice is two",
        "Europe/Vienna",
        "*/30 2 * * *",
        "2026-10-25T00:00",
        ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-26T01:00"],
    ),
    Row(
        "New York: a time of day that doesn't exist",
        "America/New_York",
        "30 2 * * *",
        "2026-03-06T12:00",
        ["2026-03-07T07:30", "2026-03-08T07:00", "2026-03-09T06:30"],
    ),
    Row(
        "New York: a time of day that comes twice",
        "America/New_York",
        "30 1 * * *",
        "2026-10-31T00:00",
        ["2026-10-31T05:30", "2026-11-01T05:30", "2026-11-02T06:30"],
    ),
    Row(
        "New York: each hour, also the one that comes twice",
        "America/New_York",
        "0 * * * *",
        "2026-11-01T04:30",
        ["2026-11-01T05:00", "2026-11-01T06:00", "2026-11-01T07:00"],
    ),
    Row(
        "Lord Howe: a time of day in the half hour that doesn't exist",
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-02T12:00",
        ["2026-10-02T15:45", "2026-10-03T15:30", "2026-10-04T15:15"],
    ),
    Row(
        "Lord Howe: a time of day in the half hour that comes twice",
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-03T12:00",
        ["2026-04-03T14:45", "2026-04-04T14:45", "2026-04-05T15:15"],
    ),
    Row(
        "Lord Howe: every third hour, over the half hour that doesn't exist",
        "Australia/Lord_Howe",
        "0 */3 * * *",
        "2026-10-03T13:00",
        ["2026-10-03T13:30", "2026-10-03T16:00", "2026-10-03T19:00"],
    ),
    Row(
        "Lord Howe: every second hour, over the half hour that comes twice",
        "Australia/Lord_Howe",
        "0 */2 * * *",
        "2026-04-04T12:30",
        ["2026-04-04T13:00", "2026-04-04T15:30", "2026-04-04T17:30"],
    ),
    Row(
        "Lord Howe: each quarter of an hour, of which two come twice",
        "Australia/Lord_Howe",
        "*/15 1 * * *",
        "2026-04-04T14:10",
        [
            "2026-04-04T14:15",
            "2026-04-04T14:30",
            "2026-04-04T14:45",
            "2026-04-04T15:00",
            "2026-04-04T15:15",
            "2026-04-05T14:30",
        ],
    ),
    Row(
        "a leap day",
        "UTC",
        "0 0 29 2 *",
        "2026-01-01T00:00",
        ["2028-02-29T00:00", "2032-02-29T00:00"],
    ),
    Row(
        "the last day of a month",
        "UTC",
        "0 12 L * *",
        "2026-02-01T00:00",
        ["2026-02-28T12:00", "2026-03-31T12:00"],
    ),
    Row(
        "weekdays by name",
        "UTC",
        "0 9 * * MON-FRI",
        "2026-11-27T08:00",
        ["2026-11-27T09:00", "2026-11-30T09:00"],
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_slots_where_clocks_change(row: Row) -> None:
    expected = [utc(slot) for slot in row.slots]

    assert slots(Cron(row.cron, row.zone), utc(row.after), len(expected)) == expected


# -- properties: compared with a walk over every minute --------------------------------------------

ZONES = ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]
CHANGES = ["2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00"]
CHANGES += ["2026-10-03T15:30", "2026-02-15T02:00", "2026-03-22T02:00", "2026-06-10T00:00"]


def sets(end: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field of an expression, and the numbers that fit it."""
    numbers = st.frozensets(st.integers(0, end - 1), min_size=1, max_size=3)
    steps = st.integers(1, end - 1)
    return st.one_of(
        st.just(("*", frozenset(range(end)))),
        steps.map(lambda step: (f"*/{step}", frozenset(range(0, end, step)))),
        numbers.map(lambda these: (",".join(map(str, sorted(these))), these)),
    )


class Expression(NamedTuple):
    text: str
    minutes: frozenset[int]
    hours: frozenset[int]

    def fits(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours


expressions = st.builds(
    lambda minute, hour: Expression(f"{minute[0]} {hour[0]} * * *", minute[1], hour[1]), sets(60), sets(24)
)
near_a_change = st.builds(
    lambda change, minutes, seconds: utc(change) + timedelta(minutes=minutes, seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(-1600, 1600),
    st.floats(0, 59.9),
)
timings = st.one_of(
    st.builds(lambda expression, zone: Cron(expression.text, zone), expressions, st.sampled_from(ZONES)),
    st.builds(Every, st.timedeltas(timedelta(seconds=1), timedelta(days=40))),
)


@cache
def wall(zone: str, minute: datetime) -> datetime:
    return minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def walked(expression: Expression, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """The slots after ``start``, up to ``end``, found by looking at the wall in each minute."""
    minutes, minute = [], start.replace(second=0, microsecond=0) - timedelta(hours=4)
    while minute <= end:
        minutes.append((minute, wall(zone, minute)))
        minute += MINUTE
    if "*" in expression.text.split()[0] or "*" in expression.text.split()[1]:
        found = {minute for minute, shown in minutes if expression.fits(shown)}
    else:
        found, latest = set(), minutes[0][1]
        for minute, shown in minutes[1:]:
            passed = latest + MINUTE
            while passed <= shown:  # what the hands have come to, or were moved over
                if expression.fits(passed):
                    found.add(minute)
                passed += MINUTE
            latest = max(latest, shown)  # what comes again is over
    return sorted(minute for minute in found if start < minute <= end)


@given(expressions, st.sampled_from(ZONES), near_a_change)
def test_no_slot_is_skipped_and_none_added(expression: Expression, zone: str, start: datetime) -> None:
    end = start + timedelta(days=2)
    expected = walked(expression, zone, start, end)

    found = slots(Cron(expression.text, zone), start, min(len(expected), 40))
    assert found == expected[: len(found)]
    assert slots(Cron(expression.text, zone), expected[-1] if expected else start, 1)[0] > end


@given(timings, near_a_change)
def test_the_next_slot_is_after_the_moment_and_slots_ascend(timing: Any, start: datetime) -> None:
    found = slots(timing, start, 5)

    assert all(one < other for one, other in pairwise([start, *found]))


@given(timings, near_a_change, st.floats(0, 1))
def test_the_next_slot_is_the_same_whenever_one_asks(timing: Any, start: datetime, part: float) -> None:
    slot = timing.next_after(start)

    assert timing.next_after(start + (slot - start) * part * 0.999) == slot


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=40)), near_a_change)
def test_an_interval_does_not_drift(interval: timedelta, start: datetime) -> None:
    found = slots(Every(interval), start, 50)

    assert {after - before for before, after in pairwise(found)} == {interval}
    assert (found[0] - datetime(1970, 1, 1, tzinfo=UTC)) % interval == timedelta()


# -- what was missed -------------------------------------------------------------------------------


@given(timings, near_a_change, st.integers(0, 60))
def test_the_latest_of_those_that_were_missed_is_found(timing: Any, start: datetime, count: int) -> None:
    """Wherever among them one asks."""
    missed = slots(timing, start, count + 2)
    now = missed[-1] - timedelta(microseconds=1)

    assert timing.due(missed[0], now) == Due(missed[-2], missed[-1])


def test_of_a_year_of_minutes_the_latest_is_found_at_once() -> None:
    """In a few hundred steps, not half a million."""
    asked = 0

    class Counted(Cron):
        def next_after(self, moment: datetime) -> datetime:
            nonlocal asked
            asked += 1
            return super().next_after(moment)

    now = utc("2026-11-27T12:00:30")
    due = Counted("* * * * *", "Europe/Vienna").due(now - timedelta(days=365, seconds=30), now)
    assert due == Due(utc("2026-11-27T12:00"), utc("2026-11-27T12:01"))
    assert asked < 500


def test_all_of_those_that_were_missed_come_one_after_the_other() -> None:
    hourly = Every(timedelta(hours=1), misfire="all")

    due = hourly.due(utc("2026-11-27T01:00"), utc("2026-11-27T12:30"))
    assert due == Due(utc("2026-11-27T01:00"), utc("2026-11-27T02:00"))


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-27T01:00:00", Due(utc("2026-11-27T01:00"), utc("2026-11-27T02:00"))),
        ("2026-11-27T01:01:00", Due(utc("2026-11-27T01:00"), utc("2026-11-27T02:00"))),
        ("2026-11-27T01:01:01", Due(None, utc("2026-11-27T02:00"))),
        ("2026-11-27T05:00:59", Due(utc("2026-11-27T05:00"), utc("2026-11-27T06:00"))),
        ("2026-11-27T05:01:01", Due(None, utc("2026-11-27T06:00"))),
    ],
)
def test_skipping_publishes_only_what_is_late_by_less_than_the_grace(now: str, due: Due) -> None:
    hourly = Every(timedelta(hours=1), misfire="skip", grace_s=60)

    assert hourly.due(utc("2026-11-27T01:00"), utc(now)) == due


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"expression": "0 3 * *"}, "must have five fields"),
        ({"expression": "0 0 3 * * *"}, "for less than a minute use every="),
        ({"expression": None}, "must have five fields"),
        ({"expression": "61 3 * * *"}, "Bad minute"),
        ({"expression": "0 3 * * FUNDAY"}, "Bad day-of-week"),
        ({"expression": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"expression": "* * */20 * 1L"}, "no date in the next 50 years fits"),
        ({"expression": "0 3 * * *", "timezone": "Europe/Wien"}, "no such time zone"),
        ({"expression": "0 3 * * *", "timezone": "Europe"}, "no such time zone"),
        ({"expression": "0 3 * * *", "timezone": "../etc/passwd"}, "no such time zone"),
        ({"expression": "0 3 * * *", "timezone": None}, "no such time zone"),
        ({"expression": "0 3 * * *", "timezone": "localtime"}, "is another on each machine"),
        ({"expression": "0 3 * * *", "timezone": "posixrules"}, "is another on each machine"),
        ({"expression": "0 3 * * *", "misfire": "none"}, '"skip", "latest" or "all"'),
        ({"expression": "0 3 * * *", "grace_s": -1}, "must be a number of seconds"),
    ],
)
def test_what_is_no_cron_is_refused_in_words(arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises(errors.InvalidInput, match=remedy):
        Cron(**arguments)


@pytest.mark.parametrize("interval", [timedelta(), timedelta(milliseconds=999), timedelta(days=367), 60])
def test_what_is_no_interval_is_refused(interval: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="every"):
        Every(interval)
