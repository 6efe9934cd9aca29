"""What is seen of the limits of a namespace."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from ...domain.errors import InvalidInput
from ...domain.limits import Limit, Rate
from ...ports import CoordinationStore, PlaceCount
from .changes import LimitChange, LimitIdentity, identity, identity_of, rate_terms
from .declarations import Declaration
from .in_force import changed
from .keys import prefix_of

_LOOK_S = 1.0
"""How much less than any turn's the wait is with which a look at a rate reserves none."""


class KeyUse(NamedTuple):
    """How much of a limit by a field the jobs of one key use."""

    key: str
    """The values of the fields, as JSON; long or secret ones as a hash."""
    used: int
    """How many places jobs have."""
    waiting: int
    """How many jobs wait in line for a place."""


@dataclass(frozen=True, slots=True)
class RateTerms:
    """How fast jobs may start: ``count`` in ``per_s`` seconds, and ``burst`` at once."""

    count: int
    per_s: float
    burst: int

    @property
    def interval_s(self) -> float:
        """Seconds from one start to the next."""
        return self.per_s / self.count

    def __str__(self) -> str:
        return rate_terms(self.count, self.per_s, self.burst)


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit of how many jobs run at once: what is allowed, and how much of it is used."""

    kind: ClassVar[Literal["limit"]] = "limit"

    name: str
    """The limit's name; that of its queue if it has none."""
    is_named: bool
    """Whether it has a name of its own."""
    queues: tuple[str, ...]
    """The queues whose jobs it limits, as far as is known."""
    by: tuple[str, ...]
    """The fields that jobs are told apart by; with some, each key may use what is allowed."""
    declared: int | None
    """What the code declares; the largest if processes differ. None if no code has in the last seven days."""
    allowed: int
    """What is in force: what is declared, or what it was changed to."""
    change: LimitChange | None
    """When and by whom it was changed; None if what is declared is in force."""
    used: int
    """How many places jobs have, of all keys together."""
    waiting: int
    """How many jobs that consumers hold wait in line. Others wait in the queue."""
    keys: int
    """How many keys have jobs that run or wait in line."""
    busiest: tuple[KeyUse, ...]
    """The keys that use most, of a limit by a field; not all of them where there are many."""


@dataclass(frozen=True, slots=True)
class RateUse:
    """A limit of how fast jobs start: what is allowed, and when the next one may."""

    kind: ClassVar[Literal["rate"]] = "rate"

    name: str
    """The rate's name; that of its queue if it has none."""
    is_named: bool
    """Whether it has a name of its own."""
    queues: tuple[str, ...]
    """The queues whose jobs it limits, as far as is known."""
    by: tuple[str, ...]
    """The fields that jobs are told apart by; with some, the jobs of each key start so fast."""
    declared: RateTerms | None
    """What the code declares; the fastest if processes differ. None if no code has in the last seven days."""
    allowed: RateTerms
    """What is in force: what is declared, or what it was changed to."""
    change: LimitChange | None
    """When and by whom it was changed; None if what is declared is in force."""
    next_turn_s: float | None
    """In how many seconds the next job may start that has no turn yet; None of a rate by a field."""


class _Known(NamedTuple):
    """One limit: who declares it, and how it is changed."""

    limit: LimitIdentity
    declared: Sequence[Declaration]
    change: LimitChange | None

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(sorted({each.queue for each in self.declared}))

    @property
    def widest(self) -> Declaration | None:
        """The declaration that allows most."""
        return max(self.declared, key=lambda each: _allowed_by(each.limit), default=None)


def overview(
    store: CoordinationStore,
    declarations: Iterable[Declaration],
    changes: Mapping[str, LimitChange],
    busiest: int,
) -> list[LimitUse | RateUse]:
    """Return all limits that are declared or changed, by their names.

    Args:
        store: Where places and turns are counted.
        declarations: What the code declares.
        changes: What was changed, by the keys of the records.
        busiest: How many keys to name at most of each limit by a field.
    """
    known = sorted(_known(declarations, changes), key=lambda each: (each.limit.name, each.limit))
    of_places = [each for each in known if each.limit.kind == "limit"]
    prefixes = [_prefix(each) for each in of_places]
    counts = store.count_places(prefixes, busiest=busiest) if prefixes else []
    counted = {each.limit: count for each, count in zip(of_places, counts, strict=True)}
    uses = (
        _rate_use(store, each) if each.limit.kind == "rate" else _limit_use(each, counted[each.limit])
        for each in known
    )
    return [each for each in uses if each is not None]


def _known(declarations: Iterable[Declaration], changes: Mapping[str, LimitChange]) -> list[_Known]:
    declared: dict[LimitIdentity, list[Declaration]] = {}
    for each in declarations:
        declared.setdefault(identity(each.queue, each.limit), []).append(each)
    for key in changes:
        if (limit := identity_of(key)) is not None:
            declared.setdefault(limit, [])
    return [_Known(limit, those, changes.get(limit.key)) for limit, those in declared.items()]


def _prefix(known: _Known) -> str:
    """Return what the keys of its places begin with; of one that no code declares, as far as can be known."""
    widest = known.widest
    if widest is not None:
        return prefix_of(widest.queue, widest.limit)
    name = known.limit.name
    return prefix_of(name, Limit(1, name=name)) if known.limit.is_named else prefix_of(name, Limit(1))


def _limit_use(known: _Known, count: PlaceCount) -> LimitUse | None:
    widest, change, prefix = known.widest, known.change, _prefix(known)
    declared = None if widest is None else widest.limit.count
    fields = () if widest is None else widest.limit.fields
    keys = (KeyUse(each.key.removeprefix(prefix), each.held, each.waiting) for each in count.busiest)
    allowed = declared if change is None else change.count
    if allowed is None:
        return None
    return LimitUse(
        known.limit.name,
        known.limit.is_named,
        known.queues,
        fields,
        declared,
        allowed,
        change,
        count.held,
        count.waiting,
        count.keys,
        tuple(keys) if fields else (),
    )


def _rate_use(store: CoordinationStore, known: _Known) -> RateUse | None:
    widest, change = known.widest, known.change
    declared = widest.limit if widest is not None and isinstance(widest.limit, Rate) else None
    rate = declared or _undeclared(change)
    if rate is None:
        return None
    if change is not None:
        rate = changed(rate, change)
    queue = known.limit.name if widest is None else widest.queue
    return RateUse(
        known.limit.name,
        known.limit.is_named,
        known.queues,
        rate.fields,
        None if declared is None else terms_of(declared),
        terms_of(rate),
        change,
        None if rate.fields else _next_turn_s(store, prefix_of(queue, rate), rate),
    )


def _undeclared(change: LimitChange | None) -> Rate | None:
    """Return the rate that only a change knows; None if that can't be one."""
    with suppress(InvalidInput):
        if change is not None and change.per_s is not None:
            return Rate(change.count, per_s=change.per_s)
    return None


def terms_of(rate: Rate) -> RateTerms:
    """Return how fast a rate lets jobs start."""
    return RateTerms(rate.count, rate.per_s, rate.burst)


def _next_turn_s(store: CoordinationStore, key: str, rate: Rate) -> float:
    """Return in how many seconds the next turn is; a look reserves none (CRD-6)."""
    max_wait_s = -rate.burst * rate.interval_s - _LOOK_S
    look = store.reserve(key, 1, interval_s=rate.interval_s, burst=rate.burst, max_wait_s=max_wait_s)
    return max(0.0, look.retry_s)


def _allowed_by(limit: Limit | Rate) -> float:
    return limit.count / limit.per_s if isinstance(limit, Rate) else limit.count
