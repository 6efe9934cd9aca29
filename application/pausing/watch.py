"""The thread that looks for pauses, for all consumers of an orchestrator."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from logging import Logger
from math import inf
from time import monotonic
from typing import NamedTuple, Protocol

from ...domain.errors import JobsError
from ...ports import CoordinationStore
from ...ports.signal_safe_event import SignalSafeEvent
from ..cancelling.announcements import key_of as cancels_of
from ..cancelling.announcements import versions_of
from ..forks import start_anew_in_children
from ..signals.thread_start import start_thread
from .records import Pause, key_of, pauses_among

LOOK_S = 0.5
"""Seconds between two looks while jobs run, or a queue is paused."""
_IDLE_LOOK_S = 10.0
"""Likewise while all consumers wait for jobs: they look once more when one comes."""
_AWAY_S = 10.0
"""For how long jobs start without a look, after the store didn't answer one."""
_FIRST_LOOK_S = 1.0
"""The longest that a consumer waits for the first look at its queue, if the store is away."""


class _Seen(NamedTuple):
    """What a look saw of a queue."""

    pause: Pause | None
    look: int
    """Which look it was. Looks may overlap, so an older one may end after a newer one."""
    asked_s: float
    """When that look asked the store."""


class Pausable(Protocol):
    """A consumer that stops and goes on as its queue is paused and resumed. No call of it raises."""

    queue: str

    @property
    def is_idle(self) -> bool:
        """Whether it only waits for jobs, and :meth:`PauseWatch.refresh` is called before it starts one."""

    def tell(self, pause: Pause | None) -> None:
        """Say whether the queue is paused; this waits for nothing."""

    def release(self) -> None:
        """Release the jobs that haven't been started, if its queue is paused."""

    def renew(self) -> None:
        """Extend the leases now: some running job of the queue is to be cancelled."""


