"""Time limits of handlers: how one is told that its time is over, and what happens if it goes on."""

import sys
import traceback
from _thread import allocate_lock, get_ident
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from logging import CRITICAL, ERROR, Logger, getLogger
from time import monotonic, sleep
from typing import Any

from ...domain.errors import JobTimedOut
from ...domain.schema import KILL_AFTER_S
from ...ports import Delivery, Settlement
from ..failures.handler_errors import describe, try_to_log
from .deadlines import deadlines

_SOON_S = 0.001
_FRAMES_SHOWN = 10
_ENDED_BY_US = ("JobTimedOut", "CancelledError")
"""What a handler raises that was told to end, and did; it says no more than that."""


_NOTHING_ENDS_IT = (
    "nothing in this process can end it; run it by mindtrace-jobs worker, which replaces the process"
)


def _nobody_settles(_settlement: Settlement) -> None:
    """Do nothing, where no loop runs the handlers."""


class TimeLimits:
    """The time limits of one consumer, and the running jobs whose time is over.

    Args:
        timeout_s: For how many seconds a handler may run, unless its job says otherwise; None is no limit.
        kill_after_s: How many seconds it may go on after that.
        logger: Where it is told that one goes on.
    """

    def __init__(
        self,
        timeout_s: float | None = None,
        kill_after_s: float = KILL_AFTER_S,
        logger: Logger = getLogger(__name__),  # noqa: B008 - the same for all
    ) -> None:
        self.timeout_s = timeout_s
        self.kill_after_s = kill_after_s
        self.timed_out: dict[str, float] = {}
        """The limits that are over, in seconds, by the receipts of their jobs."""
        self.given_up: set[str] = set()
        """The receipts of jobs that were settled without their handlers, which have ended since."""
        self.finish: Callable[[Settlement], None] = _nobody_settles
        """Notes how a job is to be settled that was given up; the loop that runs the handlers says how."""
        self.end_process: Callable[[], None] | None = None
        """Has this process end soon, where another takes its place."""
        self.interrupted: set[LimitedRun] = set()
        """The runs that were told to end, and haven't yet."""
        self._is_given_up = False
        self._logger = logger

    def shown(self, receipt: str, error: BaseException) -> str:
        """Return the error of an attempt as it is kept with its job."""
        text = describe(error)
        if receipt not in self.timed_out:
            return text
        return self._over(receipt) + ("" if text in _ENDED_BY_US else f", and then raised {text}")

    def shown_given_up(self, receipt: str) -> str:
        """Return the error of an attempt whose handler goes on, as it is kept with its job."""
        return f"{self._over(receipt)}, and didn't end within {self.kill_after_s:g} s after that"

    def _over(self, receipt: str) -> str:
        return f"JobTimedOut: the handler ran for longer than {self.timed_out[receipt]:g} s"

    def forget(self, receipts: Iterable[str]) -> None:
        """Drop what is known of jobs whose attempts have ended, but of those that were given up."""
        for receipt in receipts:
            if receipt not in self.given_up:
                self.timed_out.pop(receipt, None)

    def goes_on(self, job_ids: Iterable[str], limit_s: float, stack: str) -> None:
        """Say that a handler goes on, and have the process end, if another takes its place.

        Otherwise its jobs stay as they are: another run of them would be beside this one.

        Args:
            job_ids: Its jobs.
            limit_s: Its time limit.
            stack: Where it is; empty for a coroutine, whose thread runs others.
        """
        if self._is_given_up:
            return
        if self.end_process is None:
            level, outcome = CRITICAL, _NOTHING_ENDS_IT
        else:
            level, outcome = ERROR, "this process ends, and another takes its place"
        names = ", ".join(job_ids)
        message = "job %s: its handler goes on %g s after its time limit of %g s: %s%s"
        where = f"; it is at {stack}" if stack else ""
        try_to_log(self._logger, level, message, names, self.kill_after_s, limit_s, outcome, where)
        if self.end_process is not None:
            self.end_process()

    def give_up(self) -> None:
        """Settle the jobs of all handlers whose time is over, as the process is about to end."""
        self._is_given_up = True
        for run in list(self.interrupted):
            run.give_up()

    def tell_fault(self) -> None:
        """Say that an error of ours is being handled."""
        try_to_log(self._logger, ERROR, "a handler whose time is over wasn't ended", traceback=True)


def cancels_this_task() -> Callable[[], object]:
    """Return what has the task of the caller cancelled, from any thread."""
    import asyncio  # here, as a plain handler needs none

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - the caller is a coroutine
    return partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)


