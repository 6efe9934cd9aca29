"""The port that a consumer needs of a broker."""

from abc import abstractmethod
from collections.abc import Sequence

from ..domain.reporting import Progress
from .base import Closing
from .values import Delivery, Settled, Settlement, SettleOutcome


class ConsumerBackend(Closing):
    """One consumer's side of one queue.

    ``receive`` and ``settle`` are called from one thread at a time, which may be another each time;
    ``extend``, ``settle`` with ``take=0``, ``release_ahead``, ``interrupt`` and ``close`` may come from
    another meanwhile.
    """

    @property
    @abstractmethod
    def lease_s(self) -> float | None:
        """How long a delivery is leased, in seconds; None where the connection holds it."""

    @property
    def prefetch(self) -> int | None:
        """How many jobs to take at once where the consumer doesn't say; None adapts it to their length."""
        return None

    @abstractmethod
    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        """Lease up to ``max_jobs`` jobs, waiting up to ``timeout_s`` seconds for the first (RCV-1).

        A publish, a job that becomes due and a lease that runs out each wake it (RCV-2, DLY-2, LSE-1).

        Returns:
            An empty list after the timeout or an :meth:`interrupt`.

        Raises:
            QueueNotFound: the queue was deleted.
            BackendUnavailable: the broker is away; the next call reconnects (CON-1). Timed leases go on
                meanwhile; where the connection is the lease, what was in flight is LOST.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        """Settle deliveries and lease up to ``take`` further jobs, in one round trip, without waiting.

        Each settlement is answered, in order (SET-1, LSE-4). ``OK``: the broker confirmed it. ``ALREADY``:
        this receipt settled its job before; nothing changed. ``LOST``: the lease had ended, and nothing
        changed; or the connection, which was the lease, broke before the answer came, and the job is settled
        or runs again. Of several settlements of one receipt, the first that reaches the broker counts.

        The broker may send some of the ``take`` jobs while the consumer works on the rest: these count as its
        own, so that it never has more, and the next call returns them.

        Raises:
            BackendUnavailable: the broker is away; each settlement may have taken effect or not. Settle the
                same receipts again: ``OK`` and ``ALREADY`` both mean that it counts, ``LOST`` that the lease
                ended first. What the call took for ``take`` goes back to the queue without a crash counted.
                A backend whose lease is the connection doesn't raise this: it answers ``LOST``.
        """

    def release_ahead(self) -> None:
        """Give back what the broker sent that no call has returned yet: the consumer's work takes long.

        Only for a backend that lets it do so; others have nothing to do, and a closed one has none left.
        Nobody need call it before :meth:`close`.
        """

    @abstractmethod
    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Lease each delivery for another ``lease_s`` from now, and answer for each, in order (LSE-3).

        Raises:
            BackendUnavailable: the broker is away; ask again before the leases end.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a blocked :meth:`receive` return empty at once, or else the next one. From any thread."""

    def report(self, receipt: str, progress: Progress) -> None:
        """Keep how far a delivery in hand has come, until it is settled, where the backend can.

        From the thread that runs the handler, a few times a second at most. A receipt that isn't held any
        more changes nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what is still leased, and end; again is a no-op. A blocked ``receive`` raises Closed."""
