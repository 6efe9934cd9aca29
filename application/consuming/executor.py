"""The execution of one delivery, as one straight pipe: decode, validate, run, validate the output, settle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from logging import ERROR, INFO, WARNING, Logger
from time import perf_counter, time
from typing import Any

from ...domain import Job, JobOutput, JobSchema, RetryLater, RetryPolicy, Snooze
from ...domain.bounds import truncate_error
from ...domain.dead_reasons import DeadReason
from ...domain.envelope import check_bytes_kept, decode, decode_model, encode_model
from ...domain.errors import BackendUnavailable, BodyTooLarge, InvalidPayload, JobsError, UsageError
from ...domain.failure import decode_failure
from ...domain.handler_signals import HandlerSignal
from ...domain.job_context import NO_CONSUMER, ConsumerContext, running
from ...domain.schema import validate_result
from ...domain.then import Then
from ...domain.wording import quantity
from ...ports import (
    Ack,
    Attempt,
    Cancel,
    Dead,
    Delivery,
    Next,
    Observer,
    Outcome,
    Release,
    Retry,
    Settlement,
)
from ..broker.broker_clock import Clock
from ..failures.failed_attempts import FollowDeath, failed_attempt, not_dead_yet
from ..failures.handler_errors import describe, try_to_log
from ..process.graceful_stop import asks_to_stop, raised_by_signal
from .expiry import expiry_of
from .time_limits import LimitedRun, TimeLimits, cancels_this_task

_OUTCOMES = {Ack: Outcome.DONE, Cancel: Outcome.CANCELLED, Release: Outcome.SNOOZED}
Handler = Callable[[Any], Any]
"""Takes a job, or a batch of jobs."""
new_ack: Callable[[type[Ack], tuple[Any, ...]], Ack] = tuple.__new__
"""Makes one in half the time of ``Ack(...)``, which counts once a job."""

NextJobs = Callable[[Job[Any], Then[Any]], tuple[Next, ...]]
"""Raises JobsError if they can't be published."""


def no_next_jobs(_job: Job[Any], _then: Then[Any]) -> tuple[Next, ...]:
    """Refuse next jobs, where no consumer runs the handler.

    Raises:
        UsageError: always.
    """
    raise UsageError("no consumer runs this handler, so that nothing can be published after it")


def nothing_follows(_delivery: Delivery, dead: Dead) -> Dead | Retry:
    """Publish nothing with a death, where no consumer runs the handler."""
    return dead


