"""The answers to acks that publish next jobs."""

from collections.abc import Collection, Iterable, Sequence

from ...ports import Ack, Settlement, SettleOutcome


def publishes_into(settlement: Settlement, queue: str) -> bool:
    """Tell whether a settlement is an ack with a next job for a queue."""
    return type(settlement) is Ack and any(step.queue == queue for step in settlement.then)


def without(settlements: Sequence[Settlement], refused: Collection[str]) -> Sequence[Settlement]:
    """Return the settlements without those of refused receipts."""
    return [each for each in settlements if each.receipt not in refused] if refused else settlements


def with_refusals(
    settlements: Sequence[Settlement], refused: Collection[str], outcomes: Iterable[SettleOutcome]
) -> list[SettleOutcome]:
    """Return the outcome of each settlement, given the outcomes of those that weren't refused."""
    others = iter(outcomes)
    return [SettleOutcome.REFUSED if each.receipt in refused else next(others) for each in settlements]
