"""Every error that this project raises on purpose, in one tree, but for :class:`JobTimedOut`.

A message names the value, the rule that it breaks, and how to fix it. No message contains a credential
(SEC-3).
"""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is imported here would be a name of the public errors
    from datetime import datetime

__all__ = [
    "AccessDenied",
    "AdapterNotInstalled",
    "AlreadyConnected",
    "BackendError",
    "BackendUnavailable",
    "BodyTooLarge",
    "BrokerUnsuitable",
    "Closed",
    "HandlerMissing",
    "ImmutableJob",
    "InvalidInput",
    "InvalidJob",
    "InvalidName",
    "InvalidPayload",
    "InvalidSchema",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobReplaced",
    "JobTimedOut",
    "JobsError",
    "LimitNotFound",
    "MalformedBody",
    "MigrationNeeded",
    "NotConnected",
    "NotInHandler",
    "PublishUnknown",
    "QueueConflict",
    "QueueNotFound",
    "ResultExpired",
    "ResultNotReady",
    "ScheduleNotFound",
    "SchemaConflict",
    "SchemaMismatch",
    "SchemaNotRegistered",
    "StartFailed",
    "UnknownBackend",
    "UnsupportedCapability",
    "UsageError",
]
"""The public errors: ``mindtrace.jobs.errors`` takes their names from here."""


class JobsError(Exception):
    """The root of all errors that this project raises on purpose."""


# -- bad arguments --------------------------------------------------------------------------------


class InvalidInput(JobsError, ValueError):
    """A value breaks a rule; nothing was sent (PUB-6)."""


class InvalidName(InvalidInput):
    """The name of a queue or schema, or a job id, isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``."""


class InvalidJob(InvalidInput):
    """A field of a job is out of range: priority, delay, attempts, times or headers."""


class InvalidPayload(InvalidInput):
    """A payload or a handler's result doesn't fit the model of its schema."""


class InvalidSchema(InvalidInput):
    """A ``JobSchema`` can't be made of its arguments, or its models lose data in JSON."""


class BodyTooLarge(InvalidInput):
    """An encoded job is larger than the limit (1 MiB by default)."""


class SchemaMismatch(InvalidInput):
    """A job of one schema was published to the queue of another."""


class MalformedBody(InvalidInput):
    """A body that isn't a job: not JSON, over a limit, or of an unknown version (SEC-2)."""


# -- calls at the wrong time ----------------------------------------------------------------------


class UsageError(JobsError, RuntimeError):
    """The object isn't in a state in which it can serve this call."""


class HandlerMissing(UsageError, TypeError):
    """A consumer class has no usable ``run(self, job)``."""


class ImmutableJob(UsageError, dataclasses.FrozenInstanceError):
    """A field of a ``Job`` was set or deleted."""


class NotConnected(UsageError):
    """A consumer was used before ``connect``."""


class StartFailed(UsageError):
    """A consumer's ``on_start`` raised an error, which is the cause of this one."""


class NotInHandler(UsageError):
    """``job.orchestrator`` was asked for where no handler runs."""


class AlreadyConnected(UsageError):
    """A consumer was connected a second time."""


class Closed(UsageError):
    """A backend or consumer backend was used after ``close``."""


class SchemaNotRegistered(UsageError, LookupError):
    """A consumer has no schema, and none of its name was registered in this process (SEC-1)."""


class SchemaConflict(UsageError):
    """A queue already carries jobs of another schema."""


class UnknownBackend(UsageError, TypeError):
    """The argument is neither a backend nor a URL with the scheme of an installed adapter."""


class AdapterNotInstalled(ImportError, UsageError):
    """A library that the adapter needs isn't installed; the message names the extra to install."""


# -- the broker -----------------------------------------------------------------------------------


class BackendError(JobsError):
    """The broker or the connection to it failed."""


class BackendUnavailable(BackendError, ConnectionError):
    """The broker can't be reached, or the connection broke before it answered.

    A publish wasn't sent, unless the error is a :class:`PublishUnknown`. Another call that changes something
    may have taken effect: look, or call it again.
    """


class AccessDenied(BackendError):
    """The broker rejects the credentials, or they don't permit the call."""


class MigrationNeeded(AccessDenied):
    """The tables are older than this release needs, or missing, and the user may not change them.

    The message names the command, ``mindtrace-jobs migrate``.
    """


class BrokerUnsuitable(BackendError):
    """The broker is too old, or its configuration would lose jobs; the message says what to change."""


