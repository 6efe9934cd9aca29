"""Ends jobs that the coordination store has requests to cancel, for a broker that can't end them itself."""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic

from ...domain.errors import JobsError
from ...ports import (
    Ack,
    Cancel,
    ConsumerBackend,
    Dead,
    Delivery,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..consumer_filter import ConsumerFilter
from .requests import CancelRequests

_OK = SettleOutcome.OK
_AWAY_S = 10.0
"""For how long jobs run without a question, after the store didn't answer one."""


class CancellingConsumerBackend(ConsumerFilter):
    """Passes on no job that is to be cancelled, and tells of those that run (ADR 80).

    While the store is away, jobs run as if nobody had cancelled any.

    Args:
        inner: Where the jobs come from; it takes the settlement :class:`Cancel`.
        requests: The requests of its queue.
        has_requests: Whether there are any, as far as that is known.
        result_ttl_s: For how many seconds to remember that a job was cancelled.
    """

    def __init__(
        self,
        inner: ConsumerBackend,
        requests: CancelRequests,
        has_requests: Callable[[], bool],
        result_ttl_s: float,
    ) -> None:
        super().__init__(inner)
        self._requests = requests
        self._has_requests = has_requests
        self._result_ttl_s = result_ttl_s
        self._taken: dict[str, str] = {}
        """The ids of the jobs that aren't settled yet, by their receipts."""
        self._asked: set[str] = set()
        """The ids of those of them that are known to be asked for."""
        self._away_until_s = -inf
        """Until when the store isn't asked, as it didn't answer."""

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        """Settle as the backend. A cancelled job isn't retried, and is no dead letter (CAN-3)."""
        # Asked for in any case, as a request may be newer than the last look, and few jobs fail.
        asked = self._asked_for([each.receipt for each in settlements if isinstance(each, Retry | Dead)])
        sent = [self._cancel(each.receipt) if each.receipt in asked else each for each in settlements]
        settled = self._inner.settle(sent, take=take)
        self._forget(sent, settled.outcomes)
        outcomes = [
            SettleOutcome.CANCELLED if each.receipt in asked and outcome is SettleOutcome.OK else outcome
            for each, outcome in zip(settlements, settled.outcomes, strict=True)
        ]
        return Settled(outcomes, self._keep(settled.deliveries))

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Extend as the backend, and say which jobs are to be cancelled (CAN-2)."""
        outcomes = self._inner.extend(receipts)
        held = [receipt for receipt, outcome in zip(receipts, outcomes, strict=True) if outcome is _OK]
        for receipt in {*receipts}.difference(held):  # it may never be settled
            self._taken.pop(receipt, None)
        asked = self._asked_for(held) if self._has_requests() else {}
        return [
            SettleOutcome.CANCELLED if receipt in asked else outcome
            for receipt, outcome in zip(receipts, outcomes, strict=True)
        ]

    def _keep(self, deliveries: list[Delivery]) -> list[Delivery]:
        # A request ends one job of its id.
        self._taken.update((delivery.receipt, delivery.id) for delivery in deliveries)
        if not deliveries or not self._has_requests():
            return deliveries
        asked = self._asked_for([delivery.receipt for delivery in deliveries])
        receipts = {id_: receipt for receipt, id_ in asked.items()}.values()
        if not receipts:
            return deliveries
        cancels = [self._cancel(receipt) for receipt in receipts]
        try:
            self._forget(cancels, self._inner.settle(cancels).outcomes)
        except JobsError as error:  # they come again
            self.logger.warning("jobs that are to be cancelled weren't settled: %s", error)
        for receipt in receipts:
            self.logger.info("job %s: cancelled, not started yet", asked[receipt])
        return [delivery for delivery in deliveries if delivery.receipt not in receipts]

    def _asked_for(self, receipts: Sequence[str]) -> dict[str, str]:
        """Return the ids of those jobs that are to be cancelled, by their receipts."""
        ids = {receipt: self._taken[receipt] for receipt in receipts if receipt in self._taken}
        if not ids or monotonic() < self._away_until_s:
            return {}
        try:
            found = self._requests.among(list(ids.values()))
        except JobsError as error:
            self._note_away(error)
            return {}
        self._asked |= found
        return {receipt: id_ for receipt, id_ in ids.items() if id_ in found}

    def _note_away(self, error: JobsError) -> None:
        """Have no job wait for a store that didn't answer."""
        self._away_until_s = monotonic() + _AWAY_S
        self.logger.warning("for %g s, jobs run though they may be cancelled: %s", _AWAY_S, error)

    def _forget(self, settlements: Iterable[Settlement], outcomes: Iterable[SettleOutcome]) -> None:
        """Forget jobs that were settled, and the requests of those that have ended."""
        ended: set[str] = set()
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome.keeps_receipt:
                continue
            id_ = self._taken.pop(settlement.receipt, "")
            has_ended = outcome is _OK and isinstance(settlement, Ack | Dead | Cancel)
            if has_ended and id_ in self._asked:
                ended.add(id_)
        if ended:
            self._asked -= ended
            try:
                self._requests.forget(ended)
            except JobsError as error:  # the store drops the requests itself, after some days
                self._note_away(error)

    def _cancel(self, receipt: str) -> Cancel:
        return Cancel(receipt, self._result_ttl_s)
