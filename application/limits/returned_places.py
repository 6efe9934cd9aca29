"""Places that are given back, at once or when the store is there again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import Place
from ..broker.store_outage import StoreOutage
from .places import Places

_MOST = 1000
"""The most places to give back after an outage of the store; the others end by themselves."""


class ReturnedPlaces:
    """Gives places back. No job waits for the store if it is away.

    Args:
        places: Where they are.
        outage: Whether the store is away.
    """

    def __init__(self, places: Places, outage: StoreOutage) -> None:
        self._places = places
        self._outage = outage
        self._lock = threading.Lock()
        self._later: list[Place] = []
        """Those that weren't given back while the store was away."""
        self._noted: dict[int, list[Place]] = {}
        """Where to note what ends, for each request that takes places at this moment."""

    @property
    def are_left(self) -> bool:
        """Whether there are some that are still to be given back."""
        return bool(self._later)

    def leave(
        self,
        ended: Sequence[Place] = (),
        delayed: Sequence[Place] = (),
        *,
        send: Callable[[list[Place]], None] | None = None,
    ) -> None:
        """Give back places, and those that were not while the store was away.

        Args:
            ended: The places of jobs that have ended. No job has them again, so they may be left later.
            delayed: The places of jobs that come again as the same holders: left now, or not at all.
            send: Gives them back, together with another request; raises as :meth:`Places.leave`.
        """
        with self._lock:
            for noted in self._noted.values():
                noted += ended
            later = [*self._later, *ended]
            is_away = self._outage.is_on
            self._later = later[-_MOST:] if is_away else []
        if is_away or not (later or delayed):
            return
        try:
            (send or self._places.leave)([*later, *delayed])
        except BackendUnavailable as error:
            self._outage.begin(error)
            with self._lock:
                self._later = [*later, *self._later][-_MOST:]
        else:
            self._outage.end()

    @contextmanager
    def leaving_again(self) -> Iterator[None]:
        """Give back once more, after a request that takes places, those whose jobs ended meanwhile.

        The store may have got that request last. Then it took the places again, for jobs that are gone.
        """
        noted: list[Place] = []
        try:
            with self._lock:
                self._noted[id(noted)] = noted
            yield
        finally:
            with self._lock:
                self._noted.pop(id(noted), None)
            if noted:
                with suppress(JobsError):  # else they end by themselves
                    self.leave(noted)
