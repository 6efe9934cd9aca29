"""When periodic jobs are due: by cron expressions in time zones, or at fixed intervals."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .bounds import MAX_DELAY_S, check_seconds
from .errors import InvalidInput

Misfire = Literal["skip", "latest", "all"]
"""What becomes of slots that passed while no scheduler ran: none is published, the last, or each in order."""

_OF_THE_MACHINE = ("localtime", "posixrules")
"""Names that a system's database may have for the zone that an administrator chose."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_TICK = timedelta(microseconds=1)


class Due(NamedTuple):
    """What a schedule is to do at some moment."""

    slot: datetime | None
    """The slot to publish; None if there is none, as those that passed are skipped."""
    following: datetime
    """The slot after it."""


@dataclass(frozen=True)
class Timing(ABC):
    """The slots of a schedule, as moments in UTC, and what becomes of those that nobody published in time.

    Raises:
        InvalidInput: ``misfire`` or ``grace_s`` is out of range.
    """

    misfire: Misfire = field(default="latest", kw_only=True)
    """What becomes of slots that passed while no scheduler ran."""
    grace_s: float = field(default=60.0, kw_only=True)
    """With ``misfire="skip"``: how many seconds late a slot is still published."""

    def __post_init__(self) -> None:
        if self.misfire not in get_args(Misfire):
            raise InvalidInput(f'misfire {self.misfire!r:.80}: must be "skip", "latest" or "all"')
        object.__setattr__(self, "grace_s", check_seconds("grace_s", self.grace_s))

    @abstractmethod
    def next_after(self, moment: datetime) -> datetime:
        """Return the first slot after ``moment``.

        Raises:
            InvalidInput: there is none in the next 50 years.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what it is made of, as JSON has it."""

    def due(self, slot: datetime, now: datetime) -> Due:
        """Say what to do if ``slot`` is the first that wasn't published, and isn't after ``now``."""
        if self.misfire == "latest":
            slot = self._last(slot, now)
        elif self.misfire == "skip":
            since = now - timedelta(seconds=self.grace_s)
            if slot < since:
                slot = self.next_after(since - _TICK)
            if slot > now:
                return Due(None, slot)
        return Due(slot, self.next_after(slot))

    def _last(self, slot: datetime, now: datetime) -> datetime:
        """Return the last slot from ``slot`` to ``now``, in few steps however many there are."""
        leap = now - slot
        while self.next_after(slot) <= now:
            while (far := self.next_after(slot + leap)) > now:
                leap //= 2
            slot = far
        return slot