class LimitedRun:
    """One call of a handler that has a time limit.

    Two threads meet here: the one that runs the handler, and the one that watches the deadlines. The second
    may interrupt the first only while the handler runs. So each must take ``_turn`` first, which is taken
    once: the watching thread to interrupt, the other as the handler has ended. If that comes second, it waits
    until the error is on its way, and takes it back, or swallows it where it has come by then (ADR 121).

    An error that another thread raises comes between any two lines, even in a ``finally``. It comes once. So
    what must be done in any case is in two places, one around the other.

    Args:
        limits: Those of its consumer.
        deliveries: Its job, or its jobs.
        limit_s: For how many seconds it may run.
        interrupt: Has it end; None raises :class:`JobTimedOut` in its thread.
        settle: Settles its jobs if it is given up.
    """

    __slots__ = (
        "_deliveries",
        "_has_begun",
        "_interrupt",
        "_is_due",
        "_limit_s",
        "_limits",
        "_put_off_until_s",
        "_settle",
        "_settling",
        "_thread_id",
        "_turn",
        "_was_interrupted",
        "has_ended",
    )

    def __init__(
        self,
        limits: TimeLimits,
        deliveries: Sequence[Delivery],
        limit_s: float,
        interrupt: Callable[[], object] | None,
        settle: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._deliveries = deliveries
        self._limit_s = limit_s
        self._interrupt = interrupt
        self._settle = settle
        self._thread_id = get_ident()
        self._turn = allocate_lock()
        self._settling = allocate_lock()
        """Taken once: as the handler ends, or as it is given up."""
        self._has_begun = False
        self._put_off_until_s: float | None = None
        """Until when its interrupt is put off at most, if it is."""
        self._is_due = False
        """Whether the watching thread is about to interrupt it, or has done so."""
        self._was_interrupted = False
        self.has_ended = False
        """Whether nothing can interrupt it any more."""

    def call(self, handler: Callable[[Any], Any], work: Any) -> Any:
        """Run a plain handler, and return or raise what it does, even if its time is over at that moment."""
        output: Any = None
        error: BaseException | None = None
        is_over = False
        try:
            self._begin()
            try:
                output = handler(work)
            except BaseException as raised:
                error = raised
            is_over = True
            self._end()
        except JobTimedOut as late:
            if not is_over:  # it came as the handler began, or was about to end
                error = late
        finally:
            self._end()
        if error is None:
            return output
        try:
            raise error
        finally:
            del error  # whose traceback has this frame

    async def call_async(self, handler: Callable[[Any], Awaitable[Any]], work: Any) -> Any:
        """Run a coroutine function, and return or raise what it does; ``interrupt`` cancels its task."""
        try:
            self._begin()
            return await handler(work)
        finally:
            self._end()

    def _begin(self) -> None:
        deadlines.add(self, self._limit_s)
        self._has_begun = True  # last: nothing is to be raised while a lock of the deadlines is held

    def _end(self) -> None:
        """Return once nothing can interrupt this thread any more; again is a no-op."""
        if self.has_ended:
            return
        if not self._turn.acquire(blocking=False):
            self._wait_until_interrupted()
            if self._interrupt is None:
                from .thread_interrupt import release_log_locks, take_back

                take_back()
                release_log_locks()
        if not self._settling.acquire(blocking=False):
            self._limits.given_up.update(delivery.receipt for delivery in self._deliveries)
        self.has_ended = True
        self._limits.interrupted.discard(self)
        deadlines.note_end()

    def _wait_until_interrupted(self) -> None:
        while self._is_due and not self._was_interrupted:
            sleep(_SOON_S)

    def give_up(self) -> None:
        """Settle its jobs, unless its handler ends at this moment; from any thread."""
        if self._settling.acquire(blocking=False):
            self._settle()

    # -- on the thread that watches the deadlines ---------------------------------------------------

    def expire(self) -> float | None:
        """Interrupt the handler, and the next time tell that it goes on."""
        try:
            return self._expire()
        except Exception:  # a fault of ours must not end the thread
            self._limits.tell_fault()
            return None

    def _expire(self) -> float | None:
        if not self._has_begun:
            return _SOON_S
        if self._was_interrupted:
            job_ids = (delivery.id for delivery in self._deliveries)
            self._limits.goes_on(job_ids, self._limit_s, self._stack())
            return None
        if self._is_to_be_put_off():
            return _SOON_S
        self._is_due = True
        if not self._turn.acquire(blocking=False):  # it has ended
            self._is_due = False
            return None
        over = {delivery.receipt: self._limit_s for delivery in self._deliveries}
        self._limits.timed_out.update(over)  # first: the handler looks
        self._limits.interrupted.add(self)
        try:
            self._send_interrupt()
        finally:
            self._was_interrupted = True
        return self._limits.kill_after_s

    def _stack(self) -> str:
        """Return which lines of a plain handler's run now, the innermost first."""
        frame = None if self._interrupt is not None else sys._current_frames().get(self._thread_id)
        calls = traceback.extract_stack(frame)[::-1] if frame is not None else []
        shown = takewhile(lambda call: call.filename != __file__, calls[:_FRAMES_SHOWN])
        return ", called by ".join(f"{call.filename}:{call.lineno} ({call.name})" for call in shown)

    def _is_to_be_put_off(self) -> bool:
        """Whether its thread is about to start another, but not if that takes for ever."""
        if self._interrupt is not None:
            return False
        from .thread_interrupt import starts_another

        now = monotonic()
        if self._put_off_until_s is None:
            self._put_off_until_s = now + self._limits.kill_after_s
        return now < self._put_off_until_s and starts_another(self._thread_id)

    def _send_interrupt(self) -> None:
        if self._interrupt is None:
            from .thread_interrupt import raise_timed_out  # imports ctypes, which takes long

            raise_timed_out(self._thread_id)
        else:
            with suppress(RuntimeError):  # its event loop was closed this moment
                self._interrupt()