class PauseWatch:
    """Tells consumers twice a second whether their queues are paused, as long as any of them works.

    While all wait for jobs it hardly asks, as an idle worker should cost nothing; then :meth:`refresh` does
    before a job starts. If the store is away, the last known state stands; a queue that was never seen isn't
    paused.

    Args:
        store: Where the pauses are.
        logger: Where failures are told.
        is_own: Whether the store is where the queues are: then it answers if they do.
    """

    def __init__(self, store: CoordinationStore, logger: Logger, *, is_own: bool) -> None:
        self._store = store
        self._logger = logger
        self._is_own = is_own
        self.start_anew()
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """Forget the consumers: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, threading.Lock]] = []
        """Who waits for a look: which, and a lock that is released once it has ended."""
        self._members: list[Pausable] = []
        self._known: dict[str, _Seen] = {}
        """What was last seen of queues."""
        self._announced: dict[str, int] = {}
        """The version of the last announcement of cancellations that was seen, by queue."""
        self._cancelling: set[str] = set()
        """The queues whose consumers have yet to be told of one."""
        self._tried_s = -inf
        """When the last look ended, whether the store answered or not."""
        self._away_until_s = -inf
        """Until when no job waits for a look."""
        self._begun = 0
        """How many looks were begun."""
        self._done = 0
        """The newest look that has ended."""
        self._thread: _Thread | None = None

    @contextmanager
    def watching(self, member: Pausable) -> Iterator[None]:
        """Tell ``member`` of pauses of its queue, from the first on before this yields."""
        try:
            self._join(member)
            yield
        finally:
            self._leave(member)

    def has_cancels(self, queue: str) -> bool:
        """Whether cancellations of jobs of this queue are announced, as of the last look."""
        return queue in self._announced

    def look(self) -> None:
        """Look at the queues of all members now, tell them what was seen, and have them release jobs."""
        for member in self._look():
            member.release()
        with self._lock:
            queues, self._cancelling = self._cancelling, set()
            members = [member for member in self._members if member.queue in queues]
        for member in members:
            member.renew()

    def refresh(self, queue: str) -> None:
        """Look at the queues of all members unless ``queue`` was seen just now: a job is about to start."""
        now = monotonic()
        if self._was_seen_since(now - LOOK_S, queue) or now < self._away_until_s:
            return
        if self._is_own:
            self._safely(self._look)
            return
        self._wait_for_look()
        with self._lock:
            if not self._was_seen_since(now, queue):
                self._away_until_s = monotonic() + _AWAY_S

    def _was_seen_since(self, moment_s: float, queue: str) -> bool:
        seen = self._known.get(queue)
        return seen is not None and seen.asked_s >= moment_s

    def _wait_for_look(self) -> None:
        """Wait until a look has ended that begins from now on."""
        ended = threading.Lock()  # not a condition, which a signal handler that raises leaves unlocked
        ended.acquire()
        with self._lock:
            look = self._begun + 1  # the present one doesn't ask for the queues of those who joined since
            if self._thread is None:
                return
            self._waiting.append((look, ended))
            self._thread.look_now.set()
        ended.acquire(timeout=_FIRST_LOOK_S)

    def _look(self) -> list[Pausable]:
        """Look at the queues of all members, tell them what was seen, and return them."""
        with self._lock:
            self._begun += 1
            members, look, asked_s = list(self._members), self._begun, monotonic()
        queues = list({member.queue for member in members})
        seen: dict[str, _Seen] = {}
        cancels: dict[str, int] = {}
        try:
            records = self._store.get([key for queue in queues for key in (key_of(queue), cancels_of(queue))])
            pauses, cancels = pauses_among(records), versions_of(records)
            seen = {queue: _Seen(pauses.get(queue), look, asked_s) for queue in queues}
        except JobsError as error:
            self._logger.debug("pauses are as they were, as nothing can be asked: %s", error)
        finally:
            self._tell(look, seen, cancels)
            self._tried_s = monotonic()
        return members

    def look_safely(self) -> None:
        """Do as :meth:`look`; a fault of an adapter is logged."""
        self._safely(self.look)

    def _safely(self, look: Callable[[], object]) -> None:
        try:
            look()
        except Exception:
            self._logger.exception("pauses are as they were")

    def _tell(self, look: int, seen: dict[str, _Seen], cancels: dict[str, int]) -> None:
        """Note what a look saw, and tell the members; what a newer look has seen already stands.

        Args:
            look: Which look it was.
            seen: What it saw, by queue; nothing if the store didn't answer.
            cancels: The versions of the announcements of cancellations among these queues.
        """
        with self._lock:
            new = {queue: each for queue, each in seen.items() if not self._knows_newer(queue, look)}
            self._known |= new
            self._note_cancels(new, cancels)
            self._done = max(self._done, look)
            for member in self._members:
                if member.queue in new:
                    member.tell(new[member.queue].pause)
            self._end_waits()

    def _end_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        for look, ended in waiting:
            if look <= self._done:
                ended.release()
            else:
                self._waiting.append((look, ended))

    def _knows_newer(self, queue: str, look: int) -> bool:
        return queue in self._known and self._known[queue].look > look

    def _note_cancels(self, queues: Collection[str], cancels: dict[str, int]) -> None:
        """Note for which of the queues cancellations are announced, and for which since the last look."""
        versions = {queue: version for queue, version in cancels.items() if queue in queues}
        self._cancelling |= {queue for queue in versions if self._announced.get(queue) != versions[queue]}
        others = {queue: at for queue, at in self._announced.items() if queue not in queues}
        self._announced = others | versions  # at once, as others read it without the lock

    def _join(self, member: Pausable) -> None:
        with self._lock:
            if member not in self._members:  # else a signal handler raised before it could leave
                self._members.append(member)
            if self._thread is None:
                self._thread = _Thread(self)
            known = self._known.get(member.queue)
            if known is not None:
                member.tell(known.pause)
            is_old = known is None or known.pause is not None or monotonic() - known.asked_s >= LOOK_S
        if is_old:
            self._wait_for_look()

    def _leave(self, member: Pausable) -> None:
        with self._lock:
            if member in self._members:  # not so in a child that was forked meanwhile
                self._members.remove(member)

    @property
    def is_due(self) -> bool:
        """Whether to look by itself now."""
        with self._lock:
            is_late = monotonic() - self._tried_s >= _IDLE_LOOK_S
            return is_late or not all(member.is_idle for member in self._members)

    def goes_on(self, thread: "_Thread") -> bool:
        """Whether ``thread`` is needed any longer; if none is, the next consumer starts another."""
        with self._lock:
            if self._thread is not thread:  # a signal handler raised as it was started
                return False
            if not self._members:
                self._thread = None
            return bool(self._members)


class _Thread(threading.Thread):
    """Looks twice a second, until no consumer has worked when it is about to.

    So calls that consume a job each don't start a thread each.
    """

    def __init__(self, watch: PauseWatch) -> None:
        super().__init__(name="mindtrace-jobs-pauses", daemon=True)
        self._watch = watch
        self.look_now = SignalSafeEvent()
        """Set to look at once."""
        start_thread(self)

    def run(self) -> None:
        """Look as long as consumers work."""
        while True:
            is_asked = self.look_now.wait(LOOK_S)
            self.look_now.clear()
            if not self._watch.goes_on(self):
                return
            if is_asked or self._watch.is_due:
                self._watch.look_safely()
