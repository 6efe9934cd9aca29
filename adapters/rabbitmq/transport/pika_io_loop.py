"""The loop that pika's connections live in: sockets, timers and calls from elsewhere, one turn at a time.

pika's own would do, but for what a turn of it costs, and each job takes a turn at least. This one tells the
system nothing that it knows already, and a turn ends when whoever drives it gives up, without an alarm for
each time.
"""

import heapq
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

from pika.adapters.utils.selector_ioloop_adapter import AbstractSelectorIOLoop

_LONGEST_TURN_S = 60.0
"""Some systems know no longer waits than some weeks."""

Handler = Callable[[int, int], None]


class _Watch(NamedTuple):
    """What to do about which events of a file."""

    handler: Handler
    events: int


@dataclass(order=True, slots=True)
class _Alarm:
    """A call at a time; those of the same time in their order."""

    due: float
    number: int
    callback: Callable[[], object] = field(compare=False)


class PikaIOLoop(AbstractSelectorIOLoop):  # type: ignore[misc]
    """What pika asks of a loop, turned by whoever calls :meth:`turn`.

    One thread at a time may use it; :meth:`add_callback` and :meth:`wake` are for all.
    """

    READ = selectors.EVENT_READ
    WRITE = selectors.EVENT_WRITE
    ERROR = 0  # an error shows as readable and writable

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, _Watch] = {}
        self._changed: set[int] = set()
        """Files whose watch isn't what the system was last told."""
        self._alarms: list[_Alarm] = []
        self._numbers = count()
        self._calls: deque[Callable[[], object]] = deque()
        self.was_idle = False
        """Whether there was nothing to do in the last turn, but perhaps to wake."""
        self.is_waiting = False
        """Whether it waits: nothing is read, nor half done."""
        # A lock for this, as pika's loop has, is what a signal's handler may not take.
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._bell_file = self._bell.fileno()
        self.add_handler(self._bell_file, self._hear, self.READ)

    @property
    def is_closed(self) -> bool:
        """Whether it can't be turned any more."""
        return self._bell.fileno() == -1

    @property
    def sockets(self) -> list[int]:
        """The files that are watched for others: of a connection of pika's, its socket."""
        return [file for file in list(self._watched) if file != self._bell_file]

    @property
    def has_calls(self) -> bool:
        """Whether there are calls to make in the next turn."""
        return bool(self._calls)

    def turn(self, until: float) -> None:
        """Wait for events until then (of ``monotonic``), an alarm or a call, and see to what there is."""
        if self._changed:
            self._tell_selector()
        if self._calls:
            timeout_s = 0.0
        else:
            next_at = min(until, self._alarms[0].due) if self._alarms else until
            timeout_s = min(max(0.0, next_at - monotonic()), _LONGEST_TURN_S)
        watched = self._watched
        idle = True
        self.is_waiting = True
        present_events = self._selector.select(timeout_s)
        self.is_waiting = False
        for key, events in present_events:
            watch = watched.get(key.fd)
            if watch is not None and (present := events & watch.events):
                watch.handler(key.fd, present)
                idle = idle and key.fd == self._bell_file
        called = self.run_due()
        self.was_idle = idle and not called

    def run_due(self) -> bool:
        """Make the calls that are due, if any; those that they ask for are for the next turn."""
        calls = self._calls
        called = bool(calls)
        for _ in range(len(calls)):
            calls.popleft()()
        alarms = self._alarms
        if alarms:
            now = monotonic()
            while alarms and alarms[0].due <= now:
                heapq.heappop(alarms).callback()
                called = True
        return called

    def forget(self) -> None:
        """Do nothing more of what was asked for: who asked may fail again."""
        for file in self.sockets:
            self.remove_handler(file)
        self._calls.clear()
        self._alarms.clear()
        self._selector.close()  # an interrupt may have come between what it noted and what it told the system
        self._selector = selectors.DefaultSelector()
        self._changed = set(self._watched)

    def wake(self) -> None:
        """End the present turn, or the next, at once; a signal's handler may do so too."""
        with suppress(OSError):  # it is full of what wakes already, or closed
            self._button.send(b"!")

    # -- what pika asks for -----------------------------------------------------------------------

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Have it called in the loop, soon."""
        self._calls.append(callback)
        self.wake()

    def call_later(self, delay: float, callback: Callable[[], object]) -> object:
        """Have it called in ``delay`` seconds; what is returned is for :meth:`remove_timeout`."""
        alarm = _Alarm(monotonic() + delay, next(self._numbers), callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def remove_timeout(self, timeout_handle: Any) -> None:
        """Don't call it after all."""
        with suppress(ValueError):  # it was called
            self._alarms.remove(timeout_handle)
            heapq.heapify(self._alarms)

    def add_handler(self, fd: int, handler: Handler, events: int) -> None:
        """Watch a file."""
        if fd in self._watched:  # its number was another's, which was closed without a word
            self.remove_handler(fd)
        self._watched[fd] = _Watch(handler, events)
        self._changed.add(fd)

    def update_handler(self, fd: int, events: int) -> None:
        """Watch it for other events."""
        self._watched[fd] = self._watched[fd]._replace(events=events)
        self._changed.add(fd)

    def remove_handler(self, fd: int) -> None:
        """Watch it no more: at once, since its number may be another file's soon."""
        del self._watched[fd]
        self._changed.discard(fd)
        with suppress(KeyError):  # it was never told
            self._selector.unregister(fd)

    def start(self) -> None:
        """Not here: whoever waits for something turns it."""
        raise NotImplementedError

    def stop(self) -> None:
        """Not here: it stops with the turn."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of all; again is a no-op."""
        self._selector.close()
        self._bell.close()
        self._button.close()
        self._watched.clear()
        self._calls.clear()
        self._alarms.clear()

    def _tell_selector(self) -> None:
        told = self._selector.get_map()
        while self._changed:
            fd = next(iter(self._changed))
            events = self._watched[fd].events
            try:
                if fd not in told:
                    self._selector.register(fd, events)
                elif told[fd].events != events:
                    self._selector.modify(fd, events)
            except (OSError, ValueError):  # what can't be watched is a fault only once
                self._changed.discard(fd)
                raise
            self._changed.discard(fd)

    def _hear(self, _fd: int, _events: int) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(512)
