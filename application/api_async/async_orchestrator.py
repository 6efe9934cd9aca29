"""What users call from coroutines: ``AsyncOrchestrator``. How it calls what blocks is in ``async_calls``."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, overload

from pydantic import BaseModel

from ...domain import Job, JobSchema, Queue, QueueType, SchemaLike
from ...domain.bounds import MAX_BODY_BYTES, check_name, check_seconds
from ...domain.errors import Closed, InvalidInput
from ...domain.foreign_names import ForeignCalls
from ...domain.model_types import InT, OutT
from ...ports import JobStatus, Observer, OrchestratorBackend, PublishOutcome
from ...ports.transactions import AsyncTransaction
from ..api.job_queue import JobQueue
from ..api.many_results import ManyResults, Numbered, completed, put_values
from ..api.orchestrator import Orchestrator
from ..api.results import result_value
from ..async_calls.bridge import call_in
from ..async_calls.threads import Threads, start_without_waiting
from ..process.forks import start_anew_in_children
from ..publishing.messages import Work
from ..publishing.publish_options import PublishOptions, publish_options
from ..publishing.unique_publisher import refuse_transaction
from ..registration.registry import QueueRef, Registration
from .async_job_queue import AsyncJobHandle, AsyncJobQueue, AsyncPublishedJob
from .async_queue_admin import AsyncQueueAdmin
from .many_results import each_end
from .publisher import AsyncPublisher
from .results import AwaitedQueues
from .scheduling import AsyncScheduleAdmin
from .transactions import AsyncTransactions

_CALLING = 4
"""The most threads that publish, look up and administer."""

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")
HandleT = TypeVar("HandleT", bound=AsyncJobHandle[Any])


class AsyncOrchestrator(ForeignCalls, AsyncQueueAdmin, AsyncScheduleAdmin):
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
        return await self._call(_job, queue_name, data, id)

    @overload
    async def publish(
        self,
        queue_name: JobSchema[InT, Any],
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
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
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> str: ...
    async def publish(
        self,
        queue_name: QueueRef,
        job: Work,
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> str:
        """Publish one job, and return its id once the broker has confirmed it (PUB-1).

        See :meth:`Orchestrator.publish`. What many tasks publish to a queue at the same time shares one batch
        and one confirm, in the order of the calls. Each gets its own outcome. A call that is cancelled before
        its batch begins isn't sent.

        With ``connection=``, a ``psycopg.AsyncConnection``, an ``asyncpg.Connection``, or an
        ``AsyncConnection`` or ``AsyncSession`` of SQLAlchemy on one of them, the job is published in its
        transaction (PUB-7), on the running event loop.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        return await self.publish_with(queue_name, job, options, connection)

    async def publish_with(
        self,
        queue_name: QueueRef,
        job: Work,
        options: PublishOptions,
        connection: AsyncTransaction | None = None,
    ) -> str:
        """Publish one job; as :meth:`publish`."""
        orchestrator = await self._open()
        if connection is not None:
            registration = await self._registered(orchestrator, queue_name)
            refuse_transaction(registration.schema)
            transactions = AsyncTransactions(orchestrator, self._calling)
            return await transactions.publish(connection, registration, job, options)
        registration = await self._registered(orchestrator, queue_name)
        if orchestrator.observer is not None or registration.schema.unique is not None:
            return await self._call(Orchestrator.publish_with, queue_name, job, options)
        name = registration.queue.name
        publisher = self._publishers.get(name)
        if publisher is None:
            made = AsyncPublisher(orchestrator, name, self._calling)
            publisher = self._publishers.setdefault(name, made)
        return await publisher.publish(registration, job, options)

    @overload
    async def publish_batch(
        self,
        queue_name: JobSchema[InT, OutT],
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[AsyncPublishedJob[OutT]]: ...
    @overload
    async def publish_batch(
        self,
        queue_name: str,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[AsyncPublishedJob]: ...
    async def publish_batch(
        self,
        queue_name: QueueRef,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[AsyncPublishedJob]:
        """Publish many jobs in order, and return a handle for each, in the same order (PUB-4).

        See :meth:`Orchestrator.publish_batch`. ``jobs`` is read in a thread. ``connection`` is as in
        :meth:`publish`.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        registration = await self._registered(await self._open(), queue_name)
        queue: AsyncJobQueue = AsyncJobQueue(self, registration.schema, registration.queue.name)
        return queue.handles(await self.publish_batch_with(queue_name, jobs, options, connection))

    async def publish_batch_with(
        self,
        queue_name: QueueRef,
        jobs: Iterable[Work],
        options: PublishOptions,
        connection: AsyncTransaction | None = None,
    ) -> list[PublishOutcome]:
        """Publish many jobs; as :meth:`publish_batch`, but return the outcomes."""
        if connection is not None:
            orchestrator = await self._open()
            registration = await self._registered(orchestrator, queue_name)
            refuse_transaction(registration.schema)
            transactions = AsyncTransactions(orchestrator, self._calling)
            return await transactions.publish_batch(connection, registration, jobs, options)
        return await self._call(Orchestrator.publish_batch_with, queue_name, jobs, options)

    # -- receiving and results --------------------------------------------------------------------

    @overload
    async def receive_message(self, queue_name: JobSchema[InT, Any]) -> Job[InT] | None: ...
    @overload
    async def receive_message(self, queue_name: str) -> Job[Any] | None: ...
    async def receive_message(self, queue_name: QueueRef) -> Job[Any] | None:
        """Take one job off the queue without waiting; see :meth:`Orchestrator.receive_message`.

        If this is cancelled, the job may be lost.
        """
        return await self._call(_receive, queue_name)

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
            return await self._call(_result, queue_name, job_id)
        read = partial(result_value, orchestrator.backend, registration, job_id, timeout_s=timeout_s)
        awaited = self._awaited.of(orchestrator.backend, registration.queue.name)
        return await awaited.wait(job_id, timeout_s, read)

    @overload
    async def results(
        self,
        handles: Iterable[AsyncJobHandle[OutT]],
        *,
        timeout_s: float = 0.0,
        return_exceptions: Literal[False] = False,
    ) -> list[OutT | None]: ...
    @overload
    async def results(
        self, handles: Iterable[AsyncJobHandle[OutT]], *, timeout_s: float = 0.0, return_exceptions: bool
    ) -> list[OutT | Exception | None]: ...
    async def results(
        self,
        handles: Iterable[AsyncJobHandle[Any]],
        *,
        timeout_s: float = 0.0,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return what the handlers of many jobs returned, in the order of the handles (RES-1).

        See :meth:`Orchestrator.results`. The threads that wait are those of :meth:`result`.
        """
        many = await self._many_results(handles)
        values = [None] * len(many.handles)
        async with aclosing(self._ends(many, timeout_s)) as ends:
            await _put_values(values, ends, return_exceptions=return_exceptions)
        return values

    async def as_completed(self, handles: Iterable[HandleT], *, timeout_s: float) -> AsyncIterator[HandleT]:
        """Yield each handle as soon as its job has ended, in whatever way; ``result()`` then asks nobody.

        See :meth:`Orchestrator.as_completed`.
        """
        many = await self._many_results(handles)
        async with aclosing(self._ends(many, timeout_s)) as ends:
            async for results in ends:
                for number, result in results:
                    yield completed(many.handles[number], result)

    async def _many_results(self, handles: Iterable[HandleT]) -> ManyResults[HandleT]:
        inner = await self._open()
        many: ManyResults[HandleT] = await call_in(
            self._calling, ManyResults, inner.backend, inner.schema_registry, self, handles
        )
        return many

    def _ends(self, many: ManyResults[Any], timeout_s: float) -> AsyncGenerator[list[Numbered]]:
        return each_end(many, self._awaited, self._calling, check_seconds("timeout_s", timeout_s))

    async def status(self, queue_name: QueueRef, job_id: str) -> JobStatus:
        """Say where a job is; see :meth:`Orchestrator.status`."""
        return await self._call(Orchestrator.status, queue_name, job_id)


async def _put_values(
    values: list[Any], ends: AsyncIterator[list[Numbered]], *, return_exceptions: bool
) -> None:
    async for results in ends:
        put_values(values, results, return_exceptions=return_exceptions)


# Overloaded methods of the orchestrator as functions, as no ``Callable`` can carry their types.


def _job(orchestrator: Orchestrator, queue: QueueRef, data: Any, id_: str | None) -> Job[Any]:
    """As :meth:`Orchestrator.job`."""
    return orchestrator.job(queue, data, id=id_)


def _receive(orchestrator: Orchestrator, queue: QueueRef) -> Job[Any] | None:
    """As :meth:`Orchestrator.receive_message`."""
    return orchestrator.receive_message(queue)


def _result(orchestrator: Orchestrator, queue: QueueRef, job_id: str) -> Any:
    """As :meth:`Orchestrator.result`."""
    return orchestrator.result(queue, job_id)
