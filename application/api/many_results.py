"""The results of many jobs, of any queues: those of one queue are asked for together."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from inspect import iscoroutine
from itertools import chain
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Any, Generic, TypeVar

from ...domain.errors import BackendError, InvalidInput, ResultNotReady, UsageError
from ...ports import EndedJobs, JobResult, OrchestratorBackend
from ..registration.registry import Registration, SchemaRegistry
from .handles import AnyHandle, ReadResult
from .results import result_value

_WAIT_S = 5.0
"""The longest wait between two looks, as a client of Redis waits for one result."""
_THREADS_WAIT_S = 1.0
"""The longest in a thread, which ends so soon if nobody wants its results any more."""
_PAUSE_S = 0.005
"""The time between two looks, so that many jobs that end one after the other are looked up together."""
_LONGEST_PAUSE_S = 0.05
"""The longest, where all ids have to be looked up each time."""
_EXPLAINED = 100
"""How many jobs without a result are asked for by themselves, to say why."""

HandleT = TypeVar("HandleT", bound=AnyHandle[Any])
Numbered = tuple[int, ReadResult]
"""The number of a handle among those that were given, and the result of its job."""


class ManyResults(Generic[HandleT]):
    """The results of the jobs of some handles.

    Args:
        backend: The backend of the jobs.
        registry: The schemas of their queues.
        orchestrator: The orchestrator whose handles they are.
        handles: The handles.

    Raises:
        InvalidInput: ``handles`` aren't handles of this orchestrator.
        JobsError: a queue isn't registered, or with other models; as of :meth:`SchemaRegistry.for_reading`.
    """

    def __init__(
        self,
        backend: OrchestratorBackend,
        registry: SchemaRegistry,
        orchestrator: object,
        handles: Iterable[HandleT],
    ) -> None:
        self.backend = backend
        self.handles = _listed(handles)
        self.known: list[Numbered] = []
        """The results that are known without asking."""
        self._missing: dict[str, dict[str, list[int]]] = {}
        """The numbers of the handles whose results aren't known, by the names of queues and by ids."""
        self._registrations: dict[object, Registration] = {}
        for number, handle in enumerate(self.handles):
            queue = handle.queue
            if queue not in self._registrations:
                if queue.orchestrator is not orchestrator:
                    raise InvalidInput(f"{handle!r} is of another orchestrator: ask that one for its result")
                self._registrations[queue] = registry.for_reading(queue.ref)
            known = handle.known_result()
            if known is None:
                self._missing.setdefault(queue.name, {}).setdefault(handle.id, []).append(number)
            else:
                self.known.append((number, known))

    @property
    def queues(self) -> list[str]:
        """The queues of the jobs whose results aren't known yet."""
        return [queue for queue, missing in self._missing.items() if missing]

    def missing(self, queue: str) -> list[str]:
        """Return the ids of the jobs of a queue whose results aren't known yet."""
        return list(self._missing[queue])

    def ends(self, timeout_s: float) -> Iterator[Numbered]:
        """Yield the results as they come, for up to ``timeout_s`` seconds, and then :meth:`late`."""
        give_up_s = monotonic() + timeout_s
        yield from self.known
        yield from self.look_up_all()
        if timeout_s and self.queues:
            yield from self._follow_all(give_up_s)
            yield from self.look_up_all()
        yield from self.late(timeout_s)

    def look_up_all(self) -> Iterator[Numbered]:
        """Yield the results that are there."""
        for queue in self.queues:
            yield from self._look_up(queue, None)

    def _look_up(self, queue: str, ids: Collection[str] | None) -> list[Numbered]:
        """Return the results of those of these jobs that have ended; of all that are missing, if None."""
        missing = self._missing[queue]
        asked = list(missing) if ids is None else [id_ for id_ in ids if id_ in missing]
        if not asked:
            return []
        found = self.backend.results(queue, asked)
        results = [one for id_ in asked if id_ in found for one in self.read(queue, id_, found[id_])]
        self.miss_no_more(queue, found)
        return results

    def read(self, queue: str, job_id: str, found: JobResult) -> list[Numbered]:
        """Read how a job ended, for each handle that misses it."""
        return [(number, self._read(number, found)) for number in self._missing[queue].get(job_id, ())]

    def miss_no_more(self, queue: str, ids: Iterable[str]) -> None:
        """Note that the results of these jobs were read."""
        for job_id in ids:
            self._missing[queue].pop(job_id, None)

    def late(self, timeout_s: float) -> Iterator[Numbered]:
        """Yield why there is no result, for each handle that still has none, in order."""
        missing = (numbers for its in self._missing.values() for numbers in its.values())
        for count, number in enumerate(sorted(chain.from_iterable(missing)), 1):
            explained = count <= _EXPLAINED
            yield number, self._read(number, None, timeout_s) if explained else self._late(number, timeout_s)

    def _late(self, number: int, timeout_s: float) -> ReadResult:
        return ReadResult(
            error=ResultNotReady(
                f"job {self.handles[number].id}: no result within {timeout_s:g} s: it hasn't ended, is "
                f"unknown, or its result has expired; more is said of the first {_EXPLAINED} such jobs only"
            )
        )

    def _read(self, number: int, found: JobResult | None, timeout_s: float = 0.0) -> ReadResult:
        handle = self.handles[number]
        registration = self._registrations[handle.queue]
        try:
            return ReadResult(result_value(self.backend, registration, handle.id, found, timeout_s))
        except (BackendError, UsageError):  # it isn't the job's
            raise
        except Exception as error:  # such as JobFailed, or what a validator of the user's model raises
            return ReadResult(error=error)

    # -- waiting ----------------------------------------------------------------------------------

    def _follow_all(self, give_up_s: float) -> Iterator[Numbered]:
        queues = self.queues
        if len(queues) > 1:
            return self._follow_in_threads(queues, give_up_s)
        return self._follow(queues[0], give_up_s, _WAIT_S, lambda: True)

    def _follow(
        self, queue: str, give_up_s: float, wait_s: float, is_wanted: Callable[[], bool]
    ) -> Iterator[Numbered]:
        with self.backend.ended_jobs(queue) as ended:
            yield from self._as_they_end(queue, ended, give_up_s, wait_s, is_wanted)

    def _as_they_end(
        self,
        queue: str,
        ended: EndedJobs,
        give_up_s: float,
        wait_s: float,
        is_wanted: Callable[[], bool],
    ) -> Iterator[Numbered]:
        told: Collection[str] | None = None
        while True:
            began_s = monotonic()
            results = self._look_up(queue, told)
            pause_s = _PAUSE_S
            if told is None:
                pause_s = max(pause_s, min(_LONGEST_PAUSE_S, monotonic() - began_s))
            next_s = monotonic() + pause_s
            yield from results
            now_s = monotonic()
            if now_s >= give_up_s or not self._missing[queue] or not is_wanted():
                return
            sleep(max(0.0, min(next_s, give_up_s) - now_s))
            told = ended.wait(max(0.0, min(give_up_s - monotonic(), wait_s)))

    def _follow_in_threads(self, queues: Sequence[str], give_up_s: float) -> Iterator[Numbered]:
        """Wait for each queue in a thread of its own, as a backend wakes those who wait for one."""
        told: SimpleQueue[Numbered | BaseException | None] = SimpleQueue()
        is_over = threading.Event()

        def follow(queue: str) -> None:
            try:
                for result in self._follow(queue, give_up_s, _THREADS_WAIT_S, lambda: not is_over.is_set()):
                    told.put(result)
            except BaseException as error:
                told.put(error)
            else:
                told.put(None)

        try:
            for queue in queues:
                name = f"mindtrace-jobs-results-{queue}"
                threading.Thread(target=follow, args=(queue,), name=name, daemon=True).start()
            yield from _told(told, len(queues))
        finally:
            is_over.set()


