"""Receipts: what an adapter answers for one that a consumer doesn't hold."""

import pytest

from mindtrace.jobs.adapters.shared.receipts import Held, Receipts
from mindtrace.jobs.ports import SettleOutcome


@pytest.fixture
def receipts() -> Receipts:
    receipts = Receipts("me")
    receipts.granted = 100_000
    return receipts


def test_one_that_was_given_out_was_settled_unless_it_was_lost(receipts: Receipts) -> None:
    """Settling again answers ALREADY, settling what was lost LOST (SET-1, LSE-4)."""
    receipts.lose(["me.7"])

    assert receipts.why_not_held("me.6") is SettleOutcome.ALREADY
    assert receipts.why_not_held("me.7") is SettleOutcome.LOST


@pytest.mark.parametrize(
    "receipt",
    [
        "",
        "me",
        "me.",
        "me.0",
        "me.07",
        "me.-7",
        "me.100001",
        "me.\u0667",
        "me.\u00b2",
        "you.7",
        "x.me.7",
        "me." + "9" * 5000,
    ],
)
def test_one_that_was_never_given_out_is_lost(receipts: Receipts, receipt: str) -> None:
    """Whatever somebody makes up (LSE-4)."""
    assert receipts.why_not_held(receipt) is SettleOutcome.LOST


def test_of_many_that_were_lost_the_oldest_are_forgotten_and_still_lost(receipts: Receipts) -> None:
    """A consumer that loses jobs for years doesn't grow; what is forgotten isn't called settled (LSE-4)."""
    receipts.lose(f"me.{number}" for number in range(1, 50_001, 2))

    assert len(receipts._lost) == 10_000
    assert receipts.why_not_held("me.1") is SettleOutcome.LOST
    assert receipts.why_not_held("me.2") is SettleOutcome.LOST, "it can't be told any more"
    assert receipts.why_not_held("me.49999") is SettleOutcome.LOST
    assert receipts.why_not_held("me.49998") is SettleOutcome.ALREADY


def test_what_is_held_is_settled_once() -> None:
    """OK, then ALREADY; LOST where the settlement took no effect, and then as well (SET-1, LSE-4)."""
    held: Held[str] = Held("me")
    done, lost, expired = held.grant("a"), held.grant("b"), held.grant("c")
    held.lose(expired)

    assert [held.settle(done, took_effect=True) for _ in range(2)] == [
        SettleOutcome.OK,
        SettleOutcome.ALREADY,
    ]
    assert [held.settle(lost, took_effect=False) for _ in range(2)] == [SettleOutcome.LOST] * 2
    assert held.settle(expired, took_effect=True) == SettleOutcome.LOST
    assert held.receipts() == []


def test_what_is_held_can_be_looked_up_and_replaced() -> None:
    """As when a lease was extended (LSE-3)."""
    held: Held[str] = Held("me")
    receipt = held.grant("until noon")
    held.replace(receipt, "until one")

    assert held.get(receipt) == "until one"
    assert held.outcome(receipt) == SettleOutcome.OK
    assert held.outcome("me.9") == SettleOutcome.LOST
    assert held.get("me.9") is None
