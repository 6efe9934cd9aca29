"""The answers to settlements that publish next jobs."""

from collections.abc import Collection, Iterable, Sequence

from ...ports import Ack, Dead, Settlement, SettleOutcome


def publishes_into(settlement: Settlement, queue: str) -> bool:
    """Tell whether a settlement has a next job for a queue."""
    then = settlement.then if type(settlement) is Ack or type(settlement) is Dead else ()
    return bool(then) and any(step.queue == queue for step in then)


def without(settlements: Sequence[Settlement], refused: Collection[str]) -> Sequence[Settlement]:
    """Return the settlements without those of refused receipts."""
    return [each for each in settlements if each.receipt not in refused] if refused else settlements


def with_refusals(
    settlements: Sequence[Settlement], refused: Collection[str], outcomes: Iterable[SettleOutcome]
) -> list[SettleOutcome]:
    """Return the outcome of each settlement, given the outcomes of those that weren't refused."""
    others = iter(outcomes)
    return [SettleOutcome.REFUSED if each.receipt in refused else next(others) for each in settlements]
