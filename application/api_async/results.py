"""Waiting for many results: those of one queue in one thread."""

import asyncio
import threading
import time
from asyncio import Future
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ...domain.errors import JobsError
from ...ports import EndedJobs, JobResult, OrchestratorBackend
from ..async_calls.bridge import Answer, call_in, deliver
from ..async_calls.threads import Threads
from ..failures.raised_errors import own_copy

_WATCHING = 4
"""The most threads, and connections, that wait for jobs to end; each serves any number of waits."""
_TURN_S = 0.25
"""How long one turn waits while there are threads for all queues."""
_SHORT_TURN_S = 0.02
"""How long while queues share threads."""
_PAUSE_S = 0.005
"""The longest pause after all ids were looked up."""


Read = Callable[[JobResult | None], Any]
"""Makes what the caller gets of what was found; raises if that is an error. It may ask the backend."""


class Wait:
    """One who waits for a result."""

    __slots__ = ("future", "is_looked_up", "read")

    def __init__(self, future: "Future[Any]", read: Read) -> None:
        self.future = future
        self.read = read
        self.is_looked_up = False
        """Whether the job hadn't ended when it was looked up."""


class AwaitedResults:
    """The results of one queue that coroutines wait for. Any event loop may call.

    Each id is looked up when its wait begins. From then on, only the ids of which the backend says that they
    have ended are.

    Args:
        backend: The backend.
        queue: The queue's name.
        watching: Threads in which to wait, a turn at a time.
        calls: Threads in which to look up.
        is_shared: Whether there are more queues to wait for than threads to do so.
    """

    def __init__(
        self,
        backend: OrchestratorBackend,
        queue: str,
        *,
        watching: Threads,
        calls: Threads,
        is_shared: Callable[[], bool],
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._watching = watching
        self._calls = calls
        self._is_shared = is_shared
        self._lock = threading.Lock()
        self._waits: dict[str, list[Wait]] = {}
        self._new: list[str] = []
        """Ids that are yet to be looked up."""
        self._ended: EndedJobs | None = None
        """Open while anyone waits."""
        self._is_watched = False
        """Whether a turn is under way or to come."""
        self._is_looking = False
        """Whether a thread is about to look up what is new."""

    @property
    def is_watched(self) -> bool:
        """Whether anyone waits."""
        return self._is_watched

    async def wait(self, job_id: str, timeout_s: float, read: Read) -> Any:
        """Wait up to ``timeout_s`` seconds until a job ends, and return what ``read`` makes of its result."""
        waits = self.begin({job_id: read})
        (wait,) = waits.values()
        try:
            async with asyncio.timeout(timeout_s):
                return await wait.future
        except TimeoutError:
            return await call_in(self._calls, self._read_late, job_id, wait)
        finally:
            self.leave(waits)

    def begin(self, reads: Mapping[str, Read]) -> dict[str, Wait]:
        """Begin to wait for jobs to end, until :meth:`leave`.

        Args:
            reads: What makes the value of a wait's future of the job's result, by the job's id.
        """
        loop = asyncio.get_running_loop()
        waits = {job_id: Wait(loop.create_future(), read) for job_id, read in reads.items()}
        self._add(waits)
        return waits

    def leave(self, waits: Mapping[str, Wait]) -> None:
        """Wait for these no longer."""
        with self._lock:
            for job_id, wait in waits.items():
                self._remove(job_id, wait)

    def fail(self, error: BaseException) -> None:
        """End all waits with an error."""
        with self._lock:
            failed, self._waits = self._waits, {}
        deliver(Answer(wait.future, error=own_copy(error)) for its in failed.values() for wait in its)

    def _add(self, waits: Mapping[str, Wait]) -> None:
        with self._lock:
            for job_id, wait in waits.items():
                self._waits.setdefault(job_id, []).append(wait)
            self._new += waits
            begins, self._is_watched = not self._is_watched, True
            looks_up = not begins and self._ended is not None and not self._is_looking
            self._is_looking |= looks_up
        try:
            if begins:
                self._watching.submit(self._take_turn)
            elif looks_up:
                self._calls.submit(self._look_up_new)
        except RuntimeError as error:  # no thread can be started: nobody may wait for one
            with self._lock:
                self._is_watched = self._is_watched and not begins
                self._is_looking = self._is_looking and not looks_up
            self.fail(error)

    def _remove(self, job_id: str, wait: Wait) -> None:
        waits = self._waits.get(job_id, [])
        if wait in waits:
            waits.remove(wait)
        if not waits:
            self._waits.pop(job_id, None)

    # -- in a thread ------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Wait once for jobs to end; then let another queue have the thread, or go on."""
        try:
            if self._ended is None:
                ended = self._backend.ended_jobs(self._queue)
                with self._lock:  # from now on, another thread looks up what is added
                    self._ended = ended
                self._look_up_new()
            self._look_up_ended(self._ended.wait(_SHORT_TURN_S if self._is_shared() else _TURN_S))
        except BaseException as error:
            self.fail(error)
        with self._lock:
            goes_on = self._is_watched = bool(self._waits)
            over, self._ended = (None, self._ended) if goes_on else (self._ended, None)
        if goes_on:
            self._watching.submit(self._take_turn)
        if over is not None:
            with suppress(JobsError):
                over.close()

    def _read_late(self, job_id: str, wait: Wait) -> Any:
        """Say why there is no result, or find it still."""
        return wait.read(None if wait.is_looked_up else self._backend.result(self._queue, job_id))

    def _look_up_new(self) -> None:
        with self._lock:
            new, self._new = self._new, []
            self._is_looking = False
        try:
            self._look_up(new)
        except BaseException as error:
            self.fail(error)

    def _look_up_ended(self, ended: Collection[str] | None) -> None:
        with self._lock:
            ids = list(self._waits if ended is None else self._waits.keys() & ended)
        began = time.monotonic()
        self._look_up(ids)
        if ended is None:  # all of them, so that the next time had better not be at once
            time.sleep(min(_PAUSE_S, time.monotonic() - began))

    def _look_up(self, ids: Iterable[str]) -> None:
        ids = list(dict.fromkeys(ids))
        if not ids:
            return
        found = self._backend.results(self._queue, ids)
        with self._lock:
            done = [(wait, found[id_]) for id_ in found for wait in self._waits.pop(id_, ())]
            for id_ in ids:
                for wait in self._waits.get(id_, ()):
                    wait.is_looked_up = True
        deliver(_read(wait, result) for wait, result in done)


class AwaitedQueues(dict[str, AwaitedResults]):
    """The results of any queue that coroutines wait for, by the queue's name.

    Args:
        calls: Threads in which to look up.
    """

    def __init__(self, calls: Threads) -> None:
        super().__init__()
        self._calls = calls
        self._watching = Threads(_WATCHING, "mindtrace-jobs-results")

    def of(self, backend: OrchestratorBackend, queue: str) -> AwaitedResults:
        """Return those of one queue."""
        awaited = self.get(queue)
        if awaited is None:
            awaited = AwaitedResults(
                backend, queue, watching=self._watching, calls=self._calls, is_shared=self._are_many
            )
            awaited = self.setdefault(queue, awaited)
        return awaited

    def fail(self, error: BaseException) -> None:
        """End all waits with an error."""
        for awaited in list(self.values()):
            awaited.fail(error)

    def stop(self) -> None:
        """End the threads."""
        self._watching.stop()

    def _are_many(self) -> bool:
        return sum(awaited.is_watched for awaited in list(self.values())) > _WATCHING


def _read(wait: Wait, result: JobResult) -> Answer:
    try:
        return Answer(wait.future, wait.read(result))
    except BaseException as error:  # JobFailed, or what a validator of the user's model raises
        return Answer(wait.future, error=error)
