"""The port of a coordination store: a little state that all processes of a namespace share.

Schedules, unique jobs, limits and pauses stand on it; so do cancels, where the broker itself can't cancel. A
backend may have a store of its own, or be given another's.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..domain.errors import UnsupportedCapability
from .stores import Store

ABSENT = 0
"""The version that a record has while there is none."""
MAX_KEY_CHARS = 512
MAX_VALUE_BYTES = 65_536


class Record(NamedTuple):
    """What a store keeps under one key."""

    value: bytes
    version: int
    """1 or more. Each write gives another, and no version of a key comes a second time (CRD-1)."""


class Guard(NamedTuple):
    """A write that must succeed together with something else, or neither happens (CRD-4)."""

    key: str
    expected: int
    """The version that the record must have; ``ABSENT`` if there must be none."""
    value: bytes
    """What the record contains then."""
    ttl_s: float | None = None
    """For how many seconds it is kept; None keeps it until it is deleted."""


class Place(NamedTuple):
    """One of the places that a limit gives to those who do something at the same time (CRD-5)."""

    key: str
    """What is limited."""
    limit: int
    """How many places there are, 1 or more. If callers differ, that of each call counts for that call."""
    holder: str
    """Who has it or wants it: 1 to ``MAX_KEY_CHARS`` printable characters."""
    watch: str = ""
    """The name of the :class:`PlaceWatch` that is told when its holder waits and is next (CRD-7); none if
    empty. Where a place is left, the watch of who leaves it, which isn't told of that."""


class PlaceWatch(NamedTuple):
    """Is told when one of its holders is next in line for a place (CRD-7), until it is closed."""

    name: str
    """What places name it by: up to 64 letters, digits, dots and hyphens."""
    close: Callable[[], object]
    """Tells it no more. Calling it again does nothing."""


class Reservation(NamedTuple):
    """When something that has a rate may be done (CRD-6)."""

    waits_s: list[float]
    """For each turn that was reserved, in how many seconds it is; never less than 0, ascending."""
    retry_s: float
    """In how many seconds to ask for those that were not; 0 if there are none."""


class KeyCount(NamedTuple):
    """How many have a place of one key, or wait for one (CRD-8)."""

    key: str
    """What is limited."""
    held: int
    """How many holders have a place."""
    waiting: int
    """How many wait in line."""


class PlaceCount(NamedTuple):
    """How many have places of all keys that begin alike, or wait for one (CRD-8)."""

    held: int
    """How many holders have a place, of all keys together."""
    waiting: int
    """How many wait in line, of all keys together."""
    keys: int
    """How many keys have a holder, or somebody who waits."""
    busiest: list[KeyCount]
    """The keys with the most holders; of as many, with the longest line; of equal ones, in their order."""


