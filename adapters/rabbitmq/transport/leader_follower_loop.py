"""The leader/follower event loop of one connection: the thread that waits for an answer does the I/O.

A connection of pika's may be touched by one thread at a time. So all that speaks AMQP runs in short callbacks
of one loop. The first thread that waits becomes the leader and turns the loop. The others are followers: each
waits until its own condition holds, or until it can lead. Where nobody waits, the heartbeat thread polls.

A separate I/O thread would cost two thread switches a round trip, which is as much as the round trip itself.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep

from ....ports.signal_errors import raised_by_handler
from .errors import ClosedByClient
from .pika_io_loop import PikaIOLoop
from .pika_log import driving

CLOSE_TIMEOUT_S = 2.0
"""How long the leader, or the server, may take to let go."""
CATCH_UP_TIMEOUT_S = 5.0
"""How long the leader may take to see what has come: microseconds, unless its thread gets no turn."""
_FAULT_PAUSE_S = 0.05
"""So that what fails each time doesn't do so without a pause."""


class LeaderFollowerLoop:
    """Runs one connection's I/O in a thread that waits for it.

    Args:
        on_fault: Called in the loop when a callback raised or was interrupted: nobody knows any more what was
            written and read. What interrupts a thread that only waits ends its own call, and no other's.
    """

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self.io = PikaIOLoop()
        self._on_fault = on_fault
        # Reentrant: the handler of a signal may call wake() while its own thread holds the lock.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._leader: int | None = None
        """The thread that turns the loop."""
        self._followers = 0
        self._calls: deque[Callable[[], object]] = deque()
        self._fault: BaseException | None = None
        """A fault of which nobody has told yet."""
        self._idle_turns = 0
        """How many turns found nothing to do."""
        self.closed = False

    def call(self, function: Callable[[], object]) -> None:
        """Run ``function`` in the loop: here, or soon in the leader's thread, in the order of calls.

        Raises:
            ClosedByClient: the loop has ended.
        """
        self.wait(lambda: True, 0.0, first=function)

    def wait(
        self, done: Callable[[], object], timeout_s: float, *, first: Callable[[], object] | None = None
    ) -> bool:
        """Lead or follow until ``done`` holds or the timeout passes; return whether it holds.

        Args:
            done: Asked again and again, in any thread.
            timeout_s: How long to wait.
            first: A function to run in the loop before.

        Raises:
            ClosedByClient: ``first`` is given, and the loop has ended.
        """
        give_up = monotonic() + timeout_s
        leads = False
        try:
            with self._lock:
                if first is not None:
                    if self.closed:
                        raise ClosedByClient
                    self._calls.append(first)
                    if self._leader is not None:
                        self.io.wake()
                elif done():
                    return True
                self._followers += 1  # before `done` is asked: later changes are notified
                try:
                    while True:
                        if self._leader is None:
                            break
                        if done():
                            return True
                        left_s = give_up - monotonic()
                        if left_s <= 0 or self.closed:
                            return False
                        self._changed.wait(left_s)
                finally:
                    self._followers -= 1
                leads = True
                self._leader = threading.get_ident()
            with driving:
                return self._lead(done, give_up)
        finally:
            if leads:
                self._leader = None  # here, as an interrupt may strike where a function begins
                self._resign()

    def wake(self) -> None:
        """Have all who wait ask again whether they are done; the handler of a signal may call it too."""
        with self._lock:
            self._changed.notify_all()
            if self._leader is not None:
                self.io.wake()

    def poll(self, turns: int = 2) -> None:
        """Do what I/O is due, unless another thread leads: up to ``turns`` turns, or until one finds nothing.

        The end of a broken connection may come only in the turn after its last data.
        """
        with self._lock:
            if self._leader is not None or self.closed:
                return
            self._leader = threading.get_ident()
        left = turns

        def done() -> bool:
            nonlocal left
            left -= 1
            return left < 0 or (left < turns - 1 and self.io.was_idle)

        try:
            with driving:
                self._lead(done, 0.0)
        finally:
            self._leader = None
            self._resign()

    def catch_up(self) -> None:
        """Return once all that has come by now was seen to, such as the end of a broken connection.

        A turn that finds nothing shows that. One may be under way, and have looked before: hence two.
        """
        enough = self._idle_turns + 2

        def caught_up() -> bool:
            if self._idle_turns >= enough:
                return True
            self.io.wake()  # or the next turn waits for something to come
            return False

        self.wait(caught_up, CATCH_UP_TIMEOUT_S)

    def close(self) -> None:
        """End the loop: calls that wait fail, and no further call is accepted."""
        with self._lock:
            self.closed = True
            self.wake()
            self._changed.wait_for(lambda: self._leader is None, CLOSE_TIMEOUT_S)
            if self._leader is None:
                self.io.close()

    def _lead(self, done: Callable[[], object], give_up: float) -> bool:
        """Turn the loop until ``done`` holds, or until ``give_up``; 0 sets no limit of time."""
        io = self.io
        while True:
            try:
                if self._fault is not None:
                    self._see_to_fault()
                self._make_calls()
                if done():
                    return True
                if self.closed or 0.0 < give_up <= monotonic():
                    return False
                if self._followers:
                    self._notify_followers()
                io.turn(give_up)
                if io.was_idle:
                    self._idle_turns += 1
            except BaseException as error:
                was_waiting, io.is_waiting = io.is_waiting, False
                is_interrupt = not isinstance(error, Exception) or raised_by_handler(error)
                if was_waiting and (is_interrupt or not isinstance(error, OSError | ValueError)):
                    raise
                self._fault = error
                self._see_to_fault()
                if is_interrupt:
                    raise
                sleep(_FAULT_PAUSE_S)

    def _see_to_fault(self) -> None:
        """Tell of the last fault. If that is interrupted, the next leader tells of it first."""
        if self._fault is not None:
            self._on_fault(self._fault)
        self._fault = None

    def _make_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _resign(self) -> None:
        """Tell others that they may lead; one may have begun already."""
        with self._lock:
            if self.closed and self._leader is None:
                self.io.close()
            if self._followers or self.closed:
                self._changed.notify_all()

    def _notify_followers(self) -> None:
        with self._lock:
            self._changed.notify_all()
