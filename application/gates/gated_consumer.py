"""A consumer backend that passes on only the jobs that its gates admit, and none during a pause."""

import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic

from ...domain.errors import JobsError
from ...domain.job_progress import Progress
from ...ports import Ack, Cancel, ConsumerBackend, Dead, Delivery, Settled, Settlement, SettleOutcome
from ...ports.signal_safe_event import SignalSafeEvent
from .gate import Gate


class GatedConsumer(ConsumerBackend):
    """Stands between a loop and the broker's consumer, and asks the gates about each job (ADR 127).

    It keeps the table of the jobs that were taken, for all gates. A ``receive`` that waits for jobs ends when
    the queue is paused; one that is called then waits until it is resumed.

    Args:
        inner: Where the jobs come from. It takes the settlements that the gates choose.
        gates: In the order in which jobs pass them.
        refresh: Learns whether the queue is paused, before jobs start that came after a wait.
    """

    def __init__(
        self, inner: ConsumerBackend, gates: Sequence[Gate], refresh: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._inner = inner
        self._gates = gates
        # What a gate doesn't override isn't called.
        self._admitting = [gate for gate in gates if type(gate).admit is not Gate.admit]
        self._settling = [gate for gate in gates if type(gate).before_settling is not Gate.before_settling]
        self._ending = [gate for gate in gates if type(gate).ended is not Gate.ended]
        self._cancelling = [gate for gate in gates if type(gate).cancelled is not Gate.cancelled]
        self._refresh = refresh
        self._taken: dict[str, Delivery] = {}
        """The jobs that aren't settled yet, by receipt; none are kept without gates."""
        self._lock = threading.Lock()
        self._goes_on = SignalSafeEvent()
        """Ends the wait of a ``receive`` in a pause."""
        self.is_receiving = False
        """Whether it waits for jobs of the broker."""
        self._is_interrupted = False
        """Whether a ``receive`` is to return that finds no job which may run."""
        self.is_paused = False
        """Whether no job is to be taken."""
        self._is_closed = False

    @property
    def lease_s(self) -> float | None:
        return self._inner.lease_s

    @property
    def prefetch(self) -> int | None:
        return self._inner.prefetch

    @property
    def held_back(self) -> int:
        return self._inner.held_back

    # -- pauses -------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Take no job from now on; this waits for nothing. Jobs that are being taken still come."""
        with self._lock:
            self.is_paused = not self._is_closed

    def end_receive(self) -> None:
        """Make a ``receive`` return that was called before the pause."""
        if self.is_paused and self.is_receiving:
            self._inner.interrupt()

    def resume(self) -> None:
        """Take jobs again, at once."""
        with self._lock:
            self.is_paused = False
        self._goes_on.set()

    def allow_ahead(self, limit: int) -> None:
        if not self.is_paused:
            self._inner.allow_ahead(limit)

    # -- taking -------------------------------------------------------------------------------------

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up_s = monotonic() + timeout_s if self._gates else inf
        if not self.is_paused:
            self._is_interrupted = False  # one from before ends a receive of the broker that finds no job
        while True:
            # In this order and without the lock, as an idle consumer's latency shows it: who pauses a queue
            # notes the pause first, and looks for a wait then, so that one of the two always sees the other.
            self.is_receiving = True
            try:
                left_s = self._wait_until_resumed(timeout_s) if self.is_paused else timeout_s
                deliveries = [] if left_s is None else self._inner.receive(max_jobs, left_s)
            finally:
                self.is_receiving = False
            if deliveries:
                self._refresh()
            if not deliveries or not self._gates:
                break
            deliveries = self._admit(deliveries)
            if deliveries or self._is_interrupted:  # a broker that has more may not see the interrupt
                break
            timeout_s = max(0.0, give_up_s - monotonic())
        self._is_interrupted = False
        return deliveries

    def _wait_until_resumed(self, timeout_s: float) -> float | None:
        """Return how much of the time is left to receive jobs; None if it is still paused by then."""
        self.is_receiving = False
        give_up_s = monotonic() + timeout_s
        while True:
            self._goes_on.clear()  # first: what happens from here on ends the wait below
            left_s = give_up_s - monotonic()
            if not self.is_paused or self._is_interrupted or left_s <= 0:
                break
            self._goes_on.wait(left_s)  # a pause may follow the resume that ends this
        self.is_receiving = True
        return None if self.is_paused else max(0.0, give_up_s - monotonic())

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._goes_on.set()
        self._inner.interrupt()

    def _admit(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Note jobs that were just taken, settle those that must not run, and return the others."""
        for delivery in deliveries:
            self._taken[delivery.receipt] = delivery
        for gate in self._admitting if deliveries else ():
            if ends := gate.admit(deliveries):
                self._end(list(ends.values()))
                deliveries = [delivery for delivery in deliveries if delivery.receipt not in ends]
        return deliveries

    def _end(self, settlements: Sequence[Settlement]) -> None:
        try:
            outcomes = self._inner.settle(settlements).outcomes
        except JobsError as error:  # they come again, once their leases end
            self.logger.warning("jobs that must not run weren't settled: %s", error)
            outcomes = [SettleOutcome.LOST] * len(settlements)
        self._note_settled(settlements, outcomes)

    # -- settling -----------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        if self.is_paused:
            take = 0
        if not self._gates:
            return self._inner.settle(settlements, take=take)
        sent = settlements
        for gate in self._settling:
            sent = gate.before_settling(sent, self._taken)
        settled = self._inner.settle(sent, take=take)
        outcomes, deliveries = settled
        self._note_settled(_that_count(settlements, sent, outcomes), outcomes)
        admitted = self._admit(deliveries)
        if admitted is deliveries and sent is settlements:
            return settled
        return Settled(
            [
                SettleOutcome.CANCELLED if told is not said and outcome is SettleOutcome.OK else outcome
                for said, told, outcome in zip(settlements, sent, outcomes, strict=True)
            ],
            admitted,
        )

    def _note_settled(self, settlements: Iterable[Settlement], outcomes: Iterable[SettleOutcome]) -> None:
        """Forget jobs that were settled, and tell the gates which of them have ended."""
        ended: list[Delivery] = []
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome.keeps_receipt:
                continue
            job = self._taken.pop(settlement.receipt, None)
            if job is None or outcome is SettleOutcome.LOST:
                continue
            if isinstance(settlement, Ack | Dead | Cancel) or outcome is SettleOutcome.CANCELLED:
                ended.append(job)
        for gate in self._ending if ended else ():
            gate.ended(ended)

    # -- leases -------------------------------------------------------------------------------------

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Extend as the broker, and say which jobs a gate has cancelled (CAN-2)."""
        outcomes = self._inner.extend(receipts)
        if not self._gates:
            return outcomes
        stand: list[Delivery] = []
        for receipt, outcome in zip(receipts, outcomes, strict=True):
            if outcome is SettleOutcome.LOST:  # it may never be settled
                self._taken.pop(receipt, None)
            elif outcome is SettleOutcome.OK and (job := self._taken.get(receipt)) is not None:
                stand.append(job)
        cancelled = {receipt for gate in self._cancelling for receipt in gate.cancelled(stand)}
        if not cancelled:
            return outcomes
        return [
            SettleOutcome.CANCELLED if receipt in cancelled else outcome
            for receipt, outcome in zip(receipts, outcomes, strict=True)
        ]

    # -- passed on ----------------------------------------------------------------------------------

    def release_ahead(self) -> None:
        self._inner.release_ahead()

    def take_again(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._inner.take_again(deliveries)

    def given_out(self) -> Sequence[str]:
        return self._inner.given_out()

    def report(self, receipt: str, progress: Progress) -> None:
        self._inner.report(receipt, progress)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True  # or a look at the pauses would have a thread wait here for ever
        self.resume()
        self._inner.close()


def _that_count(
    settlements: Sequence[Settlement], sent: Sequence[Settlement], outcomes: Sequence[SettleOutcome]
) -> Sequence[Settlement]:
    """Return the settlements that count: where a gate chose another, and one before counts, what was said.

    A broker that had deferred a retry may carry it out before it hears of the gate's choice.
    """
    if sent is settlements or SettleOutcome.ALREADY not in outcomes:
        return sent
    return [
        said if outcome is SettleOutcome.ALREADY else told
        for said, told, outcome in zip(settlements, sent, outcomes, strict=True)
    ]
