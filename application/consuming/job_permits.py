"""The permits to run jobs that all consumers of a process share.

A consumer asks for a permit before it takes a job from the broker, and gives it back once the handler has
ended and no other job is at hand. While others have all permits, it has no job leased for which it waits.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from time import monotonic

from ...domain.errors import JobsError
from .permit_order import Applicant, PermitOrder

_REST_FACTOR = 20
"""How many times as long as a vain look took a consumer rests after it, times the number of consumers. So the
looks at empty queues take up to a twentieth of the time of a permit."""
_LONGEST_REST_S = 1.0


class Turn(Enum):
    """What a consumer that asked for a permit may do."""

    NONE = "none"
    """Nothing: the time is over, or the wait was interrupted."""
    TAKE = "take"
    """Take jobs at once, and without waiting for them."""
    LISTEN = "listen"
    """Wait for a job: its queue was empty, a permit is free, and nobody else wants one."""


class JobPermits:
    """So many permits, and the shares of the consumers in them. Any thread may call any method of a share.

    Args:
        count: How many handlers run at once.
        order: Which consumer gets a permit first.
        clock: A clock for how long a look at a queue took.
    """

    def __init__(self, count: int, order: PermitOrder, clock: Callable[[], float] = monotonic) -> None:
        self.count = count
        self.order = order
        self.clock = clock
        self.lock = threading.Lock()
        self.free = count
        """How many nobody has; with the lock held."""
        self.shares: list[PermitShare] = []

    def share(self, weight: int = 1) -> "PermitShare":
        """Make the share of one more consumer, which comes after those before it in a strict order."""
        share = PermitShare(self, Applicant(len(self.shares), weight))
        self.shares.append(share)
        return share

    def grant(self) -> None:
        """Grant the free permits to those that want them, with the lock held."""
        while self.free:
            wanting = {share.applicant: share for share in self.shares if share.is_candidate}
            if not wanting:
                break
            self.free -= 1
            wanting[self.order.first(list(wanting))].receive_permit()
        for share in self.shares:
            if self.free:
                share.permits_changed.notify_all()  # it may listen now
        if not self.free and any(share.is_listening for share in self.shares):
            with suppress(RuntimeError):  # no thread can be started any more: what comes is released
                threading.Thread(
                    target=self._interrupt_listeners, name="mindtrace-jobs-permits", daemon=True
                ).start()

    def _interrupt_listeners(self) -> None:
        """End the waits for jobs, as no permit is free for what comes; the broker may be slow to answer."""
        for share in self.shares:
            if share.is_listening and not self.free:
                with suppress(JobsError):  # closed, or the broker is away: then nothing waits for jobs
                    share.interrupt_listening()


class PermitShare:
    """The permits of one consumer.

    The consumer's thread asks for them, and takes jobs. What is in flight decides how many it keeps: so none
    is counted twice, and none is lost, whatever becomes of the jobs.

    Args:
        permits: All permits.
        applicant: What the order knows of the consumer.
    """

    def __init__(self, permits: JobPermits, applicant: Applicant) -> None:
        self._permits = permits
        self._order = permits.order
        self.applicant = applicant
        self.permits_changed = threading.Condition(permits.lock)
        self._at_once = 1
        self._runs_batches = False
        self._interrupt: Callable[[], None] = lambda: None
        self._wake: Callable[[], None] = lambda: None
        self._wanted = 0
        self._granted = 0
        """How many it has for jobs that it is about to take."""
        self._bound = 0
        """How many it has for jobs in flight."""
        self._is_hungry = False
        """Whether its queue may have more jobs, as the last look found some."""
        self._rests_until_s = 0.0
        self._is_interrupted = False
        self.is_listening = False
        """Whether it waits for jobs, without a permit."""

    # -- of the consumer's thread -------------------------------------------------------------------

    def begin(
        self, at_once: int, *, in_batches: bool, interrupt: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        """Begin to consume.

        Args:
            at_once: How many handlers the consumer runs at once; one that runs a batch is one.
            in_batches: Whether a handler gets a batch of jobs.
            interrupt: Ends the consumer's wait for jobs.
            wake: Tells it of a permit while it waits for its jobs to end; called with locks held.
        """
        with self._permits.lock:
            self._at_once, self._runs_batches = at_once, in_batches
            self._interrupt, self._wake = interrupt, wake
            self._rests_until_s, self._is_interrupted = 0.0, False
            self.applicant.was_idle = True

    def end(self) -> None:
        """Give back what is left, as the consumer ends."""
        with self._permits.lock:
            self._wanted, self._is_hungry = 0, False
            self._permits.free += self._granted + self._bound
            self._granted = self._bound = 0
            self._permits.grant()

    def take(self, count: int, timeout_s: float) -> Turn:
        """Wait until the consumer may look for jobs; up to ``count`` permits are then at hand."""
        permits, give_up_s = self._permits, monotonic() + timeout_s
        with permits.lock:
            while True:
                self._wanted = max(0, count - self._granted)
                permits.grant()
                if self._granted:
                    self._wanted = 0
                    return Turn.TAKE
                left_s = give_up_s - monotonic()
                is_over = self._is_interrupted or (left_s <= 0 and not permits.free)
                self._is_interrupted = False
                if is_over:
                    self._wanted = 0
                    return Turn.NONE
                if permits.free:  # nobody is a candidate, not even this one
                    self._wanted = 0
                    self.is_listening = True
                    return Turn.LISTEN
                self.permits_changed.wait(left_s)

    def request(self, count: int) -> int:
        """Ask for permits without waiting; return how many of ``count`` are at hand. More may come later."""
        permits = self._permits
        with permits.lock:
            self._wanted = max(0, count - self._granted)
            if self._granted > count:
                permits.free += self._granted - count
                self._granted = count
            permits.grant()
            return self._granted

    def take_for(self, count: int) -> int:
        """End listening, as jobs came; return how many of ``count`` permits there are for them."""
        permits = self._permits
        with permits.lock:
            self.is_listening = False
            self._rests_until_s = 0.0  # its queue isn't empty
            self._is_hungry = True
            taken = min(count, permits.free)
            permits.free -= taken
            self._granted += taken
            permits.grant()
            return self._granted

    def stop_listening(self) -> None:
        """Note that the consumer waits for jobs no longer."""
        self.is_listening = False

    def found_nothing(self, look_s: float) -> None:
        """Give back the permits that are at hand: the queue is empty. The look at it took ``look_s``."""
        permits = self._permits
        with permits.lock:
            rest_s = min(_LONGEST_REST_S, _REST_FACTOR * look_s * len(permits.shares))
            self._rests_until_s = permits.clock() + rest_s
            self._is_hungry, self._wanted = False, 0
            self.applicant.was_idle = True
            self._give_back_granted()

    def give_back(self) -> None:
        """Give back the permits that are at hand, and ask for none: no job can be taken at present."""
        with self._permits.lock:
            self._is_hungry, self._wanted = False, 0
            self._give_back_granted()

    def interrupt(self) -> None:
        """End the present or the next :meth:`take`."""
        with self._permits.lock:
            self._is_interrupted = True
            self.permits_changed.notify_all()

    # -- of the jobs in flight, with their lock held ------------------------------------------------

    def bind(self, jobs: int, in_flight: int) -> None:
        """Use permits for jobs that were taken.

        Args:
            jobs: How many were taken just now.
            in_flight: How many are queued or running, these included.
        """
        with self._permits.lock:
            began = self._bound == 0
            self._use(in_flight)
            self._is_hungry = True
            self._order.charge(self.applicant, int(began) if self._runs_batches else jobs)
            self._give_back_granted()

    def bind_queued(self, in_flight: int) -> None:
        """Use permits for jobs that are queued without; otherwise as :meth:`bind`."""
        with self._permits.lock:
            self._use(in_flight)

    def trim(self, in_flight: int) -> None:
        """Give back the permits that so many queued or running jobs don't need."""
        surplus = self._bound - self._needed(in_flight)
        if surplus <= 0:
            return
        permits = self._permits
        with permits.lock:
            self._bound -= surplus
            permits.free += surplus
            if self._is_hungry:  # it takes part in the choice of who is next
                self._wanted = min(self._wanted + surplus, self._at_once - self._bound - self._granted)
            permits.grant()

    def may_start(self, running: int) -> bool:
        """Whether one more job may start beside so many; of a batch, all."""
        return running < self._bound or (self._at_once == 1 and self._bound == 1)

    def _use(self, in_flight: int) -> None:
        used = max(0, min(self._granted, self._needed(in_flight) - self._bound))
        self._bound += used
        self._granted -= used

    def _needed(self, in_flight: int) -> int:
        return min(self._at_once, in_flight)

    # -- what is asked ------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many permits it has."""
        return self._bound + self._granted

    @property
    def bound(self) -> int:
        """How many of them are for jobs in flight."""
        return self._bound

    @property
    def at_hand(self) -> int:
        """How many of them are for jobs that aren't taken yet."""
        return self._granted

    @property
    def free(self) -> int:
        """How many nobody has."""
        return self._permits.free

    @property
    def is_contended(self) -> bool:
        """Whether another consumer waits for a permit, and comes first."""
        others = [
            share.applicant for share in self._permits.shares if share is not self and share.is_candidate
        ]
        return bool(others) and self._order.first([self.applicant, *others]) is not self.applicant

    @property
    def is_candidate(self) -> bool:
        """Whether it wants a permit, and has no reason to believe that its queue is empty."""
        return self._wanted > 0 and self._permits.clock() >= self._rests_until_s

    # -- of the permits, with their lock held -------------------------------------------------------

    def receive_permit(self) -> None:
        """Get one."""
        self._wanted -= 1
        self._granted += 1
        self.permits_changed.notify_all()
        self._wake()

    def interrupt_listening(self) -> None:
        """End its wait for jobs; without the lock."""
        self._interrupt()

    def _give_back_granted(self) -> None:
        self._permits.free += self._granted
        self._granted = 0
        self._permits.grant()
