"""The port that an orchestrator needs of a broker."""

from abc import abstractmethod
from collections.abc import Sequence

from ..domain.errors import AccessDenied, BackendUnavailable, JobsError, QueueNotFound, UnsupportedCapability
from ..domain.queue import Queue
from ..domain.reporting import Progress
from .base import Closing
from .capabilities import Capabilities
from .consumer import ConsumerBackend
from .findings import Finding, good, wrong
from .idle_consumers import IdleConsumers
from .values import DeadLetter, JobResult, Message, PublishOutcome, QueueCounts

_NEVER_DECLARED = "mindtrace-jobs.never-declared"


class OrchestratorBackend(Closing):
    """A broker, as an orchestrator sees it. Every method may be called from any thread.

    Each method may raise ``BackendUnavailable`` when the broker can't be reached, and ``Closed`` after
    :meth:`close`; each that names a queue raises ``QueueNotFound`` when it isn't declared, and nothing is
    then created (PUB-3). A broken connection is survived: the next call reconnects (CON-1).
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do, known without asking the broker."""

    @abstractmethod
    def declare(self, queue: Queue) -> None:
        """Create ``queue``, or find it as it is: declaring again changes nothing (ADM-1).

        Raises:
            QueueConflict: it exists with another kind.
            UnsupportedCapability: the backend has no queues of this kind.
        """

    @abstractmethod
    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Put ``messages`` into ``queue``, in order, and answer for each, in order (PUB-1, PUB-4).

        ``ACCEPTED`` is said only of what the broker confirmed and consumers can see. A broken connection
        raises nothing once anything was sent: it answers ``UNKNOWN`` for what it left open.
        """

    @abstractmethod
    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> ConsumerBackend:
        """Open what a consumer of ``queue`` needs.

        Args:
            queue: A declared queue.
            lease_s: How long, in seconds, a delivery is leased before it must be settled or extended;
                without meaning where the connection holds the lease.
            prefetch: The most deliveries that the broker may push ahead of ``receive``, for brokers that
                push; None leaves it to the adapter.
        """

    @property
    def idle_consumers(self) -> IdleConsumers:
        """Consumers of this backend that nobody uses at the moment; it closes them when it is closed."""
        kept: IdleConsumers = vars(self).setdefault("_idle_consumers", IdleConsumers())
        return kept

    @abstractmethod
    def counts(self, queue: str) -> QueueCounts:
        """Count the jobs of ``queue`` by state (CNT-1)."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Drop every job that waits, ready or delayed, and say how many (ADM-2)."""

    @abstractmethod
    def delete(self, queue: str) -> None:
        """Remove ``queue`` and every trace: jobs, dead letters, results. Receipts become LOST (ADM-3)."""

    @abstractmethod
    def dead_letters(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        """List dead letters, oldest first, without disturbing them (DLQ-1)."""

    @abstractmethod
    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again with fresh budgets, each exactly once; say how many (DLQ-2).

        Args:
            queue: Their queue; they join it as if published now, under their old ids.
            ids: Which; None is all. Ids that aren't dead are passed over.
        """

    @abstractmethod
    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        """Drop dead jobs for good, and say how many (DLQ-3); ``ids`` as in :meth:`redrive`."""

    @abstractmethod
    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        """Say how a job ended, waiting up to ``timeout_s`` seconds for it to end (RES-1).

        Returns:
            None where it hasn't ended by then, isn't known, or its result is kept no longer.

        Raises:
            UnsupportedCapability: results aren't supported.
        """

    # -- what a backend may do besides ------------------------------------------------------------

    def queues(self) -> list[Queue]:
        """List the declared queues, by name.

        Raises:
            UnsupportedCapability: the broker can't be asked for them.
        """
        raise UnsupportedCapability("this backend can't list its queues: name them")

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Say how far the jobs that run now have come, by id, as far as they told.

        Args:
            queue: Their queue.
            ids: Which; None is all.
        """
        return {}

    def diagnose(self) -> list[Finding]:
        """Look whether the broker is there, and set up to keep what it promises; change nothing.

        What is amiss is a finding, never an error. An adapter adds what it knows of its broker, if the first
        finding, whether it can be reached at all, is good.
        """
        try:
            self.counts(_NEVER_DECLARED)
        except QueueNotFound:
            pass
        except BackendUnavailable as error:
            return [wrong("reachable", str(error), "start the broker, or correct the host and port")]
        except AccessDenied as error:
            return [wrong("access", str(error), "correct the user and the password, or what the user may do")]
        except JobsError as error:
            return [wrong("broker", str(error), "change what the message names")]
        return [good("reachable", "the broker answers")]

    @abstractmethod
    def close(self) -> None:
        """Close this backend and every consumer opened from it; again is a no-op (CON-2)."""
