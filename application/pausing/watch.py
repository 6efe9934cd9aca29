"""The thread that looks for pauses and changed limits, for all consumers of an orchestrator."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import Logger
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import CoordinationStore
from ...ports.signal_safe_event import SignalSafeEvent
from ..broker.store_outage import StoreOutage
from ..cancelling.announcements import key_of as cancels_of
from ..cancelling.announcements import versions_of
from ..limits.changes import LimitChange, changes_among
from ..limits.declarations import Declarations
from ..limits.in_force import InForce
from ..process.forks import start_anew_in_children
from ..process.thread_start import start_thread
from .records import Pause, key_of, pauses_among

LOOK_S = 0.5
"""Seconds between two looks while jobs run, or a queue is paused."""
_IDLE_LOOK_S = 10.0
"""Likewise while all consumers wait for jobs: they look once more when one comes."""
_AWAY_S = 10.0
"""For how long jobs start without a question, after the store didn't answer one."""
_FIRST_LOOK_S = 1.0
"""The longest that a consumer waits for the first look at its queue, if the store is away."""


class _Seen(NamedTuple):
    """What a look saw of a queue."""

    pause: Pause | None
    look: int
    """Which look it was. Looks may overlap, so an older one may end after a newer one."""
    asked_s: float
    """When that look asked the store."""
    limit_keys: Collection[str] = ()
    """The keys of the limits of which it asked whether they were changed."""
    changes: Mapping[str, LimitChange] = MappingProxyType({})
    """How those were changed that were, by key."""


