"""CRD-1 to CRD-3: records of the coordination store, against a simple model, in any order of calls."""

import itertools
from collections.abc import Callable
from functools import partial
from math import inf
from typing import NamedTuple

from hypothesis import strategies as st

from ...ports import ABSENT, CoordinationStore, Record
from ..check_context import CheckContext
from ..registry import check
from ..stores import End, Timed, end_of, stores, timed
from ..violation import demand

_KEYS = ("a", "A", "a_", "ab")
_NEVER = End(inf, inf)
_FAR = 1_000_000_000
"""Added to a version, it gives one that was never given."""

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "delete", "read", "wait"]),
        st.sampled_from(_KEYS),
        st.sampled_from(["any", "right", "right", "stale", "absent", "never given"]),
        st.sampled_from([None, None, 0.03, 0.1, 3600.0]),
        st.booleans(),
    ),
    max_size=20,
)
"""What is done, with which key, which expectation and which time, and by which client."""


@check("CRD-1", "CRD-2", "CRD-3", needs="coordination")
def records_are_as_in_a_model(context: CheckContext) -> None:
    """Whatever is put, deleted, read and waited for in whatever order: each answer is that of a model."""
    examples = itertools.count()
    with stores(context) as both:

        @context.waited_property(steps=_STEPS)
        def _(steps: list[tuple[str, str, str, float | None, bool]]) -> None:
            model = _Model(f"{next(examples)}:")
            for act, letters, expectation, ttl_s, second in steps:
                store, key = both[second], model.beginning + letters
                expected = model.expected(key, expectation)
                if act == "put":
                    model.put(store, key, expected, ttl_s)
                elif act == "delete":
                    model.delete(store, key, expected)
                elif act == "read":
                    model.read(store)
                else:
                    context.harness.advance(0.04)
            model.read(both[0])


class _Kept(NamedTuple):
    """A record, and when it ends."""

    record: Record
    end: End


class _Model:
    """The records that must be there. When one ends is known but for the length of the call that wrote it."""

    def __init__(self, beginning: str) -> None:
        self.beginning = beginning
        """Of all its keys, and of those of no other model."""
        self._keys = [beginning + letters for letters in _KEYS]
        self._kept: dict[str, _Kept] = {}
        self._given: dict[str, list[int]] = {key: [] for key in self._keys}

    def expected(self, key: str, expectation: str) -> int | None:
        """The version that a write expects."""
        kept, given = self._kept.get(key), self._given[key]
        current = ABSENT if kept is None else kept.record.version
        stale = [version for version in given if version != current]
        match expectation:
            case "any":
                return None
            case "right":
                return current
            case "absent":
                return ABSENT
            case "stale" if stale:
                return stale[-1]
            case _:
                return current + _FAR

    def put(self, store: CoordinationStore, key: str, expected: int | None, ttl_s: float | None) -> None:
        """Put a record, and demand that it is written if it must be."""
        value = b"%d" % sum(map(len, self._given.values()))
        call = timed(store, partial(store.put, key, value, expected=expected, ttl_s=ttl_s))
        version = call.answer
        what = f"a put of {key!r} that expects {expected}"
        self._judge(key, call, version is not None, what, lambda there: _fits(there, expected))
        if version is None:
            return
        demand("CRD-1", version not in self._given[key], f"{what} gave {version} again")
        self._given[key].append(version)
        self._kept[key] = _Kept(Record(value, version), _NEVER if ttl_s is None else end_of(call, ttl_s))

    def delete(self, store: CoordinationStore, key: str, expected: int | None) -> None:
        """Delete a record, and demand that it says so if it must."""
        call = timed(store, partial(store.delete, key, expected=expected))
        what = f"a delete of {key!r} that expects {expected}"
        self._judge(key, call, call.answer, what, lambda there: there is not None and _fits(there, expected))
        if call.answer:
            del self._kept[key]

    def _judge(
        self,
        key: str,
        call: Timed[object],
        succeeded: bool,
        what: str,
        must_succeed: Callable[[Record | None], bool],
    ) -> None:
        """Demand that a write succeeded if it must, with what is or may be there."""
        there = self._possible(key, call)
        clause = "CRD-3" if key in self._kept and there == [None] else "CRD-2"
        allowed = {must_succeed(record) for record in there}
        demand(clause, succeeded in allowed, f"{what} was answered {call.answer}, and there is {there}")

    def read(self, store: CoordinationStore) -> None:
        """Get and scan, and demand what must be there."""
        for prefix in (self.beginning + letters for letters in ("", "a", "a_")):
            call = timed(store, partial(_look, store, self._keys, prefix))
            got, scanned = call.answer
            demand("CRD-1", list(scanned) == sorted(scanned), f"a scan is in the order {list(scanned)}")
            demand(
                "CRD-1", got.keys() | scanned.keys() <= set(self._keys), f"{[*got, *scanned]} were returned"
            )
            for key in self._keys:
                there = self._possible(key, call)
                clause = "CRD-3" if key in self._kept and there == [None] else "CRD-1"
                demand(
                    clause, got.get(key) in there, f"a get of {key!r} returned {got.get(key)}, not {there}"
                )
                there = there if key.startswith(prefix) else [None]
                found = f"a scan of {prefix!r} returned {scanned.get(key)} of {key!r}, not {there}"
                demand(clause, scanned.get(key) in there, found)

    def _possible(self, key: str, call: Timed[object]) -> list[Record | None]:
        """What a call may have found under a key: two things if its record ended about then."""
        kept = self._kept.get(key)
        if kept is None or kept.end.is_surely_over(call.before):
            return [None]
        return [kept.record] if kept.end.is_surely_ahead(call.after) else [kept.record, None]


def _look(
    store: CoordinationStore, keys: list[str], prefix: str
) -> tuple[dict[str, Record], dict[str, Record]]:
    return store.get(keys), store.scan(prefix)


def _fits(there: Record | None, expected: int | None) -> bool:
    return expected is None or expected == (ABSENT if there is None else there.version)
