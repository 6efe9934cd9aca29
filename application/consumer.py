"""The ``Consumer``: the base class of handlers."""

import inspect
import logging
import sys
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self

from ..domain import Job, JobSchema, QueueType, RetryPolicy
from ..domain.bounds import check_int, check_name
from ..domain.errors import AlreadyConnected, InvalidInput, NotConnected
from ..domain.foreign_names import ForeignOptions
from ..domain.job_context import ConsumerContext
from ..ports import ConsumerBackend
from ..ports.base_classes import Closeable
from . import consumer_checks
from .await_misuse import runs_event_loop
from .consuming.executor import Executor, nothing_to_stop
from .consuming.loop import ConsumeLoop, ConsumeStats
from .consuming.loop_factory import LoopSettings, make_loop, own_event_loop
from .consuming.progress_reporter import ProgressReporter
from .consuming.stop_conditions import Forever, StopCondition, chosen_by, until_empty
from .handler_signature import check_handler, check_takes_job
from .job_queue import Answer, InT, OutT
from .open_consumer_backend import obeying_cancels, open_consumer_backend
from .orchestrator import Orchestrator
from .pausing.loop import Run, pausable_loop
from .publishing.next_jobs import next_jobs
from .signals.graceful_stop import stopping_on_signals

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ..domain.schedule import Cron, Every
    from .consuming.coroutine_handler import CoroutineHandler


class _Connection(NamedTuple):
    """The state of a connected consumer."""

    orchestrator: Orchestrator
    backend: ConsumerBackend
    loop: ConsumeLoop
    run_loop: Run
    coroutines: "CoroutineHandler | None"
    """What runs an ``async def`` one job at a time, on an event loop of its own."""
    is_async: bool
    poll_timeout_s: float