class PublishUnknown(BackendUnavailable):
    """The connection broke before the confirm: the job may or may not be in the queue (PUB-4).

    If the backend has the capability ``dedupe``, and the job is in the queue or dead, publishing it again
    under the same id changes nothing (PUB-5). Else that makes a second job: if the first is done by then, and
    on RabbitMQ.
    """


class QueueNotFound(BackendError, KeyError):
    """The queue was never declared, or was deleted (PUB-3)."""

    __str__ = BackendError.__str__  # where a KeyError would show its message in quotes


class ScheduleNotFound(BackendError, KeyError):
    """There is no schedule of this name."""

    __str__ = BackendError.__str__


class LimitNotFound(BackendError, KeyError):
    """No limit, or rate, of this name is declared."""

    __str__ = BackendError.__str__


class QueueConflict(BackendError):
    """The queue exists with another kind (ADM-1).

    Args:
        message: What is wrong.
        found: The kind that the queue has, if it is known.
    """

    def __init__(self, message: str, found: str | None = None) -> None:
        super().__init__(message)
        self.found = found


class UnsupportedCapability(BackendError, NotImplementedError):
    """The backend can't do this, as its capabilities say; nothing was done."""


# -- results --------------------------------------------------------------------------------------


class JobFailed(JobsError):
    """The job is dead and has no result; the message names the job and its last error (RES-1).

    Args:
        error: The error that ended its last attempt.
        traceback: That error's traceback as text, its most recent frames last; None if there is none.
        job_id: The job.
        job_type: The name of its schema.
    """

    def __init__(
        self,
        error: str | None = None,
        traceback: str | None = None,
        *,
        job_id: str | None = None,
        job_type: str | None = None,
    ) -> None:
        job = None if job_id is None else f"job {job_id} of type {job_type!r} failed"
        super().__init__(": ".join(part for part in (job, error) if part))
        self.error = error
        self.traceback = traceback
        self.job_id = job_id
        self.job_type = job_type


class JobReplaced(JobFailed):
    """The job didn't run: one that was published later took its place, as its schema asks for.

    Args:
        job_id: The job.
        replaced_by: The id of the job that took its place. That one may have been replaced, too.
    """

    def __init__(self, job_id: str, replaced_by: str) -> None:
        super().__init__(f"job {job_id}: didn't run: job {replaced_by}, published later, took its place")
        self.job_id: str = job_id
        self.replaced_by = replaced_by

    def __reduce__(self) -> tuple[type["JobReplaced"], tuple[str, str]]:
        """Make it again, as by pickle, from what it was made of."""
        return type(self), (self.job_id, self.replaced_by)


class JobExpired(JobFailed):
    """The job didn't run, or wasn't run again: it waited for longer than its publisher wanted.

    Args:
        job_id: The job.
        expired_at: When it expired, by the broker's clock.
    """

    def __init__(self, job_id: str, expired_at: "datetime") -> None:
        error = f"it expired at {expired_at:%Y-%m-%d %H:%M:%S} UTC, while it waited"
        super().__init__(f"job {job_id}: {error}")
        self.error: str = error
        self.job_id: str = job_id
        self.expired_at = expired_at

    def __reduce__(self) -> tuple[type["JobExpired"], tuple[str, "datetime"]]:
        """Make it again, as by pickle, from what it was made of."""
        return type(self), (self.job_id, self.expired_at)


class JobCancelled(JobsError):
    """The job was cancelled and has no result (CAN-1).

    A plain handler that sees that its job is to be cancelled may raise it, to end early.
    """


class JobTimedOut(BaseException):
    """Raised within a plain handler whose time limit is over, at whatever line it has come to.

    It is no ``JobsError`` and no ``Exception``. As with ``KeyboardInterrupt``, ``finally`` and ``with`` see
    it, and an ``except Exception`` around a part of the handler doesn't swallow it (ADR 120).
    """


class ResultNotReady(JobsError, TimeoutError):
    """There is no result: the job hasn't ended in time, or nothing is known of it (RES-1)."""


class JobNotFound(ResultNotReady):
    """The queue knows no job of this id.

    It was never published here, or it was purged or discarded. Where the id is yours, so that its age isn't
    known, its result may also have expired.
    """


class ResultExpired(JobNotFound):
    """The queue knows no job of this id, which was made longer ago than results are kept.

    So it ended and its result has expired, or it was purged or discarded.
    """
