"""The port that an orchestrator needs of a broker."""

from abc import abstractmethod
from collections.abc import Sequence

from ..domain.bounds import MAX_LISTED
from ..domain.defaults import DEFAULT_LEASE_S, DEFAULT_RESULT_TTL_S
from ..domain.errors import AccessDenied, BackendUnavailable, JobsError, QueueNotFound, UnsupportedCapability
from ..domain.job_progress import Progress
from ..domain.queue import Queue
from .base_classes import Closeable
from .cancelling import CancelOutcome
from .capabilities import Capabilities
from .consumer import ConsumerBackend
from .coordination import CoordinationStore, Guard
from .ended_jobs import EndedJobs, UnknownEnds
from .findings import Finding, good, wrong
from .idle_consumers import IdleConsumers
from .migrations import Migrates
from .publishing import Message, PublishOutcome
from .queue_contents import DeadLetter, QueueCounts
from .results import JobResult, JobStatus

_NEVER_DECLARED = "mindtrace-jobs.never-declared"


class OrchestratorBackend(Migrates, Closeable):
    """A broker, as an orchestrator sees it. Any thread may call any method.

    Every method may raise ``BackendUnavailable`` when the broker can't be reached, and ``Closed`` after
    :meth:`close`. A method that names a queue raises ``QueueNotFound`` if the queue isn't declared, also
    where it is given no jobs, and creates nothing (PUB-3). After a broken connection the next call reconnects
    (CON-1).

    After a fork, a child process may use the client: it opens connections of its own. The consumers that the
    parent opened stay the parent's. In the child their ``receive``, ``settle`` and ``extend`` raise
    ``Closed``, and their ``close`` does nothing. Queues in memory are copied by a fork, consumers included.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do, known without asking the broker."""

    @abstractmethod
    def declare(self, queue: Queue) -> None:
        """Create ``queue`` if it doesn't exist. Declaring it again changes nothing (ADM-1).

        Raises:
            QueueConflict: the queue exists with another kind.
            UnsupportedCapability: the backend has no queues of this kind.
        """

    @abstractmethod
    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Put ``messages`` into ``queue``, and return one outcome for each, in the same order (PUB-1, PUB-4).

        ``ACCEPTED`` means that the broker confirmed the message and consumers can see it. Once anything was
        sent, a broken connection raises no error: messages without an answer are ``UNKNOWN``.

        An id is live from its publish until its job is done, purged or discarded. A ready, delayed, in-flight
        or dead job is live. With ``Capabilities.dedupe``, publishing a live id is answered ``DUPLICATE``
        (PUB-5). Publishing the id of a job that has ended makes a new job, and forgets the result of the old
        one.

        A job with a delay joins the queue when it is due, behind the jobs that were published before then.
        """

    @abstractmethod
    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> ConsumerBackend:
        """Open what a consumer of ``queue`` needs.

        Args:
            queue: A declared queue.
            lease_s: Seconds for which a delivery is leased, before it must be settled or extended. It has no
                effect where the connection is the lease.
            prefetch: The most deliveries that the broker may push ahead of ``receive``, for brokers that
                push. None leaves it to the adapter.
        """

    @property
    def idle_consumers(self) -> IdleConsumers:
        """Open consumers that no call is using; closing the backend closes them."""
        kept: IdleConsumers = vars(self).setdefault("_idle_consumers", IdleConsumers())
        return kept

    @abstractmethod
    def counts(self, queue: str) -> QueueCounts:
        """Count the jobs of ``queue`` by state (CNT-1)."""

    def waits_for_clock(self, queue: str) -> str | None:
        """Name what ``queue`` waits for, if only a step of a clock that a test moves can make a job ready.

        Where time passes by itself, this returns None.
        """
        return None

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Drop every ready or delayed job, and return how many there were (ADM-2)."""

    @abstractmethod
    def delete(self, queue: str) -> None:
        """Remove ``queue`` with its jobs, dead letters and results (ADM-3).

        Receipts of its deliveries become ``LOST``, and stay so. Consumers stay open: their ``receive`` raises
        ``QueueNotFound`` until a queue of that name is declared again, and then serves the new queue.
        """

    @abstractmethod
    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        """List dead letters, oldest first, and change nothing (DLQ-1). Without a limit, list all."""

    @abstractmethod
    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again, each exactly once, and return how many there were (DLQ-2).

        A redriven job keeps its id and joins the queue as if it were published now. ``attempt`` is 1 again,
        ``crashes`` is 0, and its history and its result are forgotten. ``number`` goes on or starts again
        at 1; the contract leaves that to the adapter.

        Args:
            queue: The queue of the jobs.
            ids: The jobs to redrive; None means all. Ids that aren't dead are skipped.

        Raises:
            BackendUnavailable: the answer didn't come. Some of them may have been redriven: another call
                redrives those that are still dead, and counts only these. Without ``dedupe`` a job may be
                both ready and dead; the message says so.
        """

    @abstractmethod
    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        """Delete dead jobs, and return how many there were (DLQ-3); ``ids`` as in :meth:`redrive`."""

    @abstractmethod
    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        """Return how a job ended, waiting up to ``timeout_s`` seconds for its end (RES-1).

        Returns:
            None if the job hasn't ended by then, is unknown, or its result has expired.

        Raises:
            UnsupportedCapability: results aren't supported.
        """

    # -- optional ---------------------------------------------------------------------------------

    def publish_in(self, connection: object, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish in the transaction of a caller's connection, and never end that transaction (PUB-7).

        ``ACCEPTED`` means that the job will be in the queue once the transaction commits. A refusal of ours
        leaves the transaction as it was. What the caller's driver raises is passed on as it is.

        Args:
            connection: The caller's connection to where the queues are, of a kind that the adapter knows.
            queue: As in :meth:`publish`.
            messages: As in :meth:`publish`.

        Raises:
            UnsupportedCapability: the backend joins no transactions.
            InvalidInput: ``connection`` is of another kind, leads elsewhere or is in no transaction.
        """
        self.capabilities.require_transactional_publish()
        raise UnsupportedCapability(f"{type(self).__name__} joins transactions by publish_in_async only")

    async def publish_in_async(
        self, connection: object, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        """Do as :meth:`publish_in`, on a connection that belongs to the running event loop."""
        self.capabilities.require_transactional_publish()
        raise UnsupportedCapability(f"{type(self).__name__} joins transactions by publish_in only")

    @property
    def coordination(self) -> CoordinationStore:
        """The coordination store of this backend's namespace, which is closed with the backend (CRD-1).

        Raises:
            UnsupportedCapability: there is none.
        """
        self.capabilities.require_coordination("this needs")
        raise NotImplementedError(f"{type(self).__name__} declares coordination: define this property")

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        """Publish one job and write a record of the coordination store in one step (CRD-4).

        After a broken connection it may be asked again with the same arguments: None then may mean that the
        first call succeeded, so compare the record's value.

        Returns:
            The outcome: ``ACCEPTED``, or ``DUPLICATE`` if the job's id is live, and in both cases the record
            is written; ``UNKNOWN`` if the connection broke before the answer, so that both happened, or
            neither. None if the record hasn't the expected version: then nothing changed.

        Raises:
            UnsupportedCapability: the backend can't do this in one step.
        """
        raise UnsupportedCapability(
            f"{type(self).__name__} can't publish a job and write a record in one step"
        )

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1, CAN-2).

        A job that waits (ready, delayed, or for a retry) is gone at once. One in flight ends as cancelled by
        whatever its consumer settles it with, or by the end of its lease; only an ``Ack`` counts as before
        (CAN-3). Cancelling again changes nothing and is answered as before, so that a call whose answer was
        lost can be repeated. Publishing the id again makes a new job, and forgets that the old one was
        cancelled.

        Args:
            queue: The queue of the jobs.
            ids: The jobs.
            result_ttl_s: Seconds for which it is remembered that they were cancelled.

        Raises:
            UnsupportedCapability: the backend can't cancel jobs.
        """
        self.capabilities.require_cancel()
        raise NotImplementedError(f"{type(self).__name__} declares cancel: define this method")

    def first_ready(self, queue: str) -> bytes | None:
        """Return the body of the ready job that is first in its queue, and change nothing (CNT-2).

        A job whose delay or lease ended may be passed over until a consumer has asked for jobs, unless no
        other job is ready.

        Returns:
            None if no job is ready.

        Raises:
            UnsupportedCapability: the backend shows no job without delivering it.
        """
        self.capabilities.require_first_ready()
        raise NotImplementedError(f"{type(self).__name__} declares first_ready: define this method")

    @property
    def url(self) -> str:
        """The URL of this backend for another process, without passwords; see :meth:`make_url`."""
        return self.make_url()

    def make_url(self, *, with_passwords: bool = False) -> str:
        """Return a URL from which ``Orchestrator(url)`` reaches the same queues, in this process or another.

        How long a call waits or retries isn't part of it.

        Args:
            with_passwords: Whether the URL contains passwords. Without them, whoever gets the URL has to put
                them in, if the broker demands any.

        Raises:
            UnsupportedCapability: no URL leads there.
        """
        raise UnsupportedCapability(
            f"{type(self).__name__} has no URL: make the client in the other process, with the same settings"
        )

    def queues(self) -> list[Queue]:
        """List the declared queues, by name.

        Raises:
            UnsupportedCapability: this backend can't list its queues.
        """
        raise UnsupportedCapability("this backend can't list its queues: name them")

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        """Return how those of these jobs ended that have, by id, without waiting (RES-1).

        Raises:
            UnsupportedCapability: results aren't supported.
        """
        if not ids:
            self.counts(queue)  # which says if there is no such queue
        found = ((id_, self.result(queue, id_)) for id_ in ids)
        return {id_: result for id_, result in found if result is not None}

    def ended_jobs(self, queue: str) -> EndedJobs:
        """Open what tells which jobs of ``queue`` end from now on, for those who wait for many (RES-1).

        Raises:
            UnsupportedCapability: results aren't supported.
        """
        self.capabilities.require_results()
        self.counts(queue)
        return UnknownEnds()

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Return the progress of running jobs, by id. Jobs whose present delivery reported none are missing.

        Args:
            queue: The queue of the jobs.
            ids: The jobs to look up; None means all.
        """
        self.counts(queue)
        return {}

    def status(self, queue: str, job_id: str) -> JobStatus:
        """Say where a job is (RES-1). ``DONE`` and ``FAILED`` agree with :meth:`result`.

        Raises:
            UnsupportedCapability: this backend can't tell a job that hasn't ended from one that it doesn't
                know.
        """
        raise UnsupportedCapability("this backend can't say where a job is: ask for its result")

    def diagnose(self) -> list[Finding]:
        """Check that the broker answers and is configured to keep its guarantees; change nothing.

        A problem is reported as a finding and never raised. An adapter calls this method first, and adds its
        own findings only if the first one, whether the broker can be reached, is good.
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
            return [wrong("broker", str(error), "correct the broker or the URL, as the message says")]
        return [good("reachable", "the broker answers")]

    @abstractmethod
    def close(self) -> None:
        """Close this backend and every consumer opened from it. Closing it again does nothing (CON-2)."""
