"""What users call from coroutines: ``AsyncOrchestrator``. How it works is in :mod:`.async_calls`."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from pydantic import BaseModel

from ..domain import Job, JobSchema, Progress, Queue, QueueType, SchemaLike
from ..domain.bounds import MAX_BODY_BYTES, check_name, check_seconds
from ..domain.errors import Closed, InvalidInput
from ..domain.foreign_names import ForeignCalls
from ..ports import DeadLetter, JobStatus, Observer, OrchestratorBackend, PublishOutcome, QueueCounts
from ..ports.transactions import AsyncTransaction
from .async_calls import orchestrator_functions
from .async_calls.bridge import call_in
from .async_calls.cancelling import AsyncCancelAdmin
from .async_calls.publisher import AsyncPublisher
from .async_calls.results import AwaitedQueues
from .async_calls.scheduling import AsyncScheduleAdmin
from .async_calls.threads import Threads, start_without_waiting
from .async_calls.transactions import AsyncTransactions
from .async_job_queue import AsyncJobQueue
from .forks import start_anew_in_children
from .job_queue import InT, JobQueue, OutT
from .orchestrator import Orchestrator
from .publishing.messages import Work
from .publishing.unique_publisher import refuse_transaction
from .registry import QueueRef, Registration
from .results import result_value

_CALLING = 4
"""The most threads that publish, look up and administer."""

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")


class AsyncOrchestrator(ForeignCalls, AsyncCancelAdmin, AsyncScheduleAdmin):
    """Publishes jobs, reads results, and manages queues from coroutines: as :class:`Orchestrator`, awaited.

    Every method does what the method of the same name does there, and raises the same errors. None blocks
    the event loop: what takes long or does I/O runs in up to eight threads of its own. Threads and event
    loops may share one. It needs asyncio, or a loop such as uvloop's.

    If you cancel a call, or ``asyncio.timeout`` does, it may or may not take effect, like a request whose
    connection broke: what the broker has isn't taken back. Later calls aren't affected.

    Args:
        backend: A backend or a URL, by default as of :class:`Orchestrator`; or an orchestrator. :meth:`close`
            closes a backend that was made here. A backend or orchestrator that you pass is yours to close.
        max_body_bytes: As of :class:`Orchestrator`; no effect on one that you pass.
        observers: Likewise. With observers, each job is published by a thread in its caller's context.

    Raises:
        InvalidInput: observers were given with an orchestrator, which has its own.
    """

    def __init__(
        self,
        backend: Orchestrator | OrchestratorBackend | str | None = None,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._orchestrator: Orchestrator | None = None
        self._make = partial(Orchestrator, max_body_bytes=max_body_bytes, observers=observers)
        self._backend: OrchestratorBackend | str | None = None
        if not isinstance(backend, Orchestrator):
            self._backend = backend
        elif observers:
            raise InvalidInput("observers: give them to the Orchestrator that you pass")
        else:
            self._orchestrator = backend
        self._owns_orchestrator = self._orchestrator is None
        self._closing: Future[None] | None = None
        self._calling = Threads(_CALLING, "mindtrace-jobs-call")
        self._awaited = AwaitedQueues(self._calling)
        weakref.finalize(self, self._calling.stop)
        weakref.finalize(self, self._awaited.stop)
        self.start_anew()
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """Forget the calls that are under way: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._publishers: dict[str, AsyncPublisher] = {}
        self._awaited.clear()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close the backend if this was made with a URL, and end the threads. Closing again does nothing.

        Calls that are under way end, with :class:`Closed` if they can't do so otherwise.
        """
        with self._lock:
            begins = self._closing is None
            closing = self._closing = self._closing or Future()
        if begins:  # not behind the calls that it is to end
            start_without_waiting(partial(self._close, closing))
        await asyncio.shield(asyncio.wrap_future(closing))

    def _close(self, closing: "Future[None]") -> None:
        try:
            self._awaited.fail(self._is_closed())
            if self._owns_orchestrator and self._orchestrator is not None:
                self._orchestrator.close()
        except BaseException as error:
            closing.set_exception(error)
        else:
            closing.set_result(None)
        finally:
            self._calling.stop()
            self._awaited.stop()

    def _is_closed(self) -> Closed:
        return Closed("this AsyncOrchestrator is closed")

    # -- the way to a thread ----------------------------------------------------------------------

    async def _open(self) -> Orchestrator:
        """Return the orchestrator; make it first if necessary, which may import an adapter."""
        if self._closing is not None:
            raise self._is_closed()
        if self._orchestrator is not None:
            return self._orchestrator
        return await call_in(self._calling, self._made)

    def _made(self) -> Orchestrator:
        with self._making:
            found = self._orchestrator
            if found is None:
                found = self._orchestrator = self._make(self._backend)
            return found

    async def _call(
        self,
        method: Callable[Concatenate[Orchestrator, P], AnswerT],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> AnswerT:
        """Call a method of the orchestrator in a thread."""
        orchestrator = await self._open()
        return await call_in(self._calling, method, orchestrator, *arguments, **options)

    async def _registered(
        self, orchestrator: Orchestrator, queue: QueueRef, *, for_reading: bool = False
    ) -> Registration:
        registry = orchestrator.schema_registry
        find = registry.for_reading if for_reading else registry.registered
        if registry.must_declare(queue):
            return await call_in(self._calling, find, queue)
        return find(queue)

    # -- schemas ----------------------------------------------------------------------------------

    async def register(
        self,
        schema: SchemaLike,
        queue_type: QueueType | None = None,
        *,
        queue: str | None = None,
    ) -> str:
        """Declare a queue for the jobs of ``schema``; see :meth:`Orchestrator.register`."""
        return await self._call(Orchestrator.register, schema, queue_type, queue=queue)

    async def attach(self, queue: str | Queue) -> None:
        """Use a declared queue without its schema; see :meth:`Orchestrator.attach`."""
        await self._call(Orchestrator.attach, queue)

    async def queue(
        self,
        schema: JobSchema[InT, OutT],
        queue_type: QueueType | None = None,
        *,
        queue: str | None = None,
    ) -> AsyncJobQueue[InT, OutT]:
        """Return a queue of ``schema``, typed by its models; see :meth:`Orchestrator.queue`."""
        found: JobQueue[InT, OutT] = await self._call(Orchestrator.queue, schema, queue_type, queue=queue)
        return AsyncJobQueue(self, found.schema, found.name)

    # -- publishing -------------------------------------------------------------------------------

    @overload
    async def job(
        self, queue_name: JobSchema[InT, Any], data: InT | Mapping[str, Any], *, id: str | None = None
    ) -> Job[InT]: ...
    @overload
    async def job(
        self, queue_name: str, data: BaseModel | Mapping[str, Any], *, id: str | None = None
    ) -> Job[Any]: ...
    async def job(
        self,
        queue_name: QueueRef,
        data: BaseModel | Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002 - the field's name
    ) -> Job[Any]:
        """Make a job without publishing it; see :meth:`Orchestrator.job`."""
        return await self._call(orchestrator_functions.job, queue_name, data, id)

    @overload
    async def publish(
        self,
        queue_name: JobSchema[InT, Any],
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> str: ...
    @overload
    async def publish(
        self,
        queue_name: str,
        job: Work,
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> str: ...
    async def publish(
        self,
        queue_name: QueueRef,
        job: Work,
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> str:
        """Publish one job, and return its id once the broker has confirmed it (PUB-1).

        See :meth:`Orchestrator.publish`. What many tasks publish to a queue at the same time shares one batch
        and one confirm, in the order of the calls. Each gets its own outcome. A call that is cancelled before
        its batch begins isn't sent.

        With ``connection=``, a ``psycopg.AsyncConnection`` or an ``AsyncConnection`` or ``AsyncSession`` of
        SQLAlchemy on psycopg, the job is published in its transaction (PUB-7), on the running event loop.
        """
        orchestrator = await self._open()
        if connection is not None:
            registration = await self._registered(orchestrator, queue_name)
            refuse_transaction(registration.schema)
            transactions = AsyncTransactions(orchestrator, self._calling)
            return await transactions.publish(connection, registration, job, priority, delay_s)
        registration = await self._registered(orchestrator, queue_name)
        if orchestrator.observer is not None or registration.schema.unique is not None:
            return await self._call(orchestrator_functions.publish, queue_name, job, priority, delay_s)
        name = registration.queue.name
        publisher = self._publishers.get(name)
        if publisher is None:
            made = AsyncPublisher(orchestrator, name, self._calling)
            publisher = self._publishers.setdefault(name, made)
        return await publisher.publish(registration, job, priority, delay_s)

    @overload
    async def publish_batch(
        self,
        queue_name: JobSchema[InT, Any],
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[PublishOutcome]: ...
    @overload
    async def publish_batch(
        self,
        queue_name: str,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[PublishOutcome]: ...
    async def publish_batch(
        self,
        queue_name: QueueRef,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[PublishOutcome]:
        """Publish many jobs in order, and return one outcome for each, in the same order (PUB-4).

        See :meth:`Orchestrator.publish_batch`. ``jobs`` is read in a thread. ``connection`` is as in
        :meth:`publish`.
        """
        if connection is not None:
            orchestrator = await self._open()
            registration = await self._registered(orchestrator, queue_name)
            refuse_transaction(registration.schema)
            transactions = AsyncTransactions(orchestrator, self._calling)
            return await transactions.publish_batch(connection, registration, jobs, priority, delay_s)
        return await self._call(orchestrator_functions.publish_batch, queue_name, jobs, priority, delay_s)

    # -- receiving and results --------------------------------------------------------------------

    @overload
    async def receive_message(self, queue_name: JobSchema[InT, Any]) -> Job[InT] | None: ...
    @overload
    async def receive_message(self, queue_name: str) -> Job[Any] | None: ...
    async def receive_message(self, queue_name: QueueRef) -> Job[Any] | None:
        """Take one job off the queue without waiting; see :meth:`Orchestrator.receive_message`.

        If this is cancelled, the job may be lost.
        """
        return await self._call(orchestrator_functions.receive, queue_name)

    @overload
    async def result(
        self, queue_name: JobSchema[Any, OutT], job_id: str, *, timeout_s: float = 0.0
    ) -> OutT | None: ...
    @overload
    async def result(self, queue_name: str, job_id: str, *, timeout_s: float = 0.0) -> Any: ...
    async def result(self, queue_name: QueueRef, job_id: str, *, timeout_s: float = 0.0) -> Any:
        """Return what the handler of a job returned, waiting up to ``timeout_s`` seconds for it (RES-1).

        See :meth:`Orchestrator.result`. Any number of calls may wait: all that wait for jobs of one queue
        share a thread and a connection.
        """
        orchestrator = await self._open()
        registration = await self._registered(orchestrator, queue_name, for_reading=True)
        check_name("job id", job_id)
        timeout_s = check_seconds("timeout_s", timeout_s)
        if not timeout_s or not orchestrator.backend.capabilities.results:
            return await self._call(orchestrator_functions.result, queue_name, job_id)
        read = partial(result_value, orchestrator.backend, registration, job_id, timeout_s=timeout_s)
        awaited = self._awaited.of(orchestrator.backend, registration.queue.name)
        return await awaited.wait(job_id, timeout_s, read)

    async def status(self, queue_name: QueueRef, job_id: str) -> JobStatus:
        """Say where a job is; see :meth:`Orchestrator.status`."""
        return await self._call(Orchestrator.status, queue_name, job_id)

    # -- administration ---------------------------------------------------------------------------

    async def count_queue_messages(self, queue_name: QueueRef) -> int:
        """Count the jobs that wait to be delivered: ready or delayed (CNT-1)."""
        return await self._call(Orchestrator.count_queue_messages, queue_name)

    async def counts(self, queue_name: QueueRef) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return await self._call(Orchestrator.counts, queue_name)

    async def queues(self) -> list[Queue]:
        """List the declared queues of the backend, by name; see :meth:`Orchestrator.queues`."""
        return await self._call(Orchestrator.queues)

    async def progress(
        self, queue_name: QueueRef, job_ids: Sequence[str] | None = None
    ) -> dict[str, Progress]:
        """Return the progress that running jobs reported, by id: of all jobs, or of those named."""
        return await self._call(Orchestrator.progress, queue_name, job_ids)

    async def clean_queue(self, queue_name: QueueRef) -> int:
        """Drop every ready or delayed job, and return how many there were (ADM-2)."""
        return await self._call(Orchestrator.clean_queue, queue_name)

    async def delete_queue(self, queue_name: QueueRef) -> None:
        """Remove the queue with its jobs, dead letters, results and registration (ADM-3)."""
        await self._call(Orchestrator.delete_queue, queue_name)

    async def dead_letters(
        self, queue_name: QueueRef, *, limit: int | None = None, offset: int = 0
    ) -> list[DeadLetter]:
        """List dead jobs, oldest first, or at most ``limit`` of them, and change nothing (DLQ-1)."""
        return await self._call(Orchestrator.dead_letters, queue_name, limit=limit, offset=offset)

    async def redrive(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again, all or those named, and return how many (DLQ-2)."""
        return await self._call(Orchestrator.redrive, queue_name, job_ids)

    async def discard(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Delete dead jobs, all or those named, and return how many (DLQ-3)."""
        return await self._call(Orchestrator.discard, queue_name, job_ids)