@dataclass(frozen=True)
class Every(Timing):
    """Slots at fixed distances: the multiples of ``interval`` since the beginning of 1970, in UTC.

    So they don't drift, and are the same for all who ask: every 15 minutes is at :00, :15, :30 and :45.

    Raises:
        InvalidInput: the interval is shorter than a second or longer than 366 days.
    """

    interval: timedelta

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.interval, timedelta):
            raise InvalidInput(f"every {self.interval!r:.80}: must be a timedelta, as timedelta(minutes=5)")
        if not _SECOND <= self.interval <= timedelta(seconds=MAX_DELAY_S):
            days = MAX_DELAY_S / 86_400
            raise InvalidInput(f"every {self.interval}: must be from 1 second to {days:.0f} days")

    def next_after(self, moment: datetime) -> datetime:
        """Return the first slot after ``moment``."""
        return _EPOCH + ((moment - _EPOCH) // self.interval + 1) * self.interval

    def to_dict(self) -> dict[str, Any]:
        """Return the interval in seconds, and what becomes of missed slots."""
        return {
            "every_s": self.interval.total_seconds(),
            "misfire": self.misfire,
            "grace_s": self.grace_s,
        }

    def __str__(self) -> str:
        return f"every {self.interval}"


@dataclass(frozen=True)
class Cron(Timing):
    """Slots by a cron expression of five fields: minute, hour, day of month, month, day of week.

    When clocks are put forward or back, an expression whose minute and hour don't begin with ``*`` is a time
    of day: it has one slot a day. If the time doesn't exist, the slot is the moment at which the clocks
    change; if it comes twice, it is the first. Any other expression goes by the clock on the wall: what
    doesn't exist is no slot, and what comes twice is two. Debian's cron does the same.

    Args:
        expression: As in ``crontab(5)``, such as ``"0 3 * * MON-FRI"``; also ``L`` for the last day of the
            month, and ``MON#1`` for its first Monday.
        timezone: A name of the time zone database, such as ``"Europe/Vienna"``.
        misfire: What becomes of slots that passed while no scheduler ran: ``"skip"`` publishes none of them,
            ``"latest"`` the last, ``"all"`` each.
        grace_s: With ``"skip"``, how many seconds late a slot is still published.

    Raises:
        InvalidInput: the expression is none or never comes, or the time zone is none or that of a machine.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        super().__post_init__()
        expression: object = self.expression
        if not isinstance(expression, str) or len(expression.split()) != 5:
            raise InvalidInput(
                f"cron {self.expression!r:.80}: must have five fields, minute hour day month weekday, "
                'such as "0 3 * * *"; for less than a minute use every='
            )
        self._zone()
        self.next_after(_EPOCH)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first slot after ``moment``.

        Raises:
            InvalidInput: there is none in the next 50 years.
        """
        zone = self._zone()
        minute, hour = self.expression.split()[:2]
        if minute.startswith("*") or hour.startswith("*"):
            return self._next_on_the_wall(moment, zone)
        for wall in self._walls(_wall(moment, zone)):
            if (slot := _first_moment(wall, zone)) > moment:
                return slot
        raise self._never()

    def to_dict(self) -> dict[str, Any]:
        """Return the expression, the time zone, and what becomes of missed slots."""
        return {
            "cron": self.expression,
            "timezone": self.timezone,
            "misfire": self.misfire,
            "grace_s": self.grace_s,
        }

    def _next_on_the_wall(self, moment: datetime, zone: tzinfo) -> datetime:
        wall = _wall(moment, zone)
        while True:
            offset = _offset(moment, zone)
            found = next(self._walls(wall), None)
            if found is None:
                raise self._never()
            slot = (found - offset).replace(tzinfo=UTC)
            change = _next_change(moment, slot, zone)
            if change is None:
                return slot
            moment, wall = change, _wall(change, zone) - _SECOND  # the moment itself may be a slot

    def _walls(self, wall: datetime) -> Iterator[datetime]:
        """Return the local times after ``wall`` that fit the expression, whether they exist or not.

        What they are in UTC isn't left to cronsim, which misses slots where clocks change by half an hour.
        """
        try:
            return CronSim(self.expression, wall)
        except CronSimError as error:
            raise InvalidInput(
                f"cron {self.expression!r:.80}: {error}; the fields are minute hour day month weekday, such "
                'as "0 3 * * MON-FRI"'
            ) from None

    def _zone(self) -> tzinfo:
        if self.timezone == "UTC":
            return UTC  # which needs no database
        if str(self.timezone).lower() in _OF_THE_MACHINE:
            raise InvalidInput(
                f"timezone {self.timezone!r}: is another on each machine, and any may publish the slots: "
                'name the zone, such as "Europe/Vienna"'
            )
        try:
            return ZoneInfo(self.timezone)
        except (ValueError, TypeError, OSError, LookupError):
            raise InvalidInput(
                f"timezone {self.timezone!r:.80}: no such time zone here; use a name such as "
                '"Europe/Vienna", and if the system has no time zone database: pip install tzdata'
            ) from None

    def _never(self) -> InvalidInput:
        return InvalidInput(f"cron {self.expression!r:.80}: no date in the next 50 years fits")

    def __str__(self) -> str:
        return f"{self.expression} ({self.timezone})"


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """Return what clocks show there, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _first_moment(wall: datetime, zone: tzinfo) -> datetime:
    """Return when clocks first show ``wall``; if they skip it, when they do so."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall(moment, zone) == wall:
        return moment
    # By the offset before the change it seems to come after the change, by the one after it before.
    change = _next_change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), moment, zone)
    return moment if change is None else change


def _next_change(start: datetime, end: datetime, zone: tzinfo) -> datetime | None:
    """Return the first moment after ``start``, up to ``end``, at which the offset from UTC is another."""
    start = start.replace(microsecond=0)  # clocks change at whole seconds
    offset = _offset(start, zone)
    while start < end:
        later = min(start + _DAY, end)
        if _offset(later, zone) != offset:
            break
        start = later
    else:
        return None
    while later - start > _SECOND:
        middle = start + (later - start) // 2 // _SECOND * _SECOND
        if _offset(middle, zone) == offset:
            start = middle
        else:
            later = middle
    return later
