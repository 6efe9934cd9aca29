"""The execution of one delivery, as one straight pipe: decode, validate, run, validate the output, settle."""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from logging import ERROR, INFO, WARNING, Logger
from time import perf_counter
from typing import Any

from ...domain import Job, JobOutput, JobSchema, RetryLater, RetryPolicy
from ...domain.bounds import truncate_error
from ...domain.dead_reasons import DeadReason
from ...domain.envelope import check_bytes_kept, decode, decode_model, encode_model
from ...domain.errors import BackendUnavailable, BodyTooLarge, InvalidPayload, UsageError
from ...domain.failure import decode_failure
from ...domain.handler_signals import HandlerSignal
from ...domain.job_context import NO_CONSUMER, ConsumerContext, running
from ...domain.schema import validate_result
from ...domain.then import Then
from ...domain.wording import quantity
from ...ports import Ack, Attempt, Cancel, Dead, Delivery, Next, Observer, Outcome, Retry, Settlement
from ..failures import failed_attempt
from ..handler_errors import describe, try_to_log
from ..signals.graceful_stop import asks_to_stop, raised_by_signal

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
        cancelled: The receipts of running jobs that are to be cancelled; the loop that runs this keeps it.
        stop: Has the handlers of such jobs end, given by receipt, if they can be.
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
    cancelled: set[str] = field(default_factory=set)
    stop: Callable[[set[str]], None] = nothing_to_stop
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
        try:
            if self.observer is not None:
                self.observer.started(self.schema.name, job)
            try:
                output = self.handler(job)
            except BaseException as error:
                settlement = self._fail(delivery, job, error)
            else:
                settlement = self._succeed(delivery, job, output)
            return settlement if self.observer is None else self._tell(delivery, settlement, began_s)
        finally:
            running.reset(token)

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
        try:
            output = await self.handler(job)
        except BaseException as error:
            if is_abandoned(error):
                raise
            settlement = self._fail(delivery, job, error)
        else:
            settlement = self._succeed(delivery, job, output)
        return self._tell(delivery, settlement, began_s)

    def _begin(self, delivery: Delivery) -> Job[Any] | Settlement:
        """Return the job to run, or how to settle the delivery if it can't be run."""
        if delivery.crashes >= self.policy.max_crashes:
            lost = quantity(delivery.crashes, "delivery", "deliveries")
            error = f"{lost} ended without a settlement: does the job kill its worker?"
            return self._dead(delivery, DeadReason.CRASHES, error)
        try:
            return decode(delivery.body, self.schema, attempt=delivery.attempt, max_bytes=self.max_body_bytes)
        except BaseException as error:  # a validator of the user's model may raise anything
            if raised_by_signal(error):
                raise
            return self._dead(delivery, DeadReason.MALFORMED, describe(error), error)

    def _tell(self, delivery: Delivery, settlement: Settlement, began_s: float) -> Settlement:
        """Tell the observer how an attempt ended, and return its settlement."""
        if self.observer is not None:
            duration_s = perf_counter() - began_s
            self.observer.ended(_attempt_of(self.schema.name, delivery, settlement, duration_s))
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
            following = self.next_jobs(job, then)
        except BackendUnavailable as error:  # for what is yet to be declared
            return self._fail(delivery, job, error)
        except BaseException as error:
            return self._return_invalid(delivery, job, error)
        return Ack(delivery.receipt, result, self.schema.result_ttl_s, following)

    def _return_invalid(self, delivery: Delivery, job: Job[Any], error: BaseException) -> Settlement:
        """Return how to settle a job whose handler returned what can't be used."""
        if raised_by_signal(error):
            raise error
        try_to_log(self.logger, WARNING, "job %s: its result is invalid", job.id, traceback=True)
        # Another run would return the same.
        return self._dead(delivery, DeadReason.RESULT, describe(error), error)

    def fail_refused(self, delivery: Delivery, ack: Ack) -> Settlement:
        """Return how to settle a job whose next ones can't be published: as one that failed (THEN-3)."""
        job = self._begin(delivery)
        if not isinstance(job, Job):
            return job
        queues = ", ".join(sorted({repr(step.queue) for step in ack.then}))
        error = f"its next jobs couldn't be published: a queue isn't declared, or has no room: {queues}"
        try_to_log(self.logger, WARNING, "job %s: %s", job.id, error)
        return self._retry(delivery, job, self.policy.delay_s(job.attempt), error)

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
        try_to_log(self.logger, WARNING, "job %s: attempt %d failed", job.id, job.attempt, traceback=True)
        return self._retry(delivery, job, self.policy.delay_s(job.attempt), describe(error), error)

    def _obey(self, delivery: Delivery, job: Job[Any], signal: HandlerSignal) -> Settlement:
        if isinstance(signal, RetryLater):
            return self._retry(delivery, job, signal.delay_s, signal.reason, signal)
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
        delay_s: float,
        error: str,
        raised: BaseException | None = None,
    ) -> Settlement:
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        if job.attempt >= (job.max_attempts or self.policy.max_attempts):
            return self._dead(delivery, DeadReason.ATTEMPTS, error, raised)
        return Retry(delivery.receipt, delay_s, failed_attempt(error))

    def _dead(
        self, delivery: Delivery, reason: DeadReason, error: str, raised: BaseException | None = None
    ) -> Settlement:
        if delivery.receipt in self.cancelled:
            return self._cancel(delivery)
        try_to_log(self.logger, ERROR, "job %s is dead: %s: %s", delivery.id, reason, truncate_error(error))
        return Dead(delivery.receipt, reason, failed_attempt(error, raised))

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


def _attempt_of(queue: str, delivery: Delivery, settlement: Settlement, duration_s: float) -> Attempt:
    if isinstance(settlement, Retry | Dead):
        outcome = Outcome.RETRIED if isinstance(settlement, Retry) else Outcome.DEAD
        error = decode_failure(settlement.error).error
        return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s, error)
    outcome = Outcome.CANCELLED if isinstance(settlement, Cancel) else Outcome.DONE
    return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s)
