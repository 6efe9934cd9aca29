"""The execution of one delivery, as one straight pipe: decode, validate, run, validate the output, settle."""

from collections.abc import Callable
from dataclasses import dataclass
from logging import ERROR, WARNING, Logger
from time import perf_counter
from typing import Any

from ...domain import Job, JobSchema, Reject, RetryLater, RetryPolicy
from ...domain.dead_reasons import DeadReason
from ...domain.envelope import decode, encode_model
from ...domain.errors import BodyTooLarge
from ...domain.failure import decode_failure
from ...domain.job_context import NO_CONSUMER, ConsumerContext, running
from ...domain.limits import truncate_error
from ...domain.schema import validate_model
from ...ports import Ack, Attempt, Dead, Delivery, Observer, Outcome, Retry, Settlement
from ..failures import failed_attempt
from ..handler_errors import describe, try_to_log
from ..signals.graceful_stop import asks_to_stop

Handler = Callable[[Job[Any]], Any]
_new = tuple.__new__


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
    """

    schema: JobSchema[Any, Any]
    handler: Handler
    policy: RetryPolicy
    keep_results: bool
    max_body_bytes: int
    logger: Logger
    observer: Observer | None = None
    consumer: ConsumerContext = NO_CONSUMER

    def execute(self, delivery: Delivery) -> Settlement:
        """Run one delivery, and return its settlement.

        Whatever the handler raises is a failure of its job: KeyboardInterrupt, GeneratorExit, SystemExit and
        CancelledError too, or one job would end one worker after the other. Only what a signal's handler
        raised passes through, since it asks the process to stop.
        """
        observer = self.observer
        began_s = 0.0 if observer is None else perf_counter()
        if delivery.crashes >= self.policy.max_deliveries:
            error = f"{delivery.crashes} deliveries ended without a settlement: does the job kill its worker?"
            return self._tell(delivery, self._dead(delivery, DeadReason.CRASHES, error), began_s)
        try:
            job = decode(delivery.body, self.schema, attempt=delivery.attempt, max_bytes=self.max_body_bytes)
        except BaseException as error:  # a validator of the user's model may raise anything
            if asks_to_stop(error):
                raise
            dead = self._dead(delivery, DeadReason.MALFORMED, describe(error), error)
            return self._tell(delivery, dead, began_s)
        token = running.set((job, delivery.receipt, self.consumer))
        try:
            if observer is None:
                return self._attempt(delivery, job)
            observer.started(self.schema.name, job)
            return self._tell(delivery, self._attempt(delivery, job), began_s)
        finally:
            running.reset(token)

    def _tell(self, delivery: Delivery, settlement: Settlement, began_s: float) -> Settlement:
        """Tell the observer how an attempt ended, and return its settlement."""
        if self.observer is not None:
            duration_s = perf_counter() - began_s
            self.observer.ended(_attempt_of(self.schema.name, delivery, settlement, duration_s))
        return settlement

    def _attempt(self, delivery: Delivery, job: Job[Any]) -> Settlement:
        try:
            try:
                output = self.handler(job)
                result = None if output is None else self._encode(output)
            except RetryLater as signal:
                return self._retry(delivery, job, signal.delay_s, signal.reason, signal)
            except Reject as signal:
                return self._dead(delivery, DeadReason.REJECTED, signal.reason, signal)
        except BaseException as error:
            if asks_to_stop(error):
                raise
            try_to_log(self.logger, WARNING, "job %s: attempt %d failed", job.id, job.attempt, traceback=True)
            return self._retry(delivery, job, self.policy.delay_s(job.attempt), describe(error), error)
        return _new(Ack, (delivery.receipt, result, self.schema.result_ttl_s))  # half of what Ack(...) costs

    def _encode(self, output: Any) -> bytes | None:
        valid = validate_model("result", self.schema.output, output)
        if not self.keep_results:
            return None
        result = encode_model("result", valid)
        if len(result) > self.max_body_bytes:
            raise BodyTooLarge(f"result of {len(result):,} bytes: the limit is {self.max_body_bytes:,} bytes")
        return result

    def _retry(
        self, delivery: Delivery, job: Job[Any], delay_s: float, error: str, raised: BaseException
    ) -> Settlement:
        if job.attempt >= (job.max_attempts or self.policy.max_attempts):
            return self._dead(delivery, DeadReason.ATTEMPTS, error, raised)
        return Retry(delivery.receipt, delay_s, failed_attempt(error))

    def _dead(
        self, delivery: Delivery, reason: DeadReason, error: str, raised: BaseException | None = None
    ) -> Settlement:
        try_to_log(self.logger, ERROR, "job %s is dead: %s: %s", delivery.id, reason, truncate_error(error))
        return Dead(delivery.receipt, reason, failed_attempt(error, raised))


def _attempt_of(queue: str, delivery: Delivery, settlement: Settlement, duration_s: float) -> Attempt:
    if isinstance(settlement, Retry | Dead):
        outcome = Outcome.RETRIED if isinstance(settlement, Retry) else Outcome.DEAD
        error = decode_failure(settlement.error).error
        return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s, error)
    return Attempt(queue, delivery.id, delivery.attempt, Outcome.DONE, duration_s)
