"""Every error that this project raises on purpose, in one tree.

A message names the value, the rule that it breaks and, where there is one, the mend. No message ever
contains a credential (clause SEC-3).
"""


class JobsError(Exception):
    """The root: catch it to catch everything this project raises on purpose."""


# -- what the caller handed over ------------------------------------------------------------------


class InvalidInput(JobsError, ValueError):
    """A value breaks a rule of the domain; nothing was sent (PUB-6)."""


class InvalidName(InvalidInput):
    """A queue, schema or job id isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``."""


class InvalidJob(InvalidInput):
    """A job's own fields are out of range: priority, delay, budget, headers."""


class InvalidPayload(InvalidInput):
    """A payload or a handler's result doesn't fit the model that its schema names."""


class InvalidSchema(InvalidInput):
    """A ``JobSchema`` can't be built from what it was given, or its models can't survive JSON."""


class BodyTooLarge(InvalidInput):
    """An encoded job is larger than the limit (1 MiB by default)."""


class SchemaMismatch(InvalidInput):
    """A job of one schema was published to the queue of another."""


class MalformedBody(InvalidInput):
    """Bytes that aren't an envelope of ours: not JSON, out of bounds, or of an unknown version (SEC-2)."""


# -- what the caller asked for, and when ----------------------------------------------------------


class UsageError(JobsError, RuntimeError):
    """A call that can't be served in the present state of the object it was made on."""


class HandlerMissing(UsageError, TypeError):
    """A consumer class has no ``run(self, job)`` that can be called."""


class NotConnected(UsageError):
    """A consumer was asked to consume before ``connect``."""


class AlreadyConnected(UsageError):
    """A consumer was connected a second time."""


class Closed(UsageError):
    """A backend or consumer backend was used after ``close``."""


class SchemaNotRegistered(UsageError, LookupError):
    """No schema of this name was registered with the orchestrator (SEC-1: no unknown schema)."""


class SchemaConflict(UsageError):
    """A queue already carries jobs of another schema."""


class UnknownBackend(UsageError, TypeError):
    """Neither a backend nor a URL that a registered adapter understands."""


class AdapterNotInstalled(ImportError, UsageError):
    """The adapter exists, but what it needs isn't installed; the message names the extra."""


# -- what the broker says -------------------------------------------------------------------------


class BackendError(JobsError):
    """The broker, or the way to it, failed."""


class BackendUnavailable(BackendError, ConnectionError):
    """The broker can't be reached, or the connection broke before the call was sent."""


class AccessDenied(BackendError):
    """The broker refuses the credentials, or they don't permit what was asked."""


class BrokerUnsuitable(BackendError):
    """The broker is too old, or set up so that it would lose jobs; the message says what to change."""


class PublishUnknown(BackendUnavailable):
    """The connection broke before the confirm came: the job may or may not be in the queue (PUB-4).

    Publishing again under the same id is safe where the backend's capabilities say ``dedupe`` (PUB-5).
    """


class QueueNotFound(BackendError, LookupError):
    """The queue was never declared, or was deleted (PUB-3)."""


class QueueConflict(BackendError):
    """The queue exists with another kind (ADM-1)."""


class UnsupportedCapability(BackendError, NotImplementedError):
    """The backend declares that it can't do this; nothing was done."""


# -- what became of a job -------------------------------------------------------------------------


class JobFailed(JobsError):
    """The job whose result was asked for is dead; the message is its last error (RES-1)."""


class ResultNotReady(JobsError, TimeoutError):
    """No result arrived before the timeout, or it was kept no longer (RES-1)."""
