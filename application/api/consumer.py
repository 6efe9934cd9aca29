"""The ``Consumer``: the base class of handlers."""

import inspect
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self

from ...domain import Job, JobSchema, QueueType, RetryPolicy
from ...domain.bounds import check_name, check_seconds
from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.errors import AlreadyConnected, InvalidInput, NotConnected
from ...domain.foreign_names import ForeignOptions
from ...domain.job_context import ConsumerContext
from ...domain.model_types import Answer, InT, OutT
from ...ports import ConsumerBackend
from ...ports.base_classes import Closeable
from ..checks import consumer_checks
from ..checks.await_misuse import runs_event_loop
from ..checks.handler_signature import check_handler, check_takes_job
from ..checks.importing import check_not_importing
from ..consuming.callers_loop import CallersLoop
from ..consuming.executor import Executor, nothing_to_stop
from ..consuming.hooks import ConsumerHooks
from ..consuming.job_permits import PermitShare
from ..consuming.loop import ConsumeLoop, ConsumeStats
from ..consuming.loop_factory import LoopSettings, make_loop, one_at_a_time
from ..consuming.middleware import Middleware, check_middleware, surround
from ..consuming.progress_reporter import ProgressReporter
from ..consuming.stop_conditions import Forever, StopCondition, check_count, chosen_by, until_empty
from ..consuming.time_limits import TimeLimits
from ..gates.assembly import Run, consumer_limits, gated_loop, open_consumer
from ..process.graceful_stop import stopping_on_signals
from ..publishing.deaths import Deaths
from ..publishing.next_jobs import next_jobs
from .orchestrator import Orchestrator

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ...domain.schedule import Cron, Every
    from ..consuming.coroutine_handler import CoroutineHandler