class Pausable(Protocol):
    """A consumer that stops and goes on as its queue is paused and resumed. No call of it raises."""

    queue: str
    limits: Sequence[InForce[Any]]
    """What limits its jobs: it obeys what it is told of their changes."""

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
        logger: Where failures are told, and which jobs the gates of these queues end.
        is_own: Whether the store is where the queues are: then it answers if they do.
    """

    def __init__(self, store: CoordinationStore, logger: Logger, *, is_own: bool) -> None:
        self._store = store
        self.logger = logger
        self._is_own = is_own
        self._declarations = Declarations(store, logger)
        means = "jobs run though they may be paused, cancelled or replaced,"
        self.outage = StoreOutage(monotonic, logger, _AWAY_S, means)
        """When the gates of these queues decide without the store."""
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
        began_s = monotonic()
        members = self._look()
        for member in members:
            member.release()
        self._declarations.renew(
            limit
            for member in members
            if self._was_seen_since(began_s, member.queue)
            for limit in member.limits
        )
        with self._lock:
            queues, self._cancelling = self._cancelling, set()
            members = self._members_of(queues)
        for member in members:
            member.renew()

    def refresh(self, queue: str) -> None:
        """Look at the queues of all members unless ``queue`` was seen just now: a job is about to start."""
        now = monotonic()
        if self._was_seen_since(now - LOOK_S, queue):
            return
        if self._is_own:
            self._safely(self._look)
        elif not self.outage.is_on:
            self._wait_for_look()
            self._note_outage(now, queue)

    def refresh_limits(self, queue: str) -> None:
        """Do as :meth:`refresh` while a consumer of the queue runs, before it asks for places or turns."""
        if any(member.queue == queue for member in self._members):
            self.refresh(queue)

    def pause_of(self, queue: str) -> Pause | None:
        """Return the pause of a queue, for a call that takes a job without a loop; half a second old at most.

        Raises:
            BackendUnavailable: the store is where the queue is, and doesn't answer.
        """
        now, seen = monotonic(), self._known.get(queue)
        is_open = seen is not None and seen.pause is None and now - seen.asked_s < LOOK_S
        if not is_open and (self._is_own or not self.outage.is_on):
            self._look(queue)
            self._note_outage(now, queue)
            seen = self._known.get(queue)
        return None if seen is None else seen.pause

    def _note_outage(self, asked_s: float, queue: str) -> None:
        """Begin an outage of the store if no look since ``asked_s`` has found the queue."""
        if not self._is_own and not self._was_seen_since(asked_s, queue):
            self.outage.begin(BackendUnavailable("it doesn't answer"))

    def look_anew_at(self, queue: str) -> None:
        """Have the next call look at a queue, as this process has just paused or resumed it."""
        with self._lock:
            self._known.pop(queue, None)

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

    def _look(self, also: str | None = None) -> list[Pausable]:
        """Look at the queues of all members, and at another one; tell them what was seen, and return them."""
        with self._lock:
            self._begun += 1
            members, look, asked_s = list(self._members), self._begun, monotonic()
        queues = list({member.queue for member in members}.union(() if also is None else (also,)))
        limit_keys = {limit.key for member in members for limit in member.limits}
        seen: dict[str, _Seen] = {}
        cancels: dict[str, int] = {}
        try:
            keys = [key for queue in queues for key in (key_of(queue), cancels_of(queue))]
            records = self._store.get([*keys, *limit_keys])
            pauses, cancels, changes = pauses_among(records), versions_of(records), changes_among(records)
            seen = {queue: _Seen(pauses.get(queue), look, asked_s, limit_keys, changes) for queue in queues}
            self.outage.end()
        except JobsError as error:
            if also is not None and self._is_own and isinstance(error, BackendUnavailable):
                raise
            self.logger.debug("pauses are as they were, as nothing can be asked: %s", error)
        finally:
            changed = self._tell(look, seen, cancels)
            self._tried_s = monotonic()
        for limit in changed:  # without the lock: who is told may ask the store
            limit.tell()
        return members

    def look_safely(self) -> None:
        """Do as :meth:`look`; a fault of an adapter is logged."""
        self._safely(self.look)

    def _safely(self, look: Callable[[], object]) -> None:
        try:
            look()
        except Exception:
            self.logger.exception("pauses are as they were")

    def _tell(self, look: int, seen: dict[str, _Seen], cancels: dict[str, int]) -> list[InForce[Any]]:
        """Note what a look saw, and tell the members; what a newer look has seen already stands.

        Args:
            look: Which look it was.
            seen: What it saw, by queue; nothing if the store didn't answer.
            cancels: The versions of the announcements of cancellations among these queues.

        Returns:
            The limits that allow something else than before.
        """
        changed: list[InForce[Any]] = []
        with self._lock:
            new = self._newer(seen, look)
            self._known |= new
            self._note_cancels(new, cancels)
            self._done = max(self._done, look)
            for member in self._members_of(new):
                member.tell(new[member.queue].pause)
                changed += _note_changes(member, new[member.queue])
            self._end_waits()
        return changed

    def _end_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        for look, ended in waiting:
            if look <= self._done:
                ended.release()
            else:
                self._waiting.append((look, ended))

    def _newer(self, seen: dict[str, _Seen], look: int) -> dict[str, _Seen]:
        """Return what a look saw of the queues of which no newer look is known."""
        return {
            queue: each
            for queue, each in seen.items()
            if queue not in self._known or self._known[queue].look <= look
        }

    def _members_of(self, queues: Collection[str]) -> list[Pausable]:
        return [member for member in self._members if member.queue in queues]

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
                _note_changes(member, known)
            is_old = (
                known is None
                or known.pause is not None
                or monotonic() - known.asked_s >= LOOK_S
                or not {limit.key for limit in member.limits}.issubset(known.limit_keys)
            )
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


def _note_changes(member: Pausable, seen: _Seen) -> list[InForce[Any]]:
    """Have the limits of a consumer note how they are changed, and return those that allow something else."""
    return [limit for limit in member.limits if limit.key in seen.limit_keys and limit.note(seen.changes)]


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
            self.look_now.wait(LOOK_S)
            is_asked = self.look_now.clear()  # not what the wait says: it may have been set since
            if not self._watch.goes_on(self):
                return
            if is_asked or self._watch.is_due:
                self._watch.look_safely()