def _told(told: "SimpleQueue[Numbered | BaseException | None]", threads: int) -> Iterator[Numbered]:
    """Yield what threads find until the last of them is done."""
    while threads:
        found = told.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            threads -= 1
        else:
            yield found


def put_values(values: list[Any], results: Iterable[Numbered], *, return_exceptions: bool) -> None:
    """Put what the handlers returned into a list, each at its number.

    Args:
        values: The list.
        results: The results, in any order.
        return_exceptions: Whether errors are put in place of values; else the first is raised.
    """
    for number, result in results:
        values[number] = result.error if return_exceptions and result.error else result.get()


def completed(handle: HandleT, result: ReadResult) -> HandleT:
    """Return a handle that knows the result of its job.

    Raises:
        ResultNotReady: there is none.
    """
    if isinstance(result.error, ResultNotReady):
        raise result.error
    handle.keep(result)
    return handle


def _listed(handles: Iterable[HandleT]) -> list[HandleT]:
    """Return the handles as a list.

    Raises:
        InvalidInput: it isn't a list of handles.
    """
    given: Any = handles
    if isinstance(given, str | AnyHandle) or not isinstance(given, Iterable):
        raise _no_handles(given)
    listed = list(given)
    for each in listed:
        if not isinstance(each, AnyHandle):
            raise _no_handles(each)
    return listed


def _no_handles(given: object) -> InvalidInput:
    if iscoroutine(given):
        return InvalidInput(f"{given!r:.80}: await it, as in handles = await jobs.publish_batch(…)")
    return InvalidInput(
        f"{given!r:.80}: pass a list of handles, as publish_batch returns it, or "
        "[queue.handle(id), …] with queue = orchestrator.queue(schema)"
    )