class Consumer(ForeignOptions, Closeable, Generic[InT, OutT]):
    """Runs the jobs of one schema. Subclass it, define ``run``, then connect and consume.

    As ``Consumer[Input, Output]`` it is typed: type checkers compare ``run`` with the models. ``run`` returns
    an instance of the output model, a dict that validates as one, or None; or :class:`Then`, with the next
    job. It may be an ``async def``. If it raises, the job is retried by the retry policy. ``RetryLater``
    chooses the delay of the retry, and ``Reject`` makes the job a dead letter at once. A job may run more
    than once, after a crash or a lost lease, so ``run`` must be idempotent.

    A consumer runs ``concurrency`` jobs at once, 1 by default. If it is more than 1, an ``async def`` runs as
    tasks of one event loop, and a plain ``run`` on threads.

    Args:
        job_type_name: The name of the schema and its queue; by default the name of the class's ``schema``.
        queue: The name of the queue, if it isn't the schema's; see :meth:`Orchestrator.register`.

    Raises:
        HandlerMissing: the class doesn't define ``run``, or its ``run`` can't be called with a job.
        InvalidName: the name breaks the rule for names.
        InvalidInput: there is no name and no schema; or ``schema`` is no ``JobSchema``, or has another name.
    """

    logger: logging.Logger
    if not TYPE_CHECKING:  # a declaration here would take the models from the types of a subclass's schema
        schema: ClassVar[JobSchema[Any, Any] | None] = None
        """The schema of the jobs, which ``connect`` registers. With None, register one before ``connect``."""
    queue_type: ClassVar[QueueType | None] = None
    """The type of the queue, if it isn't the schema's ``queue_type``, as of another queue of that schema."""
    retry: ClassVar[RetryPolicy | None] = None
    """The retry policy of this consumer, instead of the schema's."""
    concurrency: ClassVar[int] = 1
    """How many jobs run at once, unless ``connect`` is told otherwise."""
    loop_factory: ClassVar["Callable[[], AbstractEventLoop] | None"] = None
    """Makes the event loop of an ``async def``, such as ``uvloop.new_event_loop``; None is asyncio's own."""
    schedule: "ClassVar[Cron | Every | None]" = None
    """Publishes jobs at these times, each with the input model's default values. ``connect`` defines this
    schedule, under the queue's name; a :class:`Scheduler` runs it."""

    _executor_class: ClassVar[type[Executor]] = Executor
    _size = 1
    """How many jobs one call of the handler gets."""
    _queue_name: str | None = None
    _connection: "_Connection | None" = None
    _close_after_job = False

    def __new__(cls, *args: Any, **_kwargs: Any) -> Self:
        """Refuse a class without a usable ``run``, in words, where Python would name abstract methods."""
        if cls is Consumer:
            raise consumer_checks.base_class_called(args)
        check_handler(cls, "run")
        made = super().__new__(cls)
        check_takes_job(f"{cls.__name__}.run", made.run)
        return made

    def __init__(self, job_type_name: str | None = None, *, queue: str | None = None) -> None:
        super().__init__()
        name = consumer_checks.name_of(type(self), self.own_schema(), job_type_name, queue)
        self._queue_name = name if queue is None else check_name("queue name", queue)

    @classmethod
    def own_schema(cls) -> JobSchema[Any, Any] | None:
        """Return the class's ``schema``, or None.

        Raises:
            InvalidInput: it is no ``JobSchema``, or its models aren't those of ``Consumer[Input, Output]``.
        """
        return consumer_checks.schema_of(cls, Consumer)

    @abstractmethod
    def run(self, job: Job[InT]) -> Answer[OutT]:
        """Do the work of ``job``. Its ``payload`` is a validated instance of the schema's input model."""

    @property
    def queue_name(self) -> str:
        """The name of the queue whose jobs this runs.

        Raises:
            UsageError: a subclass's ``__init__`` doesn't call this class's.
        """
        if self._queue_name is None:
            raise consumer_checks.init_forgotten(type(self), self.own_schema())
        return self._queue_name

    def connect(
        self,
        orchestrator: Orchestrator,
        *,
        concurrency: int | None = None,
        lease_s: float = 30.0,
        prefetch: int | None = None,
        poll_timeout_s: float = 5.0,
    ) -> None:
        """Connect to the orchestrator's backend; this opens the consumer backend that belongs to it.

        Args:
            orchestrator: The orchestrator; it knows the schema, unless the class has one.
            concurrency: How many jobs run at once, 1 to 10,000; None is the class's ``concurrency``.
            lease_s: Seconds after which the jobs of a consumer that died go to another. A heartbeat extends
                the lease while a handler runs, however long. On RabbitMQ, where the connection is the lease,
                it says only how long such a consumer keeps the places of a concurrency limit.
            prefetch: How many jobs to take at once. None leaves it to the backend: RabbitMQ's client takes 1
                unless it was made with another ``prefetch``; all others adapt it to how long jobs take. At
                least ``concurrency`` jobs are taken, however small this is. If ``concurrency`` is above 1,
                RabbitMQ's default adapts, too.
            poll_timeout_s: The longest single wait for a job, in seconds. A publish ends the wait at once.

        Raises:
            AlreadyConnected: this consumer is connected.
            SchemaNotRegistered: no schema of this name is registered in this process.
            SchemaConflict: another schema of this name is registered in this process.
            QueueConflict: the queue exists with another type.
            UnsupportedCapability: the backend has no queues of this type; or the class has a schedule or its
                schema limits, and the backend no coordination store.
            InvalidPayload: the class has a schedule, and a field of the input model has no default.
            BackendUnavailable: the broker can't be reached.
            InvalidInput: a setting is out of range.
        """
        if self._connection is not None:
            raise AlreadyConnected(f"consumer of {self.queue_name!r} is connected: close() it first")
        concurrency = self.concurrency if concurrency is None else concurrency
        if not isinstance(orchestrator, Orchestrator):
            raise InvalidInput(
                f"connect({orchestrator!r:.80}): pass an Orchestrator, as in Orchestrator(url)"
            )
        consumer_checks.check_settings(concurrency, lease_s, prefetch, poll_timeout_s)
        consumer_checks.check_options(self)
        if (own := self.own_schema()) is not None:
            orchestrator.register(own, self.queue_type, queue=self.queue_name)
        self._connection = self._connection_to(orchestrator, concurrency, lease_s, prefetch, poll_timeout_s)
        orchestrator.schema_registry.consumers.join(self, self.queue_name, self.logger)

    def _connection_to(
        self,
        orchestrator: Orchestrator,
        concurrency: int,
        lease_s: float,
        prefetch: int | None,
        poll_timeout_s: float,
    ) -> _Connection:
        schema, queue = orchestrator.schema_registry.for_consumer(self.queue_name)
        if self.schedule is not None:
            orchestrator.schedules.define(queue.name, queue.name, None, self.schedule)
        backend = open_consumer_backend(
            orchestrator.backend,
            schema,
            queue.name,
            at_once=concurrency,
            lease_s=lease_s,
            prefetch=prefetch,
            max_body_bytes=orchestrator.max_body_bytes,
            logger=self.logger,
        )
        run = self._bound_handler()
        is_async = inspect.iscoroutinefunction(run)
        loop_factory = type(self).loop_factory  # asked of the class: of an instance, it were a method
        cancelled: set[str] = set()
        stoppable = cancelled if self._executor_class is Executor else frozenset[str]()
        on_own_loop = own_event_loop(run, loop_factory, stoppable) if is_async and concurrency == 1 else None
        executor = self._executor_class(
            schema=schema,
            handler=on_own_loop or run,
            policy=self.retry or schema.retry,
            keep_results=orchestrator.backend.capabilities.results,
            max_body_bytes=orchestrator.max_body_bytes,
            logger=self.logger,
            observer=orchestrator.observer,
            next_jobs=partial(next_jobs, orchestrator),
            consumer=ConsumerContext(
                queue.name, orchestrator, ProgressReporter(backend, self.logger), cancelled
            ),
            cancelled=cancelled,
            stop=nothing_to_stop if on_own_loop is None else on_own_loop.cancel,
        )
        settings = LoopSettings(
            queue=queue.name,
            concurrency=concurrency,
            is_async=is_async,
            loop_factory=loop_factory,
            prefetch=prefetch,
            logger=self.logger,
            observer=orchestrator.observer,
        )
        watch = orchestrator.pause_watch

        def make(taking: ConsumerBackend) -> ConsumeLoop:
            if watch is not None:  # around what looks for pauses, as that look tells of cancels, too
                taking = obeying_cancels(taking, orchestrator.backend, schema, queue.name, watch.has_cancels)
            return self._make_loop(taking, executor, settings)

        loop, run_loop = pausable_loop(watch, queue.name, backend, make, self.logger)
        return _Connection(orchestrator, backend, loop, run_loop, on_own_loop, is_async, poll_timeout_s)

    def _bound_handler(self) -> Callable[[Any], Any]:
        return self.run

    def _make_loop(self, backend: ConsumerBackend, executor: Executor, settings: LoopSettings) -> ConsumeLoop:
        return make_loop(backend, executor, settings)

    @property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator that this is connected to, for example to publish the next job from ``run``.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        return self._connected().orchestrator

    @property
    def consumer_backend(self) -> ConsumerBackend:
        """The consumer backend that :meth:`connect` chose.

        Raises:
            NotConnected: there is none yet.
        """
        return self._connected().backend

    @property
    def stats(self) -> ConsumeStats:
        """How many deliveries ended in which way since ``connect``: a snapshot, from any thread.

        It has ``attempted``, ``done``, ``retried``, ``dead``, ``cancelled``, ``released`` and ``lost``.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        return self._connected().loop.stats

    @property
    def stopped(self) -> bool:
        """Whether the last ``consume`` ended because it was stopped, by :meth:`stop` or a signal.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        return self._connected().loop.stopped

    @property
    def lease_lost(self) -> bool:
        """Whether the lease of the running job was lost, so that another consumer may run it too (LSE-4).

        A long handler can check this between steps, and return early.
        """
        return self._connection is not None and self._connection.loop.running_is_lost

    @property
    def cancelled(self) -> bool:
        """Whether the running job was asked to be cancelled, or one of the running batch (CAN-2).

        A long handler can check this between steps, and raise to end early, for example ``JobCancelled``:
        then the job is cancelled, and isn't retried. If it returns instead, the job is done.
        """
        return self._connection is not None and self._connection.loop.running_is_cancelled

    def consume(self, num_messages: int | None = None, *, block: bool | None = None) -> int:
        """Run jobs until stopped, or until ``num_messages`` deliveries were attempted.

        In the main thread, SIGINT and SIGTERM stop it gracefully: the running job is finished, and the other
        jobs it holds are released. A call that runs until stopped then returns. Others aren't complete, and
        raise KeyboardInterrupt for SIGINT and ``SystemExit(143)`` for SIGTERM. A second signal raises
        KeyboardInterrupt at once, and the running job is released too. If the program has its own handler for
        one of these signals, that runs instead. It may call :meth:`stop`, or raise as a second signal would.

        Every error that ``run`` raises, KeyboardInterrupt and SystemExit included, is a failure of its job,
        and this goes on. Other threads get no signals: there the main thread must call :meth:`stop`, for
        example when Ctrl-C raises KeyboardInterrupt in it.

        Args:
            num_messages: How many deliveries to attempt, 0 or more, whether they succeed or not; the same on
                every backend. None runs until stopped.
            block: True waits for jobs however long it takes; False returns as soon as none is ready. None,
                the default: with ``num_messages``, return once no job came for ``poll_timeout_s``; without
                ``num_messages``, wait until stopped.

        Returns:
            How many deliveries were attempted.

        Raises:
            NotConnected: this consumer isn't connected.
            InvalidInput: ``num_messages`` is negative or no integer, or ``block`` is none of the three.
            QueueNotFound: the queue was deleted.
            Closed: this consumer, or the backend, was closed meanwhile.
            UsageError: this consumer is consuming already, in another thread or around this call.
        """
        connection = self._connected()
        if num_messages is not None:
            check_int("num_messages", num_messages, 0, sys.maxsize)
        stop_condition = chosen_by(block, connection.poll_timeout_s, is_counted=num_messages is not None)
        return self._run_loop(connection, num_messages, stop_condition)

    def consume_until_empty(self, *, in_flight_for_s: float = 0.0) -> int:
        """Run jobs until no job is ready or delayed. Jobs that wait for a retry count as delayed.

        In the main thread, SIGINT and SIGTERM stop it as :meth:`consume` with ``num_messages``.

        Args:
            in_flight_for_s: For so many seconds, wait for jobs in flight, too. After a consumer died, give
                its lease: its jobs come back by then.

        Returns:
            How many deliveries were attempted.

        Raises:
            NotConnected: this consumer isn't connected.
            QueueNotFound: the queue was deleted.
            UsageError: all jobs that are left are delayed by a ``ManualClock``; the message names the first.
        """
        connection = self._connected()
        stop_condition = until_empty(
            self.queue_name,
            connection.orchestrator.backend,
            lambda: connection.loop.held_back,
            connection.poll_timeout_s,
            in_flight_for_s,
        )
        return self._run_loop(connection, None, stop_condition)

    def stop(self) -> None:
        """Make ``consume`` return after the running job. Any thread may call this.

        If no ``consume`` runs, the next one returns at once. A signal handler may call this too: it waits for
        no lock.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        self._connected().loop.stop()

    def close(self) -> None:
        """Disconnect, and release the jobs it holds. Closing again does nothing; ``connect`` works again.

        Finished jobs that couldn't be settled in an outage are settled now, if the broker is back. If a
        handler closes its own consumer, its job is finished and settled first.
        """
        connection = self._connection
        if connection is not None and connection.loop.runs_here:
            self._close_after_job = True  # to release the job would have the next consumer close itself, too
            connection.loop.stop()
            return
        self._connection = None
        if connection is not None:
            connection.orchestrator.schema_registry.consumers.leave(self)
            connection.loop.close()

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise NotConnected(f"consumer of {self._queue_name!r}: call connect(orchestrator) first")
        return self._connection

    def _run_loop(self, connection: _Connection, limit: int | None, stop_condition: StopCondition) -> int:
        if connection.is_async and runs_event_loop():
            raise consumer_checks.loop_runs_already(type(self).__name__)
        has_an_end = limit is not None or not isinstance(stop_condition, Forever)
        with stopping_on_signals(connection.loop.stop, raises=has_an_end):
            try:
                return connection.run_loop(limit, stop_condition)
            finally:
                self._end(connection)

    def _end(self, connection: _Connection) -> None:
        try:
            if connection.coroutines is not None:
                connection.coroutines.close(self.logger)
        finally:
            if self._close_after_job:
                self._close_after_job = False
                self.close()
