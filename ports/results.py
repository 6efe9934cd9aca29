"""How jobs end, and the port of a store for results, for brokers that can't keep results themselves."""

from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from .ended_jobs import EndedJobs, UnknownEnds
from .stores import Store


class JobStatus(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    """Ready, or delayed until it is due or retried."""
    RUNNING = "running"
    """In flight: with a consumer."""
    DONE = "done"
    """Its result, or that it had none, is still kept."""
    FAILED = "failed"
    """A dead letter."""
    CANCELLED = "cancelled"
    """Cancelled, and that is still remembered."""
    EXPIRED = "expired"
    """It waited for too long and wasn't run, and that is still remembered. A backend says ``DONE``, and the
    application finds the difference in the result."""
    UNKNOWN = "unknown"
    """Nothing is known of it: it was never published here, was purged or discarded, or ended and its result
    has expired."""


class ResultStatus(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobResult(NamedTuple):
    """How a job ended (RES-1)."""

    status: ResultStatus
    body: bytes | None = None
    """The encoded output; None if the handler returned None, or the job is dead or cancelled."""
    error: str | None = None
    """The last error of a job that is dead."""


class EndedJob(NamedTuple):
    """How a job ended, and for how many seconds to keep that."""

    id: str
    result: JobResult
    ttl_s: float


class ResultStore(Store):
    """Keeps how jobs ended, for a broker that can't. Any thread may call any method.

    A store and a broker can't be changed in one step. Adapters store a result after its job is settled, never
    before (RES-2). A worker that is killed between the two leaves a job that is done and has no result.
    Adapters pass queue names that are unique across namespaces (CON-2).
    """

    @abstractmethod
    def put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        """Keep how jobs of ``queue`` ended, and wake the callers that wait for them.

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    @abstractmethod
    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        """Return how a job ended, waiting up to ``timeout_s`` seconds (RES-1); None if that is unknown.

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    @abstractmethod
    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None:
        """Delete the results of these jobs; by default of all jobs of the queue (ADM-3).

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    # -- optional ---------------------------------------------------------------------------------

    def get_many(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        """Return how those of these jobs ended that have, by id, without waiting (RES-1).

        Raises:
            BackendUnavailable: the store can't be reached.
        """
        found = ((id_, self.get(queue, id_)) for id_ in ids)
        return {id_: result for id_, result in found if result is not None}

    def ended_jobs(self, queue: str) -> EndedJobs:
        """Open what tells whose results are put from now on (RES-1).

        Raises:
            BackendUnavailable: the store can't be reached.
        """
        return UnknownEnds()
