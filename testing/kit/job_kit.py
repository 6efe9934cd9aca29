"""What a test has in place of a broker, a worker and a scheduler: :class:`JobKit`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from ..application.api.orchestrator import Orchestrator
from ..application.checks.await_misuse import runs_event_loop
from ..application.consuming.middleware import Middleware
from ..application.registration.registry import QueueRef, queue_name_of
from ..domain import Job
from ..domain.bounds import check_int, check_seconds
from ..domain.defaults import DEFAULT_LEASE_S
from ..domain.envelope import decode
from ..domain.errors import InvalidInput, UsageError
from ..domain.model_types import InT, OutT
from ..domain.wall_clock import told_by
from ..ports import DeadLetter, Observer
from .assertions import dead_letter_of, match_published, none_dead, nothing_else
from .backend import Faults, KitClient
from .drive import Drive, KitScheduler, Run, Runs
from .history import History, HistoryEvent
from .virtual_clock import VirtualClock
from .workers import Handler, Worker

_MOST = 10_000


class JobKit(Orchestrator):
    """An orchestrator for tests: its queues are in memory, and its time passes only when a test says so.

    Publish to it and read results from it as from any other; give it to code that takes an orchestrator. Jobs
    are encoded and decoded as for a broker. No handler runs by itself: :meth:`connect` says which there are,
    and :meth:`drain` and :meth:`advance` run them, and move the clock over delays, backoff, schedules, leases
    and all other times of queues. So nothing is waited for.

    While a kit is open, new jobs of this process have ids and dates of its clock. Close it, or use it in a
    ``with`` statement. In a process, one test at a time uses a kit. A handler that waits by itself, as with
    ``time.sleep``, does wait, and time limits of handlers pass by the machine's clock.

    Args:
        start: The date at which its clock begins, with a time zone; by default the present one.
        observers: As of :class:`Orchestrator`.
        middleware: Likewise.

    Raises:
        InvalidInput: ``start`` has no time zone.
    """

    def __init__(
        self,
        *,
        start: datetime | None = None,
        observers: Sequence[Observer] = (),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        if start is not None and start.tzinfo is None:
            raise InvalidInput(f"JobKit(start={start!r}): give it a time zone, as in datetime(…, tzinfo=UTC)")
        self._time = VirtualClock(time.time() if start is None else start.timestamp())
        self._history = History(self._time.now)
        self._faults = Faults()
        self._client = KitClient(self._time, self._history, self._faults)
        super().__init__(self._client, observers=observers, middleware=[self._around, *middleware])
        self.steady_clock = self._time.now
        self._scheduler = KitScheduler(self, self._history)
        self._drive = Drive(self, self._client, self._time, self._scheduler, self._history)
        self._is_driving = False
        self._is_closed = False
        self._open = ExitStack()
        self._open.callback(self._client.close)
        self._open.enter_context(told_by(self._time.now))

    # -- handlers and time ------------------------------------------------------------------------

    def connect(
        self,
        *handlers: Handler[Any, Any],
        concurrency: int | None = None,
        lease_s: float = DEFAULT_LEASE_S,
    ) -> None:
        """Have handlers run by :meth:`drain` and :meth:`advance`, each by a consumer of its own.

        Args:
            handlers: Consumers, their classes, or functions with ``@job_handler`` or ``@batch_handler``.
            concurrency: As of :meth:`Consumer.connect`.
            lease_s: Likewise: for how long the jobs of a killed worker stay with it.

        Raises:
            InvalidInput: one of them is no handler.
            JobsError: as of :meth:`Consumer.connect`.
        """
        for handler in handlers:
            self._drive.workers.append(self._worker(handler, concurrency, lease_s))

    @property
    def now(self) -> datetime:
        """What the clock shows, in UTC."""
        return datetime.fromtimestamp(self._time.now(), UTC)

    @property
    def scheduler(self) -> KitScheduler:
        """The scheduler: its :meth:`~KitScheduler.tick` publishes what is due now, and moves no clock."""
        return self._scheduler

    def drain(self, *, max_attempts: int = _MOST) -> int:
        """Run jobs until none waits for a connected handler, and move the clock over what they wait for.

        Jobs of schedules are published as their times come. A schedule alone doesn't move the clock, as it
        has no end: :meth:`advance` does. Jobs of queues without a connected handler stay, and so do those of
        a paused queue.

        Args:
            max_attempts: How many attempts are run at most. More means that a job comes again for ever.

        Returns:
            How many attempts were run.

        Raises:
            UsageError: no handler is connected; ``max_attempts`` weren't enough; an event loop runs in this
                thread; or a handler calls this. The message says what waits.
        """
        return self._run(self._drive.drain(check_int("max_attempts", max_attempts, 1, 10**9)))

    def advance(self, seconds: float | timedelta, *, max_attempts: int = _MOST) -> int:
        """Move the clock on, and run meanwhile what connected handlers have to run, each at its time.

        Without a handler it only moves the clock, and publishes the jobs of schedules.

        Args:
            seconds: For how long, up to 366 days.
            max_attempts: As of :meth:`drain`.

        Returns:
            How many attempts were run.

        Raises:
            UsageError: as of :meth:`drain`.
        """
        return self._run(self._advancing(seconds, max_attempts))

    async def drain_async(self, *, max_attempts: int = _MOST) -> int:
        """Do as :meth:`drain`, with ``async def`` handlers on the event loop that awaits this."""
        return await self._run_async(self._drive.drain(check_int("max_attempts", max_attempts, 1, 10**9)))

    async def advance_async(self, seconds: float | timedelta, *, max_attempts: int = _MOST) -> int:
        """Do as :meth:`advance`, with ``async def`` handlers on the event loop that awaits this."""
        return await self._run_async(self._advancing(seconds, max_attempts))

    def _advancing(self, seconds: float | timedelta, max_attempts: int) -> Runs:
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        check_int("max_attempts", max_attempts, 1, 10**9)
        return self._drive.advance(check_seconds("seconds", length), max_attempts)

    def _run(self, runs: Runs) -> int:
        if runs_event_loop():
            raise UsageError(
                "an event loop runs in this thread: await drain_async(), advance_async(seconds) or "
                "run_job_async(handler, payload)"
            )
        with self._driving():
            try:
                run = next(runs)
                while True:
                    run = runs.send(run.consumer.consume(run.most, block=False))
            except StopIteration as end:
                return _attempts(end)

    async def _run_async(self, runs: Runs) -> int:
        with self._driving():
            try:
                run = next(runs)
                while True:
                    run = runs.send(await run.consumer.consume_async(run.most, block=False))
            except StopIteration as end:
                return _attempts(end)

    @contextmanager
    def _driving(self) -> Iterator[None]:
        if self._is_driving:
            raise UsageError("a handler moves the clock of the kit that runs it: let the test do so")
        self._is_driving = True
        try:
            yield
        finally:
            self._is_driving = False

    # -- one handler ------------------------------------------------------------------------------

    def run_job(self, handler: Handler[InT, OutT], payload: InT | Mapping[str, Any]) -> OutT | None:
        """Run a handler once, and return what it returned, read back from what would be stored.

        The job isn't retried, and doesn't count as published. Jobs that the handler publishes, or returns as
        the next ones, do.

        Args:
            handler: A consumer, its class, or a function with ``@job_handler`` or ``@batch_handler``.
            payload: The payload of the job.

        Raises:
            BaseException: whatever the handler raised, the very object.
            AssertionError: the job wasn't done for another reason: its output doesn't fit the schema, or a
                batch names it as failed.
            UsageError: a job is ready in this queue already; or as of :meth:`drain`.
            InvalidPayload: the payload doesn't fit the schema.
        """
        with self._single_job(handler, payload) as (worker, job_id):
            self._run(_once(worker))
            output: OutT | None = self._output(worker, job_id)
            return output

    async def run_job_async(
        self, handler: Handler[InT, OutT], payload: InT | Mapping[str, Any]
    ) -> OutT | None:
        """Do as :meth:`run_job`, with an ``async def`` handler on the event loop that awaits this."""
        with self._single_job(handler, payload) as (worker, job_id):
            await self._run_async(_once(worker))
            output: OutT | None = self._output(worker, job_id)
            return output

    @contextmanager
    def _single_job(
        self, handler: Handler[InT, OutT], payload: InT | Mapping[str, Any]
    ) -> Iterator[tuple[Worker, str]]:
        """Publish a job for a consumer of its own; afterwards nothing of both is left."""
        worker = self._worker(handler, None, DEFAULT_LEASE_S)
        try:
            queue = worker.queue
            if ready := self._client.counts(queue).ready:
                raise UsageError(
                    f"run_job would run another job: {ready} of queue {queue} are ready; run them first, "
                    "with drain(), or use a JobKit() of its own"
                )
            before = len(self._history.published)
            job_id = self.publish(queue, payload)
            del self._history.published[before:]
            try:
                yield worker, job_id
            finally:
                self._client.cancel(queue, [job_id])
                self._client.discard(queue, [job_id])
        finally:
            worker.close()

    def _output(self, worker: Worker, job_id: str) -> Any:
        """Return the output of a job that has run once, or raise what its handler raised."""
        last = self._history.of(job_id)[-1]
        if last.what == "done":
            return self.result(worker.queue, job_id)
        if (raised := self._history.errors.get(job_id)) is not None:
            raise raised
        if last.what in ("published", "released"):
            raise AssertionError(
                f"the job didn't start: queue {worker.queue} is paused, or the job has no turn or place yet"
            )
        raise AssertionError(f"the job wasn't done: {last.what}: {last.detail}")

    # -- faults -----------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """Have a worker die in the next attempt, after its handler has ended and before the job is settled.

        So the job runs again, once the lease has ended by the clock, and has a crash more. What the handler
        did outside of the queues stays done, as after a real death. So fare all jobs that the worker holds.
        Its place of a concurrency limit is free at once, as a worker leaves that before it settles a job.
        Another worker then takes its place: a new consumer of a class or function, and an object that you
        passed to :meth:`connect` once more.
        """
        self._faults.kills += 1

    def lose_lease(self) -> None:
        """Have the next attempt lose its lease as its handler begins, as in a process that stood still.

        The handler runs to its end, and its outcome is refused. The job runs again, and has a crash more.
        """
        self._faults.lost_leases += 1

    # -- what there is ------------------------------------------------------------------------------

    def published(self, queue_name: QueueRef | None = None) -> list[Job[Any]]:
        """Return the jobs that were published, in order; those of one queue, or all.

        Args:
            queue_name: A queue: its name or its schema.

        Raises:
            QueueNotFound: nothing was registered under this name.
        """
        name = None if queue_name is None else self._known(queue_name)
        those = [each for each in self._history.published if name in (None, each.queue)]
        return [self._job_of(each.queue, each.message.body) for each in those]

    def forget_published(self) -> None:
        """Forget what was published so far: assertions see what comes from now on."""
        self._history.published.clear()

    def history(self, job_id: str) -> tuple[HistoryEvent, ...]:
        """Return what happened to a job, in order; nothing if there is none of this id."""
        return self._history.of(job_id)

    # -- assertions -------------------------------------------------------------------------------

    def assert_published(
        self,
        queue_name: QueueRef,
        payload: BaseModel | None = None,
        *,
        delay_s: float | None = None,
        priority: int | None = None,
        **fields: object,
    ) -> Job[Any]:
        """Assert that a job was published, and return it. Each call looks for one that none returned before.

        Args:
            queue_name: The queue: its name or its schema.
            payload: Its whole payload; or name some ``fields`` of it.
            delay_s: Seconds from its publish until it may run.
            priority: Its priority.
            fields: Values that fields of its payload equal.

        Raises:
            AssertionError: there is none such; the message lists those that there are.
            QueueNotFound: nothing was registered under this name.
        """
        __tracebackhide__ = True
        return match_published(
            self._history.published,
            self._known(queue_name),
            self._job_of,
            payload,
            {"delay_s": delay_s, "priority": priority},
            fields,
        )

    def assert_nothing_else_published(self) -> None:
        """Assert that each published job was asked for by :meth:`assert_published`.

        Raises:
            AssertionError: the message lists the others.
        """
        __tracebackhide__ = True
        nothing_else(self._history.published, self._job_of)

    def assert_dead(
        self,
        queue_name: QueueRef,
        *,
        reason: str | None = None,
        error: str | None = None,
        job_id: str | None = None,
    ) -> DeadLetter:
        """Assert that a job is dead, and return its dead letter.

        Args:
            queue_name: The queue: its name or its schema.
            reason: Its reason, such as ``"attempts exhausted"``.
            error: A part of its last error.
            job_id: Its id.

        Raises:
            AssertionError: there is none such; the message lists those that there are.
        """
        __tracebackhide__ = True
        queue = queue_name_of(queue_name)
        return dead_letter_of(queue, self.dead_letters(queue), reason, error, job_id)

    def assert_none_dead(self) -> None:
        """Assert that no job is dead, but those of which the test has asked.

        A test asks with :meth:`assert_dead`, :meth:`dead_letters`, or for the result. The end of a ``with``
        block asserts this, and so does the end of a test with the fixture ``jobs``: else a handler that fails
        would leave a test green that looks at nothing it does.

        Raises:
            AssertionError: the message lists those that are dead.
        """
        __tracebackhide__ = True
        none_dead(self._client.unseen_dead())

    # -- parts ------------------------------------------------------------------------------------

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        """Assert that no job is dead, and close the kit."""
        __tracebackhide__ = True
        try:
            if exc_type is None and not self._is_closed:
                self.assert_none_dead()
        finally:
            suppresses = super().__exit__(exc_type, exc_val, exc_tb)
        return suppresses

    def close(self) -> None:
        """Close the kit, and let the machine tell the date again. Closing again does nothing."""
        for worker in self._drive.workers:
            worker.close()
        self._drive.workers.clear()
        self._open.close()
        self._is_closed = True

    def _worker(self, handler: Handler[Any, Any], concurrency: int | None, lease_s: float) -> Worker:
        return Worker(self, self._client, handler, concurrency, lease_s)

    def _known(self, queue_name: QueueRef) -> str:
        """Return the name of a queue; raise if nothing is registered under it, as for a misspelt one."""
        return self.schema_registry.registered(queue_name_of(queue_name)).queue.name

    def _job_of(self, queue: str, body: bytes) -> Job[Any]:
        return decode(body, self.schema_registry.registered(queue).schema, max_bytes=self.max_body_bytes)

    @contextmanager
    def _around(self, work: Job[Any] | Sequence[Job[Any]]) -> Iterator[None]:
        """Note what handlers do; the middleware of the kit."""
        ids = [job.id for job in ([work] if isinstance(work, Job) else work)]
        for job_id in ids:
            self._history.errors.pop(job_id, None)
            self._history.note(job_id, "started")
        if self._faults.lost_leases:
            self._faults.lost_leases -= 1
            self._lose_leases(ids)
        try:
            yield
        except BaseException as error:
            self._history.errors.update(dict.fromkeys(ids, error))
            raise

    def _lose_leases(self, ids: Sequence[str]) -> None:
        for queue in self._client.queues():
            for job_id in ids:
                if self._client.end_lease(queue.name, job_id):
                    self._history.note(job_id, "lease lost", "while the handler runs")


def _once(worker: Worker) -> Runs:
    return (yield Run(worker.consumer, 1))


def _attempts(end: StopIteration) -> int:
    attempts: int = end.value
    return attempts
