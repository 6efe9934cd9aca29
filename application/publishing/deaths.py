"""From the death of a job to the next jobs that are published with it."""

from dataclasses import dataclass
from logging import ERROR, Logger
from typing import Any

from ...domain import Job
from ...domain.dead_job import DeadJob
from ...domain.envelope import decode
from ...domain.errors import BackendUnavailable, InvalidInput
from ...domain.failure import decode_failure
from ...domain.printable import printable
from ...domain.then import Then
from ...ports import Dead, Delivery, Retry
from ..failures.failed_attempts import not_dead_yet
from ..failures.handler_errors import try_to_log
from ..process.graceful_stop import raised_by_signal
from ..registration.registry import Registration
from .next_jobs import NextJobQueues, next_jobs_of_death


@dataclass(frozen=True, slots=True)
class Deaths:
    """Adds to deaths what their schema says: for how long they are kept (DLQ-5), and the next jobs (THEN-4).

    Args:
        orchestrator: Has the queues of the next jobs.
        registration: The schema and the queue of the jobs that die.
        logger: Gets an error where ``on_dead`` fails, or what it names can't be published.
    """

    orchestrator: NextJobQueues
    registration: Registration
    logger: Logger

    def check(self) -> None:
        """Refuse a schema with ``on_dead`` if the backend can't publish with a death.

        Raises:
            UnsupportedCapability: its settlements publish nothing.
        """
        if self.registration.schema.on_dead is not None:
            self.orchestrator.backend.capabilities.require_then()

    def followed(self, delivery: Delivery, dead: Dead) -> Dead | Retry:
        """Return how to settle a job that dies: as dead, for the schema's time, with its next jobs.

        If ``on_dead`` fails, the job is dead without a next one: another run would end in the same way.
        """
        schema = self.registration.schema
        on_dead = schema.on_dead
        if schema.dead_ttl_s is not None:
            dead = dead._replace(ttl_s=schema.dead_ttl_s)
        if on_dead is None:
            return dead
        job = self._read(delivery)
        try:
            then = on_dead if isinstance(on_dead, Then) else on_dead(self._described(delivery, dead, job))
            if then is None:
                return dead
            _check(then)
            queue, id_ = self.registration.queue.name, delivery.id
            return dead._replace(then=next_jobs_of_death(self.orchestrator, queue, id_, job, then))
        except BackendUnavailable as away:  # for what is yet to be declared
            return not_dead_yet(dead, f"its next job can't be published: {away}")
        except BaseException as error:  # the function is the user's, and may raise anything
            if raised_by_signal(error):
                raise
            message = "job %s is dead without a next job, as on_dead of its schema failed"
            try_to_log(self.logger, ERROR, message, printable(delivery.id), traceback=True)
            return dead

    def _read(self, delivery: Delivery) -> Job[Any] | None:
        """Return the job, unless it is malformed."""
        most = self.orchestrator.max_body_bytes
        try:
            return decode(delivery.body, self.registration.schema, attempt=delivery.attempt, max_bytes=most)
        except BaseException as error:  # a validator of the user's model may raise anything
            if raised_by_signal(error):
                raise
            return None

    def _described(self, delivery: Delivery, dead: Dead, job: Job[Any] | None) -> DeadJob[Any]:
        return DeadJob(
            id=printable(delivery.id),
            queue=self.registration.queue.name,
            reason=str(dead.reason),
            error=decode_failure(dead.error).error,
            attempt=delivery.attempt,
            payload=None if job is None else job.payload,
        )


def _check(then: object) -> None:
    if not isinstance(then, Then):
        raise InvalidInput(f"on_dead returned {then!r:.80}: return Then(schema, payload), or None")
    if then.result is not None:
        raise InvalidInput("on_dead returned a Then with a result: a dead job has none; leave result= out")
