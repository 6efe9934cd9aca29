"""Processes under supervision: one that dies is started anew, and all are stopped together."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from logging import ERROR, WARNING, Logger
from time import monotonic
from typing import Protocol

from ...domain import RetryPolicy
from ..signals.signal_queue import AT_ONCE, STOP, SignalQueue

_BACKOFF = RetryPolicy(base_delay_s=1.0, max_delay_s=60.0)
_LIVED_S = 60.0
"""A process that lived this long before it died was well: its next one is started without much delay."""
_TICK_S = 1.0
_PROVING_S = 0.05
_TWICE_S = 0.2
"""A stop signal so soon after the first is the same one: `timeout` signals a process, and then its group."""
_MARGIN_S = 8.0
"""How much longer than it may take a process is given, before it is killed."""

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

    def poll(self) -> int | None:
        """The exit code, below 0 for the signal that killed it; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal; one that has ended is passed over."""


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
    finished: bool = False


class Supervisor:
    """Keeps so many processes running until a signal comes.

    A process that ends is replaced, with backoff, whatever its exit code, unless it has finished its work or
    was told to stop. SIGINT, SIGTERM or SIGHUP is passed on to each as SIGTERM, a second one as SIGQUIT, by
    which they are to stop at once; whichever is left after that is killed. SIGUSR1 stops them one after the
    other, and starts them anew. :data:`CODE_CHANGED` stops all of them, and each is started anew as it ends.
    Until the first has begun to work, no other is started: what is wrong with one is wrong with all.

    Args:
        start: Starts the process of a slot, which has a number.
        slots: How many run side by side.
        grace_s: How many seconds a process may take to stop after the first signal.
        signal_queue: Where :data:`SIGNALS` arrive.
        logger: Where it tells what it does.
        hopeless: Whether a process that never began to work, and ended with this exit code, would only end so
            again.
        on_tick: Called about once a second, and once all processes have ended.
    """

    def __init__(
        self,
        start: Callable[[int], Process],
        slots: int,
        *,
        grace_s: float,
        signal_queue: SignalQueue,
        logger: Logger,
        hopeless: Callable[[int], bool],
        on_tick: Callable[[], None],
    ) -> None:
        self._start = start
        self._slots = [_Slot(number) for number in range(slots)]
        self._grace_s = grace_s
        self._signal_queue = signal_queue
        self._logger = logger
        self._hopeless = hopeless
        self._on_tick = on_tick
        self._stopped_s = 0.0
        """When the first signal to stop came."""
        self._kill_at_s: float | None = None
        """When to kill what is left; None while it is not stopping."""
        self._at_once = False
        self._exit_code = 0
        self._proven = False
        """Whether one has ever begun to work."""
        self._reloading: list[_Slot] = []

    def run(self) -> int:
        """Supervise until every process has ended.

        Returns:
            0 where all ended well, else the exit code of one that didn't.
        """
        while True:
            self._reap()
            self._on_tick()  # also once all have ended, as they may have done within one tick
            if self._stopping and not self._running():
                return self._exit_code
            if all(slot.finished for slot in self._slots):
                return self._exit_code
            if self._stopping:
                self._kill_the_late()
            else:
                self._start_the_due()
                self._go_on_reloading()
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

    def _next_s(self) -> float:
        """When there is something to do, if nothing comes before."""
        moments = [monotonic() + (_TICK_S if self._proven else _PROVING_S)]
        if self._kill_at_s is not None:
            moments.append(self._kill_at_s)
        if self._proven:
            moments += [slot.start_at_s for slot in self._slots if slot.process is None and not slot.finished]
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

    def _on_reload(self) -> None:
        self._logger.info("reloading")
        self._reloading = [slot for slot in self._slots if slot.process is not None]
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
            for process in self._running():
                self._logger.error("process %d doesn't stop: killing it", process.pid)
                process.send_signal(signal.SIGKILL)
            self._kill_at_s = monotonic() + _MARGIN_S

    def _reap(self) -> None:
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
                well = process.finished or code == -signal.SIGTERM
                self._exit_code = self._exit_code or (0 if well else _positive(code))
            elif slot.told:  # perhaps before it could begin to work: that proves nothing
                pass
            elif process.finished:
                self._proven = slot.finished = True
            elif not self._proven and self._hopeless(code):
                self._exit_code, self._kill_at_s = _positive(code), monotonic()
            else:
                # Perhaps somebody is stopping all processes one by one, and this one next.
                level = WARNING if code in (0, -signal.SIGTERM) else ERROR
                self._replace(slot, f"process {process.pid} {_how_it_ended(code)}", level)
            if slot in self._reloading:
                self._reloading.remove(slot)

    def _replace(self, slot: _Slot, why: str, level: int) -> None:
        slot.deaths = 1 if monotonic() - slot.began_s >= _LIVED_S else slot.deaths + 1
        delay_s = _BACKOFF.longest_delay_s(slot.deaths)
        slot.start_at_s = monotonic() + delay_s
        self._logger.log(level, "%s; another starts in %g s", why, delay_s)

    def _start_the_due(self) -> None:
        for slot in self._slots:
            if not self._proven and self._running():
                return
            if slot.process is None and not slot.finished and monotonic() >= slot.start_at_s:
                slot.began_s, slot.told = monotonic(), False
                try:
                    slot.process = self._start(slot.number)
                except OSError as error:  # no memory, say, or too many processes
                    if not self._proven:
                        raise
                    self._replace(slot, f"no process can be started: {error}", ERROR)

    def _go_on_reloading(self) -> None:
        """Stop the first that is to be started anew, once the one before it works again."""
        if not self._reloading or not all(slot.process is not None for slot in self._slots):
            return
        slot = self._reloading[0]
        if slot.process is not None and not slot.told and all(each.ready for each in self._running()):
            slot.process.send_signal(signal.SIGTERM)
            slot.told = True


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
