"""Processes under supervision: one that dies is started anew, and all are stopped together."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import ERROR, WARNING, Logger
from time import monotonic
from typing import Protocol

from ...domain import RetryPolicy
from ..process.signal_queue import AT_ONCE, STOP, SignalQueue

_BACKOFF = RetryPolicy(base_delay_s=1.0, max_delay_s=60.0)
_LIVED_S = 60.0
"""A process that lived this long before it died was well: its next one is started without much delay."""
_TICK_S = 1.0
_PROVING_S = 0.05
_TWICE_S = 0.2
"""A stop signal so soon after the first is the same one: `timeout` signals a process, and then its group."""
_MARGIN_S = 8.0
"""How much longer than it may take a process is given, before it is killed."""
_PREPARES_S = 60.0
"""How long a process waits for its successor to import: that may wait for a lock, say, which it holds."""
_DISMISSED_S = 2.0
"""For how long a successor that isn't needed keeps a supervisor that has nothing else to do."""

RELOAD = signal.SIGUSR1
CODE_CHANGED = 255
"""No signal: what a watcher of the code posts."""
SIGNALS = (*STOP, RELOAD, signal.SIGCHLD)
"""What the signal queue of a supervisor has to collect."""


class Process(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its id."""

    @property
    def ready(self) -> bool:
        """Whether it has ever begun to work."""

    @property
    def finished(self) -> bool:
        """Whether it has ended because its work is done; an exit code of 0 doesn't say so."""

    @property
    def is_to_be_replaced(self) -> bool:
        """Whether it has ended to have another take its place, with all its jobs settled or given back."""

    @property
    def asks_for_another(self) -> str | None:
        """Why another is to take its place, once it is its turn; None if it doesn't ask for that."""

    def poll(self) -> int | None:
        """The exit code, below 0 for the signal that killed it; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal; one that has ended is passed over."""

    @property
    def is_prepared(self) -> bool:
        """Whether it has imported what it needs, if it was started to wait for :meth:`begin`."""

    def begin(self) -> None:
        """Have it work in the place for which it was prepared; as soon as it can, if it isn't yet."""

    def replace(self) -> None:
        """Have it end once the jobs that run have ended, to be replaced; if it has ended, do nothing."""


@dataclass(slots=True)
class _Slot:
    """The place of one process, whichever fills it at the time."""

    number: int
    process: Process | None = None
    began_s: float = 0.0
    deaths: int = 0
    """Since one was well."""
    start_at_s: float = 0.0
    told: bool = False
    """Whether the process was told to stop."""
    leaves: bool = False
    """Whether it was told that another takes its place, after the jobs that run."""
    finished: bool = False
    successor: Process | None = None
    """Which is prepared to take the place of the process, and does nothing yet."""
    waits_until_s: float = 0.0
    """Until when the process waits for the successor to be prepared."""
    is_succeeded: bool = False
    """Whether a successor was started, or tried to be."""


class Supervisor:
    """Keeps so many processes running until a signal comes.

    A process that ends is replaced, with backoff, whatever its exit code, unless it has finished its work or
    was told to stop; without backoff if it asked for that. SIGINT, SIGTERM or SIGHUP is passed on to each as
    SIGTERM. A second one is passed on as SIGQUIT, so that they stop at once. Those that are left then are
    killed. SIGUSR1 stops them one after the other, and starts them anew. One that asks for another in its
    place is started anew in its turn, too, but works on until the one that takes its place is prepared, and
    its running jobs may take as long as they need.
    :data:`CODE_CHANGED` stops all of them, and each is started anew as it ends. Until the first has begun to
    work, no other is started: what is wrong with one is wrong with all.

    Args:
        start: Starts the process of a slot, which has a number.
        prepare: Likewise, but the process waits until it is told to begin.
        slots: How many work side by side at most.
        grace_s: How many seconds a process may take to stop after the first signal.
        signal_queue: Where :data:`SIGNALS` arrive.
        logger: Where it tells what it does.
        hopeless: Whether a process that never began to work, and ended with this exit code, would only end so
            again.
        on_tick: Called about once a second, and once all processes have ended.
        wanted: How many are to run now, those of the lowest numbers; 1 at least. None is as many as there are
            slots. One that is too many ends once its running jobs have ended.
    """

    def __init__(
        self,
        start: Callable[[int], Process],
        prepare: Callable[[int], Process],
        slots: int,
        *,
        grace_s: float,
        signal_queue: SignalQueue,
        logger: Logger,
        hopeless: Callable[[int], bool],
        on_tick: Callable[[], None],
        wanted: Callable[[], int] | None = None,
    ) -> None:
        self._start = start
        self._prepare = prepare
        self._slots = [_Slot(number) for number in range(slots)]
        self._grace_s = grace_s
        self._signal_queue = signal_queue
        self._logger = logger
        self._hopeless = hopeless
        self._on_tick = on_tick
        self._wanted = wanted
        self._stopped_s = 0.0
        """When the first signal to stop came."""
        self._kill_at_s: float | None = None
        """When to kill what is left; None while it is not stopping."""
        self._at_once = False
        self._exit_code = 0
        self._proven = False
        """Whether one has ever begun to work."""
        self._in_turn: list[_Slot] = []
        """Those whose processes are to be started anew, one after the other."""
        self._dismissed: list[Process] = []
        """Successors that aren't needed any more, and were told to stop."""
        self._dismissed_s = 0.0
        """When the last of them was told."""

    def run(self) -> int:
        """Supervise until every process has ended.

        Returns:
            0 where all ended well, else the exit code of one that didn't.
        """
        while True:
            self._reap()
            self._on_tick()  # also once all have ended, as they may have done within one tick
            is_needed = not self._stopping and any(self._is_missing(slot) for slot in self._slots)
            if not is_needed and not self._left():
                return self._exit_code
            if not is_needed and not self._running():
                self._kill_the_dismissed()
            if self._stopping:
                self._kill_the_late()
            else:
                self._start_the_due()
                self._end_the_spare()
                self._note_who_asks()
                self._go_on_replacing()
            for number in self._signal_queue.wait(self._next_s() - monotonic()):
                if number in STOP:
                    self._on_stop(signal.Signals(number).name)
                elif number == RELOAD and not self._stopping:
                    self._on_reload()
                elif number == CODE_CHANGED and not self._stopping:
                    self._on_code_changed()

    @property
    def _stopping(self) -> bool:
        return self._kill_at_s is not None

    def _running(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None]

    def _left(self) -> list[Process]:
        """Return all that have not ended, also those that never worked."""
        successors = [slot.successor for slot in self._slots if slot.successor is not None]
        return [*self._running(), *successors, *self._dismissed]

    def _is_wanted(self, slot: _Slot) -> bool:
        return self._wanted is None or slot.number < self._wanted()

    def _is_missing(self, slot: _Slot) -> bool:
        """Whether a process is to be started in it, now or later."""
        return slot.process is None and not slot.finished and self._is_wanted(slot)

    def _next_s(self) -> float:
        """When there is something to do, if nothing comes before."""
        moments = [monotonic() + (_TICK_S if self._proven else _PROVING_S)]
        if self._kill_at_s is not None:
            moments.append(self._kill_at_s)
        if self._proven:
            moments += [slot.start_at_s for slot in self._slots if self._is_missing(slot)]
        return min(moments)

    def _on_stop(self, why: str) -> None:
        now = monotonic()
        if self._stopping and now - self._stopped_s < _TWICE_S:
            return
        if self._stopping and not self._at_once:
            self._at_once = True
            self._kill_at_s = now + _MARGIN_S
            self._logger.warning("%s again: stopping at once", why)
        elif not self._stopping:
            self._stopped_s = now
            self._kill_at_s = now + self._grace_s + _MARGIN_S
            self._logger.info("%s: stopping", why)
        self._tell_all()

    def _tell_all(self) -> None:
        """Tell each process to stop that wasn't told yet; at once, if it is too late for anything else."""
        for slot in self._slots:
            if slot.process is not None and (self._at_once or not slot.told):
                slot.process.send_signal(AT_ONCE if self._at_once else signal.SIGTERM)
                slot.told = True
        self._dismiss_successors(self._slots)

    def _dismiss_successors(self, slots: Sequence[_Slot]) -> None:
        """Tell those to stop that were to take the places of these processes."""
        for slot in slots:
            if slot.successor is not None:
                slot.successor.send_signal(signal.SIGTERM)
                self._dismissed.append(slot.successor)
                self._dismissed_s = monotonic()
            slot.successor, slot.is_succeeded = None, False

    def _on_reload(self) -> None:
        self._logger.info("reloading")
        self._in_turn += [
            slot for slot in self._slots if slot.process is not None and slot not in self._in_turn
        ]
        self._dismiss_successors(self._slots)
        self._start_without_delay()

    def _on_code_changed(self) -> None:
        """Have no process start another job, not even one that is starting: it may have read the old code."""
        self._logger.info("the code has changed: restarting")
        self._tell_all()
        self._start_without_delay()

    def _start_without_delay(self) -> None:
        for slot in self._slots:
            slot.start_at_s, slot.deaths = 0.0, 0

    def _kill_the_late(self) -> None:
        if self._kill_at_s is not None and monotonic() >= self._kill_at_s:
            for process in self._left():
                self._logger.error("process %d doesn't stop: killing it", process.pid)
                process.send_signal(signal.SIGKILL)
            self._kill_at_s = monotonic() + _MARGIN_S

    def _kill_the_dismissed(self) -> None:
        """Kill successors that still import: they have no job, and the supervisor would wait for them."""
        if monotonic() >= self._dismissed_s + _DISMISSED_S:
            for process in self._dismissed:
                process.send_signal(signal.SIGKILL)

    def _reap(self) -> None:
        self._dismissed = [process for process in self._dismissed if process.poll() is None]
        self._reap_successors()
        for slot in self._slots:
            process = slot.process
            if process is None:
                continue
            code = process.poll()
            self._proven = self._proven or process.ready  # afterwards: it may have begun just before it ended
            if code is None:
                continue
            slot.process = None
            if self._stopping:
                # One that was told before it could listen ends by the signal itself, and had nothing in hand.
                well = process.finished or process.is_to_be_replaced or code == -signal.SIGTERM
                self._exit_code = self._exit_code or (0 if well else _positive(code))
            elif slot.told:  # perhaps before it could begin to work: that proves nothing
                pass
            elif process.is_to_be_replaced:
                self._tell_replaced(slot, process)
                slot.start_at_s, slot.deaths = 0.0, 0
            elif process.finished:
                self._proven = slot.finished = True
                self._dismiss_successors([slot])
            elif not self._proven and self._hopeless(code):
                self._exit_code, self._kill_at_s = _positive(code), monotonic()
            else:
                # Perhaps somebody is stopping all processes one by one, and this one next.
                level = WARNING if code in (0, -signal.SIGTERM) else ERROR
                self._replace(slot, f"process {process.pid} {_how_it_ended(code)}", level)
            if slot in self._in_turn:
                self._in_turn.remove(slot)

    def _reap_successors(self) -> None:
        for slot in self._slots:
            if slot.successor is not None and (code := slot.successor.poll()) is not None:
                text = "process %d %s before it could take the place of another"
                self._logger.error(text, slot.successor.pid, _how_it_ended(code))
                slot.successor = None

    def _tell_replaced(self, slot: _Slot, process: Process) -> None:
        if slot.leaves and self._is_wanted(slot):
            self._logger.info("process %d ended, and another takes its place", process.pid)
        elif slot.leaves:
            self._logger.info("process %d ended: it was one too many", process.pid)
        else:
            self._logger.warning("process %d ended: a handler went on after its time limit", process.pid)

    def _replace(self, slot: _Slot, why: str, level: int) -> None:
        slot.deaths = 1 if monotonic() - slot.began_s >= _LIVED_S else slot.deaths + 1
        delay_s = _BACKOFF.longest_delay_s(slot.deaths)
        slot.start_at_s = monotonic() + delay_s
        self._logger.log(level, "%s; another starts in %g s", why, delay_s)

    def _start_the_due(self) -> None:
        for slot in self._slots:
            if not self._proven and self._running():
                return
            if self._is_missing(slot) and monotonic() >= slot.start_at_s:
                slot.began_s, slot.told, slot.leaves = monotonic(), False, False
                try:
                    slot.process = self._take_successor(slot) or self._start(slot.number)
                except OSError as error:  # no memory, say, or too many processes
                    if not self._proven:
                        raise
                    self._replace(slot, f"no process can be started: {error}", ERROR)

    def _take_successor(self, slot: _Slot) -> Process | None:
        successor = slot.successor
        slot.successor, slot.is_succeeded = None, False
        if successor is not None:
            successor.begin()
        return successor

    def _end_the_spare(self) -> None:
        self._dismiss_successors([slot for slot in self._slots if not self._is_wanted(slot)])
        for slot in self._slots:
            if slot.process is not None and not (slot.told or slot.leaves or self._is_wanted(slot)):
                slot.process.replace()
                slot.leaves = True

    def _note_who_asks(self) -> None:
        self._in_turn += [
            slot
            for slot in self._slots
            if slot.process is not None
            and slot not in self._in_turn
            and not (slot.told or slot.leaves)
            and slot.process.asks_for_another is not None
        ]

    def _go_on_replacing(self) -> None:
        """Have the first end that is to be started anew, once the one before it works again."""
        if not self._in_turn or any(self._is_missing(slot) for slot in self._slots):
            return
        slot = self._in_turn[0]
        if slot.process is None or slot.told or slot.leaves:
            return
        if not all(each.ready for each in self._running()):
            return
        if (why := slot.process.asks_for_another) is None:
            slot.process.send_signal(signal.SIGTERM)
            slot.told = True
        elif self._is_successor_prepared(slot, why):
            slot.process.replace()
            slot.leaves = True

    def _is_successor_prepared(self, slot: _Slot, why: str) -> bool:
        """Start a successor, if there was none; return whether the process needn't wait for it any longer."""
        if slot.successor is not None:
            return slot.successor.is_prepared or self._is_too_slow(slot, slot.successor)
        if slot.process is None or slot.is_succeeded:  # it couldn't be prepared: another starts afterwards
            return True
        slot.is_succeeded = True
        self._logger.info("process %d is to be replaced: %s", slot.process.pid, why)
        try:
            slot.successor = self._prepare(slot.number)
        except OSError as error:  # no memory, say
            self._logger.warning("no process can be prepared: %s", error)
            return True
        slot.waits_until_s = monotonic() + _PREPARES_S
        return slot.successor.is_prepared

    def _is_too_slow(self, slot: _Slot, successor: Process) -> bool:
        """Whether the process is to end though its successor isn't prepared yet, which then begins later."""
        if monotonic() < slot.waits_until_s:
            return False
        text = (
            "process %d still imports after %g s: the one whose place it takes isn't kept waiting any longer"
        )
        self._logger.warning(text, successor.pid, _PREPARES_S)
        return True


def _positive(code: int) -> int:
    """An exit code as a shell shows it."""
    return code if code >= 0 else 128 - code


def _how_it_ended(code: int) -> str:
    if code == 0:
        return "ended with exit code 0, and nobody here stopped it"
    if code > 0:
        return f"died with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