def nothing_to_stop(_receipts: set[str]) -> None:
    """Leave it to the handlers to see that they are to end: they are plain functions."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Turns deliveries into settlements; no job and no handler can make it raise.

    Args:
        schema: What the jobs must be.
        handler: What runs them.
        policy: When a failed job runs again, and when it is given up.
        keep_results: Whether the backend keeps what the handler returns.
        max_body_bytes: The largest body that is looked at.
        logger: Where failures are told.
        observer: Who hears of each attempt, if anyone.
        consumer: What handlers can ask for: the orchestrator, and where progress goes.
        next_jobs: Makes of what a handler returns what the ack of its job publishes.
        follow_death: Adds to the death of a job what it publishes.
        cancelled: The receipts of running jobs that are to be cancelled; the loop that runs this keeps it.
        stop: Has the handlers of such jobs end, given by receipt, if they can be.
        clock: The broker's, which says whether a job has expired.
        limits: For how long handlers may run.
    """

    schema: JobSchema[Any, Any]
    handler: Handler
    policy: RetryPolicy
    keep_results: bool
    max_body_bytes: int
    logger: Logger
    observer: Observer | None = None
    consumer: ConsumerContext = NO_CONSUMER
    next_jobs: NextJobs = no_next_jobs
    follow_death: FollowDeath = nothing_follows
    cancelled: set[str] = field(default_factory=set)
    stop: Callable[[set[str]], None] = nothing_to_stop
    clock: Clock = time
    expired: set[str] = field(default_factory=set, init=False)
    """The receipts of jobs that end as expired; the loop that runs this forgets those that are settled."""
    limits: TimeLimits = field(default_factory=TimeLimits)
    dropped: set[str] = field(default_factory=set, init=False)
    """The types of results that weren't kept, as the schema has no output."""

    def execute(self, delivery: Delivery) -> Settlement:
        """Run one delivery, and return its settlement.

        Whatever the handler raises is a failure of its job: KeyboardInterrupt, GeneratorExit, SystemExit and
        CancelledError too, or one job would end one worker after the other. Only what a signal's handler
        raised passes through, since it asks the process to stop.
        """
        began_s = 0.0 if self.observer is None else perf_counter()
        job = self._begin(delivery)
        if not isinstance(job, Job):
            return self._tell(delivery, job, began_s)
        token = running.set((job, delivery.receipt, self.consumer))
        limit_s = self.limits.timeout_s if job.timeout_s is None else job.timeout_s
        try:
            if self.observer is not None:
                self.observer.started(self.schema.name, job)
            try:
                if limit_s is None:
                    output = self.handler(job)
                else:
                    output = self._limited(delivery, job, limit_s, began_s).call(self.handler, job)
            except BaseException as error:
                settlement = self._fail(delivery, job, error)
            else:
                settlement = self._succeed(delivery, job, output)
            return settlement if self.observer is None else self._tell(delivery, settlement, began_s)
        finally:
            running.reset(token)
            if limit_s is not None:
                self.limits.forget((delivery.receipt,))

    async def execute_async(
        self, delivery: Delivery, is_abandoned: Callable[[BaseException], bool]
    ) -> Settlement:
        """Run one delivery by a handler that is an ``async def``, in a task of its own; as :meth:`execute`.

        Args:
            delivery: What to run.
            is_abandoned: Whether an error was thrown into the handler because its consumer ends. It then
                passes through.
        """
        began_s = perf_counter()
        job = self._begin(delivery)
        if not isinstance(job, Job):
            return self._tell(delivery, job, began_s)
        running.set((job, delivery.receipt, self.consumer))  # in the context of this task alone
        if self.observer is not None:
            self.observer.started(self.schema.name, job)
        limit_s = self.limits.timeout_s if job.timeout_s is None else job.timeout_s
        try:
            try:
                if limit_s is None:
                    output = await self.handler(job)
                else:
                    limited = self._limited(delivery, job, limit_s, began_s, cancels_this_task())
                    output = await limited.call_async(self.handler, job)
            except BaseException as error:
                if is_abandoned(error):
                    raise
                settlement = self._fail(delivery, job, error)
            else:
                settlement = self._succeed(delivery, job, output)
            return self._tell(delivery, settlement, began_s)
        finally:
            if limit_s is not None:
                self.limits.forget((delivery.receipt,))

    def _begin(self, delivery: Delivery) -> Job[Any] | Settlement:
        """Return the job to run, or how to settle the delivery if it can't be run."""
        if delivery.crashes >= self.policy.max_crashes:
            lost = quantity(delivery.crashes, "delivery", "deliveries")
            error = f"{lost} ended without a settlement: does the job kill its worker?"
            return self._dead(delivery, DeadReason.CRASHES, error)
        job = self._decode(delivery)
        if not isinstance(job, Job) or job.expires_at is None:
            return job
        return self._unless_expired(delivery, job)

    def _decode(self, delivery: Delivery) -> Job[Any] | Settlement:
        """Return the job, or how to settle the delivery if it isn't one of the schema."""
        try:
            return decode(delivery.body, self.schema, attempt=delivery.attempt, max_bytes=self.max_body_bytes)
        except BaseException as error:  # a validator of the user's model may raise anything
            if raised_by_signal(error):
                raise
            return self._dead(delivery, DeadReason.MALFORMED, describe(error), error)

    def _unless_expired(self, delivery: Delivery, job: Job[Any]) -> Job[Any] | Settlement:
        """Return the job to run, or how to settle it if it has expired."""
        expiry = expiry_of(job, delivery.receipt, self.schema, self.clock, keeps_results=self.keep_results)
        if expiry is None:
            return job
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        if isinstance(expiry, Dead):
            try_to_log(self.logger, ERROR, "job %s is dead: expired: it isn't run", delivery.id)
            return self.follow_death(delivery, expiry)
        self.expired.add(delivery.receipt)
        try_to_log(self.logger, INFO, "job %s expired: it isn't run", delivery.id)
        return expiry

    def _limited(
        self,
        delivery: Delivery,
        job: Job[Any],
        limit_s: float,
        began_s: float,
        interrupt: Callable[[], object] | None = None,
    ) -> LimitedRun:
        """Return what runs the handler of one job for so long at most."""
        return LimitedRun(
            self.limits,
            (delivery,),
            limit_s,
            interrupt or self._interrupt_of(delivery.receipt),
            partial(self._give_up, [(delivery, job)], began_s),
        )

    def _interrupt_of(self, *receipts: str) -> Callable[[], object] | None:
        """Return what ends a coroutine that runs on an event loop of its own; None for a plain handler."""
        return None if self.stop is nothing_to_stop else partial(self.stop, {*receipts})

    def _give_up(self, work: Sequence[tuple[Delivery, Job[Any]]], began_s: float) -> None:
        """Settle jobs whose handler goes on after its time limit, as its process is about to end."""
        for delivery, job in work:
            shown = self.limits.shown_given_up(delivery.receipt)
            settlement = self._retry(delivery, job, shown)
            self.limits.finish(settlement)
            self._tell(delivery, settlement, began_s)

    def _tell(self, delivery: Delivery, settlement: Settlement, began_s: float) -> Settlement:
        """Tell the observer how an attempt ended, unless it was given up before; return its settlement."""
        if self.observer is not None and delivery.receipt not in self.limits.given_up:
            duration_s = perf_counter() - began_s
            timed_out = delivery.receipt in self.limits.timed_out
            attempt = _attempt_of(self.schema.name, delivery, settlement, duration_s, timed_out)
            if delivery.receipt in self.expired:
                attempt = attempt._replace(outcome=Outcome.EXPIRED)
            self.observer.ended(attempt)
        return settlement

    def _succeed(self, delivery: Delivery, job: Job[Any], output: Any) -> Settlement:
        """Return how to settle a job whose handler returned ``output``."""
        result: bytes | None = None
        if output is not None:
            if type(output) is Then:
                return self._succeed_and_chain(delivery, job, output)
            try:
                result = self._encode(output)
            except BaseException as error:  # a validator of the user's model may raise anything
                return self._return_invalid(delivery, job, error)
        return new_ack(Ack, (delivery.receipt, result, self.schema.result_ttl_s, ()))

    def _succeed_and_chain(self, delivery: Delivery, job: Job[Any], then: Then[Any]) -> Settlement:
        """Return how to settle a job whose handler named the next ones."""
        try:
            result = None if then.result is None else self._encode(then.result)
        except BaseException as error:
            return self._return_invalid(delivery, job, error)
        try:
            following = self.next_jobs(job, then)
        except BackendUnavailable as error:  # for what is yet to be declared
            return self._fail(delivery, job, error)
        except JobsError as error:
            return self._return_invalid(delivery, job, error)
        except BaseException as error:  # of the user's model, or our own fault: another run may go well
            return self._fail(delivery, job, error)
        return Ack(delivery.receipt, result, self.schema.result_ttl_s, following)

    def _return_invalid(self, delivery: Delivery, job: Job[Any], error: BaseException) -> Settlement:
        """Return how to settle a job whose handler returned what can't be used."""
        if raised_by_signal(error):
            raise error
        try_to_log(self.logger, WARNING, "job %s: its result is invalid", job.id, traceback=True)
        # Another run would return the same.
        return self._dead(delivery, DeadReason.RESULT, describe(error), error)

    def fail_refused(self, delivery: Delivery, end: Ack | Dead) -> Settlement:
        """Return how to settle a job whose next ones can't be published: as one that failed (THEN-3).

        One that was to be dead runs again, whatever attempts it has left: else its next jobs would be lost.
        """
        queues = ", ".join(sorted({repr(step.queue) for step in end.then}))
        error = f"its next jobs couldn't be published: a queue isn't declared, or has no room: {queues}"
        try_to_log(self.logger, WARNING, "job %s: %s", delivery.id, error)
        if isinstance(end, Dead):
            return not_dead_yet(end, error)
        job = self._decode(delivery)
        return self._retry(delivery, job, error) if isinstance(job, Job) else job

    def _fail(self, delivery: Delivery, job: Job[Any], error: BaseException) -> Settlement:
        """Return how to settle a job whose handler raised ``error``, which is being handled."""
        if isinstance(error, HandlerSignal):
            try:
                return self._obey(delivery, job, error)
            except AttributeError as broken:  # its class doesn't call ours
                error = broken
        if asks_to_stop(error):
            raise error
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        how = "was ended by its time limit" if delivery.receipt in self.limits.timed_out else "failed"
        try_to_log(self.logger, WARNING, "job %s: attempt %d %s", job.id, job.attempt, how, traceback=True)
        return self._retry(delivery, job, self.limits.shown(delivery.receipt, error), error)

    def _obey(self, delivery: Delivery, job: Job[Any], signal: HandlerSignal) -> Settlement:
        if isinstance(signal, RetryLater):
            return self._retry(delivery, job, signal.reason, signal, delay_s=signal.delay_s)
        if isinstance(signal, Snooze):
            return self._snooze(delivery, signal)
        return self._dead(delivery, DeadReason.REJECTED, signal.reason, signal)

    def _encode(self, output: Any) -> bytes | None:
        if self.schema.output is JobOutput and _has_value(output):
            self._drop(output)
            return None
        try:
            valid = validate_result(self.schema, output)
        except InvalidPayload as error:
            raise InvalidPayload(f"{error}{_advice(output)}") from error
        if not self.keep_results:
            return None
        result = encode_model("result", valid)
        if self.schema.has_untyped_output:
            check_bytes_kept("result", valid, decode_model("result", self.schema.output, result))
        if len(result) > self.max_body_bytes:
            raise BodyTooLarge(f"result of {len(result):,} bytes: the limit is {self.max_body_bytes:,} bytes")
        return result

    def _drop(self, output: Any) -> None:
        """Keep nothing of what a handler returned, as the schema has no output; say so once for each type."""
        kind = type(output).__name__
        if advice := _advice(output):
            raise InvalidPayload(f"result: expected None, got {kind}{advice}")
        if kind not in self.dropped:
            self.dropped.add(kind)
            try_to_log(
                self.logger,
                WARNING,
                "the handler returned %s, and schema %r has no output: it isn't kept; give the schema one, "
                "as in JobSchema(…, output=…), or return None",
                kind,
                self.schema.name,
            )

    def _retry(
        self,
        delivery: Delivery,
        job: Job[Any],
        error: str,
        raised: BaseException | None = None,
        *,
        delay_s: float | None = None,
    ) -> Settlement:
        """Return how to settle a job that failed.

        Args:
            delivery: Its delivery.
            job: The job.
            error: The error, as it is shown.
            raised: The error, if there is one.
            delay_s: After how many seconds it runs again; None leaves it to the policy whether and when.
        """
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        timed_out = delivery.receipt in self.limits.timed_out
        if delay_s is None and raised is not None and not timed_out and not self._retries(raised):
            return self._dead(delivery, DeadReason.NOT_RETRIED, error, raised)
        if job.attempt >= (job.max_attempts or self.policy.max_attempts):
            reason = DeadReason.TIMED_OUT if timed_out else DeadReason.ATTEMPTS
            return self._dead(delivery, reason, error, raised)
        if delay_s is None:
            delay_s = self._delay_s(job, raised)
        return Retry(delivery.receipt, delay_s, failed_attempt(error))

    def _retries(self, error: BaseException) -> bool:
        """Say whether the policy retries an error. One that can't be compared is retried."""
        try:
            return self.policy.retries(error)
        except BaseException as broken:  # comparing runs code of the error's class
            if asks_to_stop(broken):
                raise
            return True

    def _delay_s(self, job: Job[Any], error: BaseException | None) -> float:
        """Return the policy's delay; the doubling one if a function of the user's fails to say any."""
        try:
            return self.policy.delay_s(job.attempt, error=error)
        except BaseException as broken:
            if asks_to_stop(broken):
                raise
            message = "job %s: delays_s of its retry policy failed, and the backoff takes its place"
            try_to_log(self.logger, ERROR, message, job.id, traceback=True)
            return self.policy.backoff_s(job.attempt)

    def _snooze(self, delivery: Delivery, signal: Snooze) -> Settlement:
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        delay_s, reason = signal.delay_s, signal.reason
        try_to_log(self.logger, INFO, "job %s: snoozes for %g s: %s", delivery.id, delay_s, reason)
        return Release(delivery.receipt, signal.delay_s)

    def _dead(
        self, delivery: Delivery, reason: DeadReason, error: str, raised: BaseException | None = None
    ) -> Settlement:
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        try_to_log(self.logger, ERROR, "job %s is dead: %s: %s", delivery.id, reason, truncate_error(error))
        return self.follow_death(delivery, Dead(delivery.receipt, reason, failed_attempt(error, raised)))

    def _cancel(self, delivery: Delivery) -> Settlement:
        """Return how to settle a job that didn't return before it was to be cancelled (CAN-3)."""
        try_to_log(self.logger, INFO, "job %s: cancelled", delivery.id)
        return Cancel(delivery.receipt, self.schema.result_ttl_s)


