"""The port that a consumer needs of a broker."""

from abc import abstractmethod
from collections.abc import Sequence

from ..domain.job_progress import Progress
from .base_classes import Closeable
from .delivery import Delivery
from .settlement import Settled, Settlement, SettleOutcome


class ConsumerBackend(Closeable):
    """One consumer's connection to one queue.

    ``receive`` and ``settle`` are called by one thread at a time, not always the same one. While they run,
    another thread may call ``extend``, ``settle`` with ``take=0``, ``release_ahead``, ``report``,
    ``interrupt`` and ``close``.
    """

    @property
    @abstractmethod
    def lease_s(self) -> float | None:
        """Seconds for which a delivery is leased; None where the connection is the lease."""

    @property
    def prefetch(self) -> int | None:
        """How many jobs to take at once if the consumer sets nothing; None adapts it to their duration."""
        return None

    @property
    def held_back(self) -> int:
        """How many jobs are leased here that nobody runs: they wait for a limit, or are about to go back."""
        return 0

    @abstractmethod
    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        """Lease up to ``max_jobs`` jobs, waiting up to ``timeout_s`` seconds for the first (RCV-1).

        A publish, a job that becomes due and a lease that ends each wake it (RCV-2, DLY-2, LSE-1).

        Returns:
            The jobs; an empty list after the timeout or an :meth:`interrupt`.

        Raises:
            QueueNotFound: the queue was deleted. Once it is declared again, this serves the new queue.
            BackendUnavailable: the broker is away; the next call reconnects (CON-1). Timed leases aren't
                ended by that. Where the connection is the lease, deliveries in flight are ``LOST``.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        """Settle deliveries and lease up to ``take`` further jobs, in one round trip, without waiting.

        There is one outcome for each settlement, in the same order (SET-1, LSE-4). ``OK``: the broker
        confirmed it. ``ALREADY``: this receipt settled its job before; nothing changed. ``LOST``: the lease
        had ended, and nothing changed; or the connection was the lease and broke before the answer came, so
        that the job is settled, or runs again, or both. ``REFUSED``: what an ack was to publish can't be
        published; the receipt is still held. ``DEFERRED``: the broker takes no messages at present, and this
        settlement has to write one; the receipt is still held, so send it again. If one receipt is settled
        twice, the first settlement that reaches the broker counts.

        Jobs that an ack publishes wake the consumers of their queues, as any other publish does (RCV-2).

        The broker may send some of the ``take`` jobs later, while the consumer runs the others. They count
        towards ``take``, and the next call returns them.

        Raises:
            BackendUnavailable: the broker is away, or whether it committed is unknown. Each settlement may
                have taken effect or not. Settle the same receipts again: ``OK`` and ``ALREADY`` both mean
                that the settlement counts, ``LOST`` that the lease ended first. Jobs that the failed call
                leased go back to the queue, and no crash is counted. A backend whose lease is the connection
                doesn't raise this: it answers ``LOST``.
            BackendError: the broker refuses, for example by AccessDenied. The receipts are still held.
        """

    def allow_ahead(self, limit: int) -> None:
        """Let the broker send jobs ahead until this consumer has ``limit`` jobs, or about as many.

        A consumer that runs many jobs at once says so. Then :meth:`settle` needn't ask for each job, and what
        it doesn't return comes with the next call. Those that the consumer holds, and those that were sent
        ahead, count towards the limit. It holds until the next call of this or of :meth:`release_ahead`, by
        the thread that calls :meth:`receive`. Only a backend whose broker sends jobs ahead overrides this.
        """

    def release_ahead(self) -> None:
        """Release the jobs that the broker sent and no call has returned yet, because a job takes long.

        Only a backend whose broker sends jobs ahead overrides this. After :meth:`close` it does nothing, and
        :meth:`close` doesn't need it.
        """

    def take_again(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Take jobs again whose release is ``DEFERRED``, and return those that may run here at once.

        The others are the caller's no more. What keeps limits holds them, and :meth:`receive` returns them.
        Where the broker may yet carry out a release, the job goes back once it does, or else it ran twice.
        """
        return list(deliveries)

    def given_out(self) -> Sequence[str]:
        """Return the receipts of the jobs that calls have returned and that aren't settled, in any order.

        An interrupt may strike after the broker's answer, and before the consumer has heard it. At the end of
        its run a consumer releases the jobs of which it knows nothing. Only a backend whose connection is the
        lease overrides this: a timed lease ends if nobody extends it.
        """
        return ()

    @abstractmethod
    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Extend each lease to ``lease_s`` from now, and return one outcome for each, in order (LSE-3).

        ``CANCELLED`` says that the lease is extended, and that the job was asked to be cancelled (CAN-2).

        Raises:
            BackendUnavailable: the broker is away; ask again before the leases end.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a blocked :meth:`receive` return an empty list at once; if none is blocked, the next one.

        Any thread may call it. A signal handler may not: this may take a lock that the interrupted thread
        holds, and may talk to the broker. Have the signal handler start a thread that calls it.
        """

    def report(self, receipt: str, progress: Progress) -> None:
        """Store the progress of a delivery until it is settled, if the backend can.

        Any thread of the handler calls it, for each job a few times a second at most. A receipt that is no
        longer held changes nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the jobs still leased, and close. Closing again does nothing.

        A blocked ``receive`` raises ``Closed``.
        """