class _Connection(NamedTuple):
    """The state of a connected consumer."""

    orchestrator: Orchestrator
    backend: ConsumerBackend
    loop: ConsumeLoop
    run_loop: Run
    coroutines: "CoroutineHandler | None"
    """What runs an ``async def`` one job at a time."""
    callers_loop: CallersLoop
    is_async: bool
    poll_timeout_s: float
    limits: TimeLimits


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
    timeout_s: ClassVar[float | None] = None
    """For how many seconds ``run`` may run, instead of the schema's ``timeout_s``; a job may have its own."""
    kill_after_s: ClassVar[float | None] = None
    """How many seconds it may go on after that, instead of the schema's ``kill_after_s``."""
    schedule: "ClassVar[Cron | Every | None]" = None
    """Publishes jobs at these times, each with the input model's default values. ``connect`` defines this
    schedule, under the queue's name; a :class:`Scheduler` runs it."""

    middleware: "ClassVar[Sequence[Middleware]]" = ()
    """Functions that make a context manager of a job. It surrounds ``run``; the first one is the outermost. A
    class's middleware runs inside that of its :class:`Orchestrator`."""

    _executor_class: ClassVar[type[Executor]] = Executor
    _size = 1
    """How many jobs one call of the handler gets."""
    _queue_name: str | None = None
    _connection: "_Connection | None" = None
    _close_after_job = False
    _permits: PermitShare | None = None
    _has_started = False

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

    def on_start(self) -> Awaitable[None] | None:
        """Do what is needed before the first job, such as opening a pool. Each ``consume`` calls this once.

        A worker calls ``consume`` once in each process. If ``run`` is an ``async def``, this may be one, too;
        it then runs on the same event loop. Otherwise the thread that consumes calls it. If it raises an
        error, ``consume`` raises :class:`StartFailed`, and runs no job.
        """
        return None

    def on_stop(self) -> Awaitable[None] | None:
        """Undo what :meth:`on_start` did. It is called after the last job, before ``consume`` ends.

        It is called as ``on_start``, also after SIGTERM or an error of the backend, unless ``on_start``
        failed. A second signal ends ``consume`` at once, and so does a worker at the end of its grace period:
        then it isn't called. An error of it is logged.
        """
        return None

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
        lease_s: float = DEFAULT_LEASE_S,
        prefetch: int | None = None,
        poll_timeout_s: float = 5.0,
        timeout_s: float | None = None,
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
            timeout_s: For how many seconds ``run`` may run; None is the class's ``timeout_s``, else the
                schema's. A job that was published with its own has that.

        Raises:
            AlreadyConnected: this consumer is connected.
            SchemaNotRegistered: no schema of this name is registered in this process.
            SchemaConflict: another schema of this name is registered in this process.
            QueueConflict: the queue exists with another type.
            UnsupportedCapability: the backend has no queues of this type; or the class has a schedule or its
                schema limits, and the backend no coordination store.
            InvalidPayload: the class has a schedule, and a field of the input model has no default.
            BackendUnavailable: the broker can't be reached.
            InvalidInput: a setting is out of range, or ``middleware`` isn't a list of functions.
        """
        if self._connection is not None:
            raise AlreadyConnected(f"consumer of {self.queue_name!r} is connected: close() it first")
        concurrency = self.concurrency if concurrency is None else concurrency
        if not isinstance(orchestrator, Orchestrator):
            raise InvalidInput(
                f"connect({orchestrator!r:.80}): pass an Orchestrator, as in Orchestrator(url)"
            )
        consumer_checks.check_settings(concurrency, lease_s, prefetch, poll_timeout_s, timeout_s)
        consumer_checks.check_options(self)
        if (own := self.own_schema()) is not None:
            orchestrator.register(own, self.queue_type, queue=self.queue_name)
        self._has_started = False
        self._connection = self._connection_to(
            orchestrator, concurrency, lease_s, prefetch, poll_timeout_s, timeout_s
        )
        orchestrator.schema_registry.consumers.join(self, self.queue_name, self.logger)

    def share_permits(self, permits: PermitShare) -> None:
        """Run jobs only by permits that several consumers share, from the next :meth:`connect` on.

        A worker with ``--jobs`` calls this.

        Args:
            permits: The share of this consumer.
        """
        self._permits = permits

    def _connection_to(
        self,
        orchestrator: Orchestrator,
        concurrency: int,
        lease_s: float,
        prefetch: int | None,
        poll_timeout_s: float,
        timeout_s: float | None,
    ) -> _Connection:
        registration = orchestrator.schema_registry.for_consumer(self.queue_name)
        schema, queue = registration
        deaths = Deaths(orchestrator, registration, self.logger)
        deaths.check()
        if self.schedule is not None:
            orchestrator.schedules.define(queue.name, queue.name, None, self.schedule)
        limits_in_force = consumer_limits(schema, queue.name, orchestrator.pause_watch)
        backend = open_consumer(
            orchestrator.backend,
            schema,
            queue.name,
            at_once=concurrency,
            lease_s=lease_s,
            prefetch=prefetch,
            max_body_bytes=orchestrator.max_body_bytes,
            logger=self.logger,
            clock=orchestrator.clock,
            limits=limits_in_force,
            steady_clock=orchestrator.steady_clock,
        )
        run = surround(self._bound_handler(), (*orchestrator.middleware, *self._own_middleware()))
        is_async = inspect.iscoroutinefunction(run)
        loop_factory = type(self).loop_factory  # asked of the class: of an instance, it were a method
        cancelled: set[str] = set()
        stoppable = cancelled if self._executor_class is Executor else frozenset[str]()
        limits = self._time_limits(schema, timeout_s)
        callers_loop = CallersLoop()
        coroutines = None
        if is_async and concurrency == 1:
            coroutines = one_at_a_time(run, callers_loop, loop_factory, stoppable, limits.timed_out)
        executor = self._executor_class(
            schema=schema,
            handler=coroutines or run,
            policy=self.retry or schema.retry,
            keep_results=orchestrator.backend.capabilities.results,
            max_body_bytes=orchestrator.max_body_bytes,
            logger=self.logger,
            observer=orchestrator.observer,
            next_jobs=partial(next_jobs, orchestrator),
            follow_death=deaths.followed,
            consumer=ConsumerContext(
                queue.name, orchestrator, ProgressReporter(backend, self.logger), cancelled, limits.timed_out
            ),
            cancelled=cancelled,
            stop=nothing_to_stop if coroutines is None else coroutines.cancel,
            clock=orchestrator.clock,
            limits=limits,
        )
        settings = LoopSettings(
            queue=queue.name,
            concurrency=concurrency,
            is_async=is_async,
            loop_factory=loop_factory,
            callers_loop=callers_loop,
            prefetch=prefetch,
            logger=self.logger,
            observer=orchestrator.observer,
            permits=self._permits,
            hooks=self._hooks(is_async, lambda hook: hook() if coroutines is None else coroutines.call(hook)),
        )
        loop, run_loop = gated_loop(
            backend,
            orchestrator.backend,
            schema,
            queue.name,
            orchestrator.pause_watch,
            lambda gated: self._make_loop(gated, executor, settings),
            self.logger,
            limits_in_force,
        )
        return _Connection(
            orchestrator, backend, loop, run_loop, coroutines, callers_loop, is_async, poll_timeout_s, limits
        )

    def _time_limits(self, schema: JobSchema[Any, Any], timeout_s: float | None) -> TimeLimits:
        given = (timeout_s, self.timeout_s, schema.timeout_s)
        kill_after_s = schema.kill_after_s if self.kill_after_s is None else self.kill_after_s
        return TimeLimits(next((each for each in given if each is not None), None), kill_after_s, self.logger)

    @classmethod
    def _own_middleware(cls) -> Sequence[Middleware]:
        return check_middleware(f"{cls.__name__}.middleware", cls.middleware)

    def _hooks(self, is_async: bool, call: Callable[[Callable[[], Any]], object]) -> ConsumerHooks | None:
        """Return the hooks of the class, if it defines one."""
        consumer_checks.check_hooks(self, is_async=is_async)
        if not self._has_hooks():
            return None
        return ConsumerHooks(
            type(self).__name__, self.on_start, self.on_stop, call, self._note_start, self.logger
        )

    def _has_hooks(self) -> bool:
        cls = type(self)
        return cls.on_start is not Consumer.on_start or cls.on_stop is not Consumer.on_stop

    def _note_start(self) -> None:
        self._has_started = True

    @property
    def has_started(self) -> bool:
        """Whether it may run jobs: it has no :meth:`on_start`, or that has returned since ``connect``."""
        return self._has_started or not self._has_hooks()

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

    @property
    def timed_out(self) -> bool:
        """Whether the time limit of the running job is over, or that of the running batch.

        A long plain handler can check this between steps, and raise ``JobTimedOut`` to end in order. If it
        returns instead, the job is done.
        """
        return self._connection is not None and self._connection.loop.running_is_timed_out

    def end_process_by(self, end: Callable[[], None]) -> None:
        """Have ``end`` called if a handler goes on long after its time limit; for what runs a worker.

        It has to return at once. After it, all consumers of the process are to give up what has timed out,
        and to close. Then the process is to end, and another to work on in its place.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        self._connected().limits.end_process = end

    def give_up_timed_out(self) -> None:
        """Have :meth:`close` settle the jobs as timed out whose handlers go on after their time limits.

        No other job is started; :meth:`close` releases those that run. For what runs a worker: the process
        must end after that, as nothing else ends these handlers.

        Raises:
            NotConnected: this consumer isn't connected.
        """
        self._connected().loop.give_up_timed_out()

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
            StartFailed: :meth:`on_start` raised an error.
            NotConnected: this consumer isn't connected.
            InvalidInput: ``num_messages`` is negative or no integer, or ``block`` is none of the three.
            QueueNotFound: the queue was deleted.
            Closed: this consumer, or the backend, was closed meanwhile.
            UsageError: this consumer is consuming already, in another thread or around this call.
        """
        connection = self._connected()
        return self._run_loop(connection, num_messages, _stop_condition(connection, num_messages, block))

    async def consume_async(self, num_messages: int | None = None, *, block: bool | None = None) -> int:
        """Run jobs as :meth:`consume`, beside the other tasks of the event loop that awaits this.

        An ``async def`` handler runs on that event loop. So it can share clients, locks and queues with the
        program, and must not block. ``loop_factory`` has no effect. A plain handler runs on threads, as with
        :meth:`consume`. Here no signal stops the consumer; :meth:`stop` does, and so does cancelling this:
        the running jobs finish, the other jobs that it holds are released, and it raises CancelledError. If
        it is cancelled once more meanwhile, it raises CancelledError at once.

        Args:
            num_messages: As for :meth:`consume`.
            block: As for :meth:`consume`.

        Returns:
            How many deliveries were attempted.

        Raises:
            StartFailed: :meth:`on_start` raised an error.
            NotConnected: this consumer isn't connected.
            InvalidInput: ``num_messages`` is negative or no integer, or ``block`` is none of the three.
            QueueNotFound: the queue was deleted.
            Closed: this consumer, or the backend, was closed meanwhile.
            UsageError: this consumer is consuming already.
        """
        from ..async_calls.consuming import consume_beside  # imports asyncio, which takes long

        connection = self._connected()
        stop_condition = _stop_condition(connection, num_messages, block)
        run = partial(self._run_loop, connection, num_messages, stop_condition)
        name = f"mindtrace-jobs-{self.queue_name}"
        loop = connection.loop
        return await consume_beside(connection.callers_loop, run, loop.stop, loop.forget_stop, name)

    def consume_until_empty(self, *, in_flight_for_s: float = 0.0) -> int:
        """Run jobs until no job is ready or delayed. Jobs that wait for a retry count as delayed.

        In the main thread, SIGINT and SIGTERM stop it as :meth:`consume` with ``num_messages``.

        Args:
            in_flight_for_s: For so many seconds, wait for jobs in flight, too. After a consumer died, give
                its lease: its jobs come back by then.

        Returns:
            How many deliveries were attempted.

        Raises:
            StartFailed: :meth:`on_start` raised an error.
            NotConnected: this consumer isn't connected.
            InvalidInput: ``in_flight_for_s`` is no number of seconds from 0 to 366 days.
            QueueNotFound: the queue was deleted.
            UsageError: all jobs that are left are delayed by a ``ManualClock``; the message names the first.
        """
        connection = self._connected()
        stop_condition = until_empty(
            self.queue_name,
            connection.orchestrator.backend,
            lambda: connection.loop.held_back,
            connection.poll_timeout_s,
            check_seconds("in_flight_for_s", in_flight_for_s),
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
        check_not_importing(type(self).__name__)
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


def _stop_condition(connection: _Connection, num_messages: int | None, block: bool | None) -> StopCondition:
    if num_messages is not None:
        check_count(num_messages)
    return chosen_by(block, connection.poll_timeout_s, is_counted=num_messages is not None)