def _has_value(output: object) -> bool:
    return type(output) is not JobOutput and not (type(output) is dict and not output)


def _advice(output: object) -> str:
    """Say what the author of a handler probably forgot, if that shows in what it returned."""
    kind = output if isinstance(output, type) else type(output)
    if issubclass(kind, BaseException):
        return f"; raise {kind.__name__} instead of returning it"
    if (instead := _instead_of(kind)) is not None:
        return f"; {kind.__name__} is for run_batch: {instead} here"
    if output is Then:
        return "; return an instance, as in Then(schema, payload)"
    if isinstance(output, list | tuple) and any(isinstance(each, Then) for each in output):
        return "; for several next jobs return Then.all(Then(…), Then(…))"
    if isgenerator(output) or isasyncgen(output):
        return "; none of it has run: loop over it in run, and return what it is for"
    if isawaitable(output):
        if iscoroutine(output):
            output.close()  # or Python would warn that it was never awaited
        return "; make run an async def, and await it there"
    return ""


def _instead_of(kind: type) -> str | None:
    """Say what a handler of single jobs does in place of an outcome that is for batches."""
    from ...domain import batch_outcomes  # here, as most programs have no batches

    return {
        batch_outcomes.Done: "return its result by itself",
        batch_outcomes.Retry: "raise RetryLater",
        batch_outcomes.Dead: "raise Reject",
    }.get(kind)


def _attempt_of(
    queue: str, delivery: Delivery, settlement: Settlement, duration_s: float, timed_out: bool
) -> Attempt:
    if isinstance(settlement, Retry | Dead):
        outcome = Outcome.RETRIED if isinstance(settlement, Retry) else Outcome.DEAD
        error = decode_failure(settlement.error).error
        return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s, error, timed_out)
    outcome = _OUTCOMES[type(settlement)]
    return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s)
