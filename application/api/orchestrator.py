"""The ``Orchestrator``: publish jobs, read results, and manage queues."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from time import monotonic
from typing import Any, Literal, TypeVar, overload

from pydantic import BaseModel

from ...domain import Job, JobSchema, Queue, QueueKind, QueueType, SchemaLike, job_from_schema, read_schema
from ...domain.bounds import MAX_BODY_BYTES, MAX_LISTED, check_int, check_name, check_seconds
from ...domain.job import NO_HEADERS
from ...domain.model_types import InT, OutT
from ...ports import JobStatus, Message, Observer, OrchestratorBackend, PublishOutcome, Transaction
from ..broker.backends import detect_backend
from ..broker.broker_clock import BrokerClock
from ..broker.default_backend import default_url
from ..checks.await_misuse import returned_id
from ..consuming.middleware import Middleware, check_middleware
from ..observing.observers import Observers
from ..publishing.deaths import Deaths
from ..publishing.group_commit import GroupCommits
from ..publishing.messages import (
    Work,
    confirmed_id,
    listed,
    messages_of,
    prepare,
    to_message,
    with_rejections,
)
from ..publishing.publish_options import PublishOptions, publish_options
from ..publishing.unique_publisher import publish_one_unique, publish_unique
from ..registration.registry import QueueRef, Registration, SchemaRegistry
from ..schedules.admin import ScheduleAdmin
from .job_queue import JobHandle, JobQueue, PublishedJob
from .many_results import ManyResults, completed, put_values
from .queue_admin import QueueAdmin
from .receiving import receive_job
from .results import job_status, result_value

HandleT = TypeVar("HandleT", bound=JobHandle[Any])

_UNOBSERVED = nullcontext(NO_HEADERS)


class Orchestrator(QueueAdmin, ScheduleAdmin):
    """Publishes jobs, reads results, and manages the queues of one backend.

    Threads may share an orchestrator. Every method may raise ``BackendUnavailable`` when the broker can't be
    reached, and ``Closed`` after :meth:`close`.

    Args:
        backend: A backend, such as ``LocalClient()``, or a URL, such as ``"memory://"``. Without one it is
            the backend that the command uses: of the variable ``MINDTRACE_JOBS_BACKEND``, else of
            ``pyproject.toml``, else the file ``mindtrace-jobs.db`` in the working folder. :meth:`close`
            closes a backend that was made here. A backend that you pass is yours to close.
        max_body_bytes: The largest encoded job that is published or decoded, in bytes.
        observers: Told about published jobs, and about the attempts of consumers connected to this.
        middleware: Functions that make a context manager of a job. It surrounds the handler's run, in every
            consumer connected to this; the first one is the outermost. In a :class:`BatchConsumer` it is made
            of the jobs of a batch, a tuple.

    Raises:
        UnknownBackend: ``backend`` is neither a backend nor a URL of an installed adapter.
        AdapterNotInstalled: the URL's adapter lacks a library; the message says what to install.
    """

    logger: logging.Logger
    steady_clock: Callable[[], float] = staticmethod(monotonic)
    """What the limits of connected consumers wait by, in seconds; a kit for tests has its own."""

    def __init__(
        self,
        backend: OrchestratorBackend | str | None = None,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        observers: Sequence[Observer] = (),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        super().__init__()
        if backend is None:
            backend = default_url(self.logger)
        self.backend = detect_backend(backend)
        self.max_body_bytes = check_int("max_body_bytes", max_body_bytes, 1, MAX_LISTED)
        self.observer: Observer | None = Observers(observers, self.logger) if observers else None
        self.middleware = check_middleware("Orchestrator", middleware)
        self._owns_backend = isinstance(backend, str)
        self.schema_registry = SchemaRegistry(self.backend)
        self.group_commits = GroupCommits(self.backend)
        self.clock = BrokerClock(self.backend)

    # -- schemas ----------------------------------------------------------------------------------

    def register(
        self,
        schema: SchemaLike,
        queue_type: QueueType | None = None,
        *,
        queue: str | None = None,
    ) -> str:
        """Declare a queue for the jobs of ``schema``. Registering it again changes nothing (ADM-1).

        If the broker is away, this raises ``BackendUnavailable``, and the next publish to the queue tries to
        declare it again.

        Models defined again with the same names and fields, as by a notebook cell, replace the former ones.

        Args:
            schema: The schema; or a pydantic model with the same fields, such as a ``TaskSchema`` of
                mindtrace-core.
            queue_type: As of :class:`JobSchema`; by default the schema's.
            queue: The queue's name; by default the schema's. With it one schema can serve several queues.

        Returns:
            The queue's name.

        Raises:
            SchemaConflict: a schema of this name with other models is registered; the message names the
                fields that differ.
            QueueConflict: the queue exists with another type.
            UnsupportedCapability: the backend has no queues of this type; or the schema has limits, and the
                backend no coordination store.
            InvalidName: ``queue`` breaks the rule for names.
            InvalidInput: there is no such type, or ``schema`` is no ``JobSchema``.
        """
        known = read_schema(schema, "register")
        name = known.name if queue is None else queue
        kind = None if queue_type is None else QueueKind.parse(queue_type)
        self.schema_registry.register(known, check_name("queue name", name), kind)
        return name

    def attach(self, queue: str | Queue) -> None:
        """Use a declared queue without its schema: any JSON object can be published as a payload.

        Consumers of the queue validate each payload. A payload that doesn't fit becomes a dead letter.

        Args:
            queue: The queue or its name. If it is a name, the backend is asked for the queue's kind.

        Raises:
            QueueNotFound: the queue isn't declared; nothing is created.
        """
        self.schema_registry.attach(queue)

    def queue(
        self,
        schema: JobSchema[InT, OutT],
        queue_type: QueueType | None = None,
        *,
        queue: str | None = None,
    ) -> JobQueue[InT, OutT]:
        """Return a queue of ``schema``, typed by its models, and declare it if necessary.

        Args:
            schema: The schema.
            queue_type: As in :meth:`register`.
            queue: As in :meth:`register`.

        Raises:
            JobsError: as in :meth:`register`.
        """
        schema = read_schema(schema, "queue")
        return JobQueue(self, schema, self.register(schema, queue_type, queue=queue))

    # -- publishing -------------------------------------------------------------------------------

    @overload
    def job(
        self, queue_name: JobSchema[InT, Any], data: InT | Mapping[str, Any], *, id: str | None = None
    ) -> Job[InT]: ...
    @overload
    def job(
        self, queue_name: str, data: BaseModel | Mapping[str, Any], *, id: str | None = None
    ) -> Job[Any]: ...
    def job(
        self,
        queue_name: QueueRef,
        data: BaseModel | Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002 - the field's name
    ) -> Job[Any]:
        """Make a job for a registered queue without publishing it, for example to choose its ``id``.

        Raises:
            QueueNotFound: nothing was registered under this name.
            InvalidPayload: the input doesn't fit the schema.
            InvalidName: the id breaks the rule for names.
        """
        return job_from_schema(self.schema_registry.registered(queue_name).schema, data, id=id)

    @overload
    def publish(
        self,
        queue_name: JobSchema[InT, Any],
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> str: ...
    @overload
    def publish(
        self,
        queue_name: str,
        job: Work,
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> str: ...
    def publish(
        self,
        queue_name: QueueRef,
        job: Work,
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> str:
        """Publish one job, and return once the broker has confirmed it (PUB-1).

        What several threads publish to a queue at the same time shares one batch and one confirm. Each
        gets its own outcome.

        Args:
            queue_name: A registered queue: its name, as :meth:`register` returned it; or its schema, which is
                registered if it isn't yet.
            job: A job, an instance of the schema's input model, or a dict that validates as one.
            priority: 0 to 9, higher first, on a priority queue; replaces the job's ``priority``.
            delay_s: Seconds before the job may run, by the broker's clock; replaces the job's ``not_before``.
            not_before: When the job may run, in place of ``delay_s``: a datetime with a time zone, up to 366
                days from now by this machine's clock; at once if it has passed. Replaces the job's.
            expires_s: Seconds for which the job may wait from then on, by the broker's clock. If it waited
                for longer, it isn't run: it ends as expired. Replaces the schema's ``expires_s``.
            timeout_s: For how many seconds its handler may run, more than 0; replaces the job's, and comes
                before what its consumer, the worker and the schema say.
            connection: Your connection to the database of the queues: the job is there once you commit, and
                never if you roll back (PUB-7). On PostgreSQL: a ``psycopg.Connection`` in a transaction, or a
                ``Connection`` or ``Session`` of SQLAlchemy on psycopg. What its driver raises is passed on.

        Returns:
            The job's id (PUB-2). If a job with this id is live (ready, delayed, in flight or dead), nothing
            changes, and the id is returned too; on RabbitMQ, which has no dedupe, it is published twice.
            If the schema is ``unique`` and another job holds this one's key, that job's id.

        Raises:
            QueueNotFound: nothing was registered under this name, or the queue was deleted (PUB-3).
            InvalidPayload: the input doesn't fit the schema, or is a dict with an unknown key (PUB-6).
            SchemaMismatch: the job is of another schema.
            InvalidJob: a value is out of range, ``not_before`` has no time zone, both ``delay_s`` and
                ``not_before`` are given, or a priority is given for another queue type.
            BodyTooLarge: the encoded job is over ``max_body_bytes``.
            PublishUnknown: the connection broke before the confirm: the job may or may not be in the queue
                (PUB-4).
            BackendUnavailable: the broker is away, and the job wasn't sent.
            UnsupportedCapability: ``connection`` is given, and the backend joins no transactions or the
                schema is unique; or the schema is unique, and the backend has no coordination store.
            InvalidInput: ``connection`` can't be joined; the message says why. Nothing was sent.
            UsageError: a signal or log handler calls this in a thread that is publishing to this queue.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        return self.publish_with(queue_name, job, options, connection)

    def publish_with(
        self,
        queue_name: QueueRef,
        job: Work,
        options: PublishOptions,
        connection: Transaction | None = None,
    ) -> str:
        """Publish one job; as :meth:`publish`."""
        registration = self.schema_registry.registered(queue_name)
        name = registration.queue.name
        if registration.schema.unique is not None:
            return self._publish_unique(registration, job, options, connection)
        if self.observer is None:
            message = to_message(registration, job, options, NO_HEADERS, self.max_body_bytes, self.clock)
            return self._commit(name, message, connection)
        with self.observer.publishing(name, 1) as headers:
            message = to_message(registration, job, options, headers, self.max_body_bytes, self.clock)
            return self._commit(name, message, connection)

    def _commit(self, queue_name: str, message: Message, connection: object) -> str:
        if connection is None:
            outcomes = self.group_commits[queue_name].publish([message])
        else:
            outcomes = self.backend.publish_in(connection, queue_name, [message])
        return returned_id(confirmed_id(queue_name, outcomes[0], self.backend))

    def _publish_unique(
        self,
        registration: Registration,
        job: Work,
        options: PublishOptions,
        connection: object,
    ) -> str:
        with self.observed(registration.queue.name, 1) as headers:
            message = to_message(registration, job, options, headers, self.max_body_bytes, self.clock)
            return publish_one_unique(self.backend, registration, message, connection, self.observer)

    @overload
    def publish_batch(
        self,
        queue_name: JobSchema[InT, OutT],
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> list[PublishedJob[OutT]]: ...
    @overload
    def publish_batch(
        self,
        queue_name: str,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> list[PublishedJob]: ...
    def publish_batch(
        self,
        queue_name: QueueRef,
        jobs: Iterable[Work],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> list[PublishedJob]:
        """Publish many jobs in order, and return a handle for each, in the same order (PUB-4).

        All jobs are validated before the first is sent. A job that doesn't validate is ``REJECTED`` with its
        error; the others are published. The arguments are those of :meth:`publish`.

        Returns:
            One handle per job, for :meth:`results` and :meth:`as_completed`. Its ``outcome`` is ``ACCEPTED``,
            ``DUPLICATE``, ``REJECTED`` or ``UNKNOWN``.

        Raises:
            QueueNotFound: nothing was registered under this name, or the queue was deleted (PUB-3).
            InvalidInput: ``jobs`` is a single job, or ``connection`` can't be joined.
            UnsupportedCapability: as in :meth:`publish`.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        registration = self.schema_registry.registered(queue_name)
        queue: JobQueue = JobQueue(self, registration.schema, registration.queue.name)
        return queue.handles(self.publish_batch_with(queue_name, jobs, options, connection))

    def publish_batch_with(
        self,
        queue_name: QueueRef,
        jobs: Iterable[Work],
        options: PublishOptions,
        connection: Transaction | None = None,
    ) -> list[PublishOutcome]:
        """Publish many jobs; as :meth:`publish_batch`, but return the outcomes."""
        registration = self.schema_registry.registered(queue_name)
        name = registration.queue.name
        jobs = listed(jobs)
        with self.observed(name, len(jobs)) as headers:
            prepared = prepare(registration, jobs, options, headers, self.max_body_bytes, self.clock)
            messages = messages_of(prepared)
            if not messages:
                outcomes = []
            elif registration.schema.unique is not None:
                outcomes = publish_unique(self.backend, registration, messages, connection, self.observer)
            elif connection is None:
                outcomes = self.backend.publish(name, messages)
            else:
                outcomes = self.backend.publish_in(connection, name, messages)
        return self.whole_batch(name, prepared, outcomes)

    def observed(self, queue: str, count: int) -> AbstractContextManager[Mapping[str, str]]:
        """Return a context in which so many jobs are published; it yields headers to add to each."""
        return _UNOBSERVED if self.observer is None else self.observer.publishing(queue, count)

    def whole_batch(
        self, queue: str, prepared: Sequence[Message | PublishOutcome], outcomes: list[PublishOutcome]
    ) -> list[PublishOutcome]:
        """Return the outcomes of a batch with those of its invalid jobs, and log how many were invalid."""
        whole = with_rejections(prepared, outcomes)
        if rejected := len(whole) - len(outcomes):
            self.logger.warning("queue %s: rejected %d of %d jobs of a batch", queue, rejected, len(whole))
        return whole

    # -- receiving and results --------------------------------------------------------------------

    @overload
    def receive_message(self, queue_name: JobSchema[InT, Any]) -> Job[InT] | None: ...
    @overload
    def receive_message(self, queue_name: str) -> Job[Any] | None: ...
    def receive_message(self, queue_name: QueueRef) -> Job[Any] | None:
        """Take one job off the queue without waiting. The job is done as soon as it is returned.

        The job runs at most once: if the caller dies, it is lost. Use a ``Consumer`` for work that must not
        be lost. A body that can't be decoded becomes a dead letter and is skipped (RCV-4), and a job that has
        expired ends so, as does one that was cancelled or replaced. A unique job frees its key. A job whose
        place isn't free, or whose turn hasn't come, stays in the queue. The place of a job is free again when
        the job is returned. The backend keeps a consumer open.

        Returns:
            The next job that may run; None if there is none, or the queue is paused.

        Raises:
            QueueNotFound: nothing was registered under this name, or the queue was deleted.
        """
        registration = self.schema_registry.registered(queue_name)
        follow_death = Deaths(self, registration, self.logger).followed
        return receive_job(
            self.backend, registration, self.pause_watch, self.max_body_bytes, self.clock, follow_death
        )

    @overload
    def result(
        self, queue_name: JobSchema[Any, OutT], job_id: str, *, timeout_s: float = 0.0
    ) -> OutT | None: ...
    @overload
    def result(self, queue_name: str, job_id: str, *, timeout_s: float = 0.0) -> Any: ...
    def result(self, queue_name: QueueRef, job_id: str, *, timeout_s: float = 0.0) -> Any:
        """Return what the handler of a job returned, waiting up to ``timeout_s`` seconds for it (RES-1).

        Args:
            queue_name: The queue of the job: its name, if it is registered here, or its schema.
            job_id: The job's id.
            timeout_s: How long to wait; by default not at all.

        Returns:
            An instance of the schema's output model, or None if the handler returned None.

        Raises:
            JobFailed: the job is dead; ``error`` is its last error, ``traceback`` its traceback. Of this
                kind are ``JobReplaced``, another took its place, and ``JobExpired``, it waited for too long.
            JobCancelled: the job was cancelled.
            JobNotFound: the queue knows no such job by then. Of this kind is ``ResultExpired``: the job's id
                is older than results are kept.
            ResultNotReady: the job hasn't ended by then; on RabbitMQ also in place of ``JobNotFound``.
            InvalidPayload: the stored result doesn't fit the schema's output model.
            UnsupportedCapability: the backend keeps no results.
            QueueNotFound: nothing was registered under this name, or the queue isn't declared.
        """
        registration = self.schema_registry.for_reading(queue_name)
        check_name("job id", job_id)
        timeout_s = check_seconds("timeout_s", timeout_s)
        found = self.backend.result(registration.queue.name, job_id, timeout_s=timeout_s)
        return result_value(self.backend, registration, job_id, found, timeout_s)

    @overload
    def results(
        self,
        handles: Iterable[JobHandle[OutT]],
        *,
        timeout_s: float = 0.0,
        return_exceptions: Literal[False] = False,
    ) -> list[OutT | None]: ...
    @overload
    def results(
        self, handles: Iterable[JobHandle[OutT]], *, timeout_s: float = 0.0, return_exceptions: bool
    ) -> list[OutT | Exception | None]: ...
    def results(
        self,
        handles: Iterable[JobHandle[Any]],
        *,
        timeout_s: float = 0.0,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return what the handlers of many jobs returned, in the order of the handles (RES-1).

        The jobs of one queue are asked for together, and waited for together. Where they are of several
        queues, each is waited for in a thread of its own.

        Args:
            handles: Handles of jobs of this orchestrator, as :meth:`publish_batch` returns them.
            timeout_s: How long to wait for all of them; by default not at all.
            return_exceptions: Whether a job's error stands in the list in place of its output. Else the first
                error is raised as soon as it is known, and the other jobs aren't waited for.

        Raises:
            JobsError: as of :meth:`result`; if the job was never published, as it was rejected, the error of
                its outcome. Of more than 100 jobs that have no result by then, only the first 100 have
                ``JobNotFound`` where nobody knows them; the others have ``ResultNotReady``.
            InvalidInput: ``handles`` aren't handles of this orchestrator.
        """
        many = ManyResults(self.backend, self.schema_registry, self, handles)
        values = [None] * len(many.handles)
        ends = many.ends(check_seconds("timeout_s", timeout_s))
        put_values(values, ends, return_exceptions=return_exceptions)
        return values

    def as_completed(self, handles: Iterable[HandleT], *, timeout_s: float) -> Iterator[HandleT]:
        """Yield each handle as soon as its job has ended, in whatever way; ``result()`` then asks nobody.

        The jobs are waited for as by :meth:`results`.

        Args:
            handles: Handles of jobs of this orchestrator, as :meth:`publish_batch` returns them.
            timeout_s: For how many seconds to wait for the last of them, what is done with the others
                included.

        Raises:
            ResultNotReady: a job hasn't ended by then; ``JobNotFound`` if its queue doesn't know it.
            InvalidInput: ``handles`` aren't handles of this orchestrator.
        """
        many = ManyResults(self.backend, self.schema_registry, self, handles)
        ends = many.ends(check_seconds("timeout_s", timeout_s))
        return (completed(many.handles[number], result) for number, result in ends)

    def status(self, queue_name: QueueRef, job_id: str) -> JobStatus:
        """Say where a job is: waiting, running, done, failed, cancelled, or not known.

        On RabbitMQ, a job that hasn't ended is not known either. The queue is given as in :meth:`result`.

        Raises:
            UnsupportedCapability: the backend keeps no results.
            QueueNotFound: nothing was registered under this name, or the queue isn't declared.
        """
        queue = self.schema_registry.for_reading(queue_name).queue.name
        return job_status(self.backend, queue, check_name("job id", job_id))

    def close(self) -> None:
        """Close the backend if this was made with a URL. Closing again does nothing (CON-2)."""
        if self._owns_backend:
            self.backend.close()
