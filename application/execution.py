"""The execution of one delivery, as one straight pipe: decode, validate, run, validate the output, settle."""

from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from time import perf_counter
from typing import Any

from ..domain import Job, JobSchema, Reject, RetryLater, RetryPolicy
from ..domain.envelope import decode, encode_model
from ..domain.errors import BodyTooLarge
from ..domain.limits import truncate_error
from ..domain.reasons import DeadReason
from ..domain.schema import validate_model
from ..ports import Ack, Attempt, Dead, Delivery, Observer, Outcome, Retry, Settlement

_MEANT_FOR_THE_WORKER = (KeyboardInterrupt, GeneratorExit)

Handler = Callable[[Job[Any]], Any]


@dataclass(frozen=True, slots=True)
class Executor:
    """Turns deliveries into settlements; never raises for what a job or its handler does.

    Args:
        schema: What the jobs must be.
        handler: What runs them.
        policy: When a failed job runs again, and when it is given up.
        keep_results: Whether the backend keeps what the handler returns.
        max_body_bytes: The largest body that is looked at.
        logger: Where failures are told.
        observer: Who hears of each attempt, if anyone.
    """

    schema: JobSchema[Any, Any]
    handler: Handler
    policy: RetryPolicy
    keep_results: bool
    max_body_bytes: int
    logger: Logger
    observer: Observer | None = None

    def execute(self, delivery: Delivery) -> Settlement:
        """Run one delivery, and say how it is to be settled.

        Only KeyboardInterrupt and GeneratorExit pass through: whatever else a handler raises, SystemExit and
        CancelledError included, is its own failure, and must not end one worker after the other.
        """
        if self.observer is None:
            return self._execute(delivery)
        began_s = perf_counter()
        settlement = self._execute(delivery)
        self.observer.ended(_attempt(self.schema.name, delivery, settlement, perf_counter() - began_s))
        return settlement

    def _execute(self, delivery: Delivery) -> Settlement:
        if delivery.crashes >= self.policy.max_deliveries:
            error = f"{delivery.crashes} deliveries ended without a settlement: does the job kill its worker?"
            return self._dead(delivery, DeadReason.CRASHES, error)
        try:
            job = decode(delivery.body, self.schema, attempt=delivery.attempt, max_bytes=self.max_body_bytes)
        except _MEANT_FOR_THE_WORKER:
            raise
        except BaseException as error:  # a validator of the user's model may raise anything
            return self._dead(delivery, DeadReason.MALFORMED, _described(error))
        if self.observer is not None:
            self.observer.started(self.schema.name, job)
        try:
            return self._run(delivery, job)
        except _MEANT_FOR_THE_WORKER:
            raise
        except BaseException as error:
            self.logger.warning("job %s: attempt %d failed", job.id, job.attempt, exc_info=True)
            return self._retry(delivery, job, self.policy.delay_s(job.attempt), _described(error))

    def _run(self, delivery: Delivery, job: Job[Any]) -> Settlement:
        try:
            result = self._encode(self.handler(job))
        except RetryLater as signal:
            return self._retry(delivery, job, signal.delay_s, signal.reason)
        except Reject as signal:
            return self._dead(delivery, DeadReason.REJECTED, signal.reason)
        return Ack(delivery.receipt, result, self.schema.result_ttl_s)

    def _encode(self, output: Any) -> bytes | None:
        if output is None:
            return None
        valid = validate_model("result", self.schema.output, output)
        if not self.keep_results:
            return None
        result = encode_model("result", valid)
        if len(result) > self.max_body_bytes:
            raise BodyTooLarge(f"result of {len(result):,} bytes: the limit is {self.max_body_bytes:,} bytes")
        return result

    def _retry(self, delivery: Delivery, job: Job[Any], delay_s: float, error: str) -> Settlement:
        if job.attempt >= (job.max_attempts or self.policy.max_attempts):
            return self._dead(delivery, DeadReason.ATTEMPTS, error)
        return Retry(delivery.receipt, delay_s, truncate_error(error))

    def _dead(self, delivery: Delivery, reason: DeadReason, error: str) -> Settlement:
        self.logger.error("job %s is dead: %s: %s", delivery.id, reason, truncate_error(error))
        return Dead(delivery.receipt, reason, truncate_error(error))


def _attempt(queue: str, delivery: Delivery, settlement: Settlement, duration_s: float) -> Attempt:
    if isinstance(settlement, Retry | Dead):
        outcome = Outcome.RETRIED if isinstance(settlement, Retry) else Outcome.DEAD
        return Attempt(queue, delivery.id, delivery.attempt, outcome, duration_s, settlement.error)
    return Attempt(queue, delivery.id, delivery.attempt, Outcome.DONE, duration_s)


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # the handler's own exception class may be broken, too
        text = "its message can't be shown"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
