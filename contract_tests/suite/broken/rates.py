"""Faults of rates: of token buckets and of windows."""

import secrets
import time
from collections.abc import Callable, Mapping
from math import inf

from ...ports import Reservation
from .fault_registry import breaks
from .leases import skew_s
from .pass_through import BrokenStore, PassThrough
from .records import coordinates

_GAP_S = 0.002
"""How long what was seen is believed before it is acted on."""


@breaks("CRD-6", where=coordinates)
class EachClientHasItsOwnRate(PassThrough):
    """A bucket is in the memory of its client: two clients do twice as much."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        return super().reserve(store, f"{key:.400}-{id(store)}", count, interval_s, burst, max_wait_s)


@breaks("CRD-6", where=coordinates)
class KeysOfACallShareTurns(PassThrough):
    """A call for several keys reserves the turns of all as those of its first."""

    def reserve_each(
        self, store: BrokenStore, counts: Mapping[str, int], interval_s: float, burst: int, max_wait_s: float
    ) -> dict[str, Reservation]:
        return {
            key: self.reserve(store, min(counts), count, interval_s, burst, max_wait_s)
            for key, count in counts.items()
        }


@breaks("CRD-6", where=coordinates)
class ACallForSeveralKeysReservesNothing(PassThrough):
    """What a call for several keys reserves is not kept."""

    def reserve_each(
        self, store: BrokenStore, counts: Mapping[str, int], interval_s: float, burst: int, max_wait_s: float
    ) -> dict[str, Reservation]:
        elsewhere = {f"{key:.400}-{secrets.token_hex(4)}": key for key in counts}
        return {
            key: self.reserve(store, other, counts[key], interval_s, burst, max_wait_s)
            for other, key in elsewhere.items()
        }


@breaks("CRD-6", where=coordinates)
class AnswersOfKeysAreMixedUp(PassThrough):
    """A call for several keys answers in the order of the keys, and not for each which it was asked for."""

    def reserve_each(
        self, store: BrokenStore, counts: Mapping[str, int], interval_s: float, burst: int, max_wait_s: float
    ) -> dict[str, Reservation]:
        answers = super().reserve_each(store, counts, interval_s, burst, max_wait_s)
        return dict(zip(counts, [answers[key] for key in sorted(answers)], strict=True))


@breaks("CRD-6", where=coordinates)
class IntervalsOfMilliseconds(PassThrough):
    """An interval is whole milliseconds: parts of one are lost a thousand times in a thousand turns."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        return super().reserve(store, key, count, int(interval_s * 1000) / 1000, burst, max_wait_s)


@breaks("CRD-6", where=coordinates)
class IgnoresTheBurst(PassThrough):
    """Turns come one by one, whatever burst is allowed."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        return super().reserve(store, key, count, interval_s, 1, max_wait_s)


@breaks("CRD-6", where=coordinates)
class IgnoresHowFarATurnIs(PassThrough):
    """Turns are reserved however far away they are."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        return super().reserve(store, key, count, interval_s, burst, inf)


@breaks("CRD-6", where=coordinates)
class RefusedTurnsCost(PassThrough):
    """A turn that is too far away is reserved and then forgotten: who asks often keeps all others out."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        waits_s = super().reserve(store, key, count, interval_s, burst, inf).waits_s
        near = [wait_s for wait_s in waits_s if wait_s <= max_wait_s]
        return Reservation(near, waits_s[len(near)] if len(near) < len(waits_s) else 0.0)


@breaks("CRD-6", where=coordinates)
class OneTurnPaysForAll(PassThrough):
    """One turn is taken from the bucket, however many were asked for."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        waits_s, retry_s = super().reserve(store, key, 1, interval_s, burst, max_wait_s)
        return Reservation(waits_s * count, retry_s)


@breaks("CRD-6", where=coordinates)
class SaysToAskAgainAtOnce(PassThrough):
    """Who is refused isn't told when to ask again, and asks all the time."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        answer = super().reserve(store, key, count, interval_s, burst, max_wait_s)
        return answer._replace(retry_s=0.0)


@breaks("CRD-6", where=coordinates)
class AsksAgainAnIntervalLater(PassThrough):
    """Who is refused is told to come an interval later, however soon the next turn is."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        answer = super().reserve(store, key, count, interval_s, burst, max_wait_s)
        return answer._replace(retry_s=answer.retry_s and answer.retry_s + interval_s)


class RateOfItsOwn(PassThrough):
    """Reserves turns by itself."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.next_turn: dict[str, float] = {}
        """When the turn after those that were reserved comes by the interval alone."""

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        super().reserve(store, key, 1, interval_s, burst, 0.0)  # which raises Closed in the end
        turn = self.first(key, interval_s, burst) - (burst - 1) * interval_s - self.now()
        waits_s = list[float]()
        while len(waits_s) < count and turn <= max_wait_s:
            waits_s.append(max(0.0, turn))
            turn += interval_s
        self.next_turn[key] = turn + (burst - 1) * interval_s + self.now()
        return Reservation(waits_s, 0.0 if len(waits_s) == count else turn)

    def first(self, key: str, interval_s: float, burst: int) -> float:
        """When the next turn comes by the interval alone."""
        return max(self.now(), self.next_turn.get(key, 0.0))


@breaks("CRD-6", where=coordinates)
class LooksThenReserves(RateOfItsOwn):
    """The next turn is read in one request and moved in another: two callers get the same."""

    def first(self, key: str, interval_s: float, burst: int) -> float:
        turn = super().first(key, interval_s, burst)
        time.sleep(_GAP_S)
        return turn


@breaks("CRD-6", where=coordinates)
class ABucketFillsForGood(RateOfItsOwn):
    """The bucket has no brim: after a pause come as many turns as it lasted."""

    def first(self, key: str, interval_s: float, burst: int) -> float:
        return self.next_turn.get(key, self.now())


@breaks("CRD-6", where=coordinates)
class ARateIsForgotten(RateOfItsOwn):
    """The record of a rate ends an interval after its last use, though turns are reserved beyond that."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._used: dict[str, float] = {}

    def first(self, key: str, interval_s: float, burst: int) -> float:
        if self.now() - self._used.get(key, 0.0) >= interval_s:
            self.next_turn.pop(key, None)
        self._used[key] = self.now()
        return super().first(key, interval_s, burst)


@breaks("CRD-6", where=coordinates)
class ReservesByTheWorkersClock(RateOfItsOwn):
    """When the next turn comes is computed from the worker's calendar."""

    def first(self, key: str, interval_s: float, burst: int) -> float:
        return max(self.now() + skew_s(), self.next_turn.get(key, 0.0))


@breaks("CRD-6", where=coordinates)
class CountsByTheWindow(PassThrough):
    """Turns are counted in windows: at the end of one and the beginning of the next, twice as many come."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._counts: dict[tuple[str, int], int] = {}

    def reserve(
        self, store: BrokenStore, key: str, count: int, interval_s: float, burst: int, max_wait_s: float
    ) -> Reservation:
        super().reserve(store, key, 1, interval_s, burst, 0.0)  # which raises Closed in the end
        now, length_s = self.now(), interval_s * burst
        window, waits_s = int(now // length_s), list[float]()
        while len(waits_s) < count and window * length_s - now <= max_wait_s:
            taken = self._counts.get((key, window), 0)
            if taken == burst:
                window += 1
                continue
            self._counts[key, window] = taken + 1
            waits_s.append(max(0.0, window * length_s - now))
        return Reservation(waits_s, 0.0 if len(waits_s) == count else window * length_s - now)