class CoordinationStore(Store):
    """Keeps small records by key, on a clock of its own. Any thread may call any method.

    A key is 1 to ``MAX_KEY_CHARS`` printable characters; case counts. A value is at most ``MAX_VALUE_BYTES``
    bytes. Stores of two namespaces never see each other's records (CON-2). What a store confirmed is as
    durable as a job of the same broker. Places are an exception. After a crash of the server, those that were
    given back may be taken until their time is over, and those whose holders died with it may be free.

    Every method may raise ``BackendUnavailable`` when the store can't be reached, and ``Closed`` after
    :meth:`close`. A write that raises ``BackendUnavailable`` may have taken effect or not: read the record
    again to know.
    """

    @abstractmethod
    def now(self) -> float:
        """Return the store's time, in seconds since 1970 (CRD-3). Workers' clocks don't matter."""

    @abstractmethod
    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the records of these keys, in one round trip. Keys without one are missing (CRD-1)."""

    @abstractmethod
    def scan(self, prefix: str) -> dict[str, Record]:
        """Return all records whose key begins with ``prefix``, in the order of their keys (CRD-1)."""

    @abstractmethod
    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Write a record, if its version is the expected one (CRD-1, CRD-2).

        Of several writers that expect the same version, one at most succeeds.

        Args:
            key: The record's key.
            value: What it contains then.
            expected: The version that it must have; ``ABSENT`` if there must be none; None writes it anyway.
            ttl_s: For how many seconds to keep it, by the store's clock (CRD-3); None keeps it until it is
                deleted, even if an earlier write set a time.

        Returns:
            The record's new version; None if it had another than the expected one. Then nothing changed.
        """

    @abstractmethod
    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Delete a record, if its version is the expected one; by default whatever it is (CRD-1, CRD-2).

        Returns:
            Whether there was such a record.
        """

    @abstractmethod
    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        """Take or extend places, in one step, and say for each, in order, whether its holder has it (CRD-5).

        Never more than ``limit`` holders have a place of one key. A place ends ``ttl_s`` seconds after it was
        last taken or extended, by the store's clock. Who gets none waits in line, as long as it asks again
        in time: a place that gets free goes to who has waited longest.

        Args:
            places: Those to take or to extend.
            ttl_s: For how many seconds each of them is kept.
            waits_s: Within how many seconds those who get none must ask again; by default, ``ttl_s``.
            leaving: Those to give back before that, in the same step, as by :meth:`leave_places`. Who is next
                in line gets them, whether it is in this call or not. Whoever may take a place that is still
                free after the call is told.
        """

    @abstractmethod
    def leave_places(self, places: Sequence[Place]) -> None:
        """Give places back, and leave their lines. Places that a holder doesn't have are skipped (CRD-5).

        Whoever is next in line for a place that is free then is told, by the watch that it named when it last
        asked (CRD-7).
        """

    @property
    def tells_freed_places(self) -> bool:
        """Whether it has :meth:`watch_places`."""
        return type(self).watch_places is not CoordinationStore.watch_places

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        """Have ``tell`` called with the key of a place once a holder of the watch may take it (CRD-7).

        It is called when somebody leaves a place, or the line, and the holder is next by then; not when the
        time of a place ends. It is called on any thread, possibly more than once, never with a lock of the
        store held, so that it may call the store. It must not raise. It is called with None when calls may
        have been lost, for example since the server couldn't be reached.

        Raises:
            UnsupportedCapability: the store tells nobody. Then ask again now and then.
        """
        raise UnsupportedCapability(f"{type(self).__name__} doesn't tell when places get free")

    @abstractmethod
    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        """Count who has a place or waits for one, of the keys that begin with each of these texts (CRD-8).

        It is one request and changes nothing. Places and positions whose time is over don't count. Each key
        is counted as of one moment, and two keys perhaps as of two.

        Args:
            prefixes: What the keys begin with, each 1 to ``MAX_KEY_CHARS`` characters. A key is counted for
                each of them with which it begins.
            busiest: How many keys to name at most for each of them, however many there are.
        """

    @abstractmethod
    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        """Reserve turns of something that is done every ``interval_s`` seconds at most (CRD-6).

        Over all callers, no more than ``burst`` turns come at once, and no more than ``burst`` plus
        ``t / interval_s`` in any ``t`` seconds. A turn that was reserved is gone, used or not.

        Args:
            key: What has the rate.
            count: How many turns to reserve at most.
            interval_s: Seconds between two turns, on average. A store that counts in steps of time rounds it
                up, so that no turn comes too soon.
            burst: How many turns may come at once after a pause.
            max_wait_s: Reserve no turn that is further away than this. Less than ``-burst * interval_s``
                reserves none: that only says when the next one is, by a ``retry_s`` that is 0 or less if it
                may be at once.
        """

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        """Reserve turns of several keys, each as by :meth:`reserve`, in one request where the store can.

        Args:
            counts: How many turns to reserve at most, by key.
            interval_s: Seconds between two turns of a key, on average.
            burst: How many turns of a key may come at once after a pause.
            max_wait_s: Reserve no turn that is further away than this.
        """
        return {
            key: self.reserve(key, count, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)
            for key, count in counts.items()
        }
