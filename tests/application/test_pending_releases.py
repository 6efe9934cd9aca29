"""Jobs that wait for a limit are released while the broker is away, or takes no messages."""

from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs.application.limits.pending_releases import PendingReleases, Returning
from mindtrace.jobs.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Delivery, Release, Settled, Settlement, SettleOutcome

RETURNING = Returning(Release("receipt"), Delivery("a", b"{}", "receipt", 1, 1, 0, None))


class Full:
    """Defers all but acks until there is room."""

    has_room = False
    fault: BaseException | None = None

    def __init__(self) -> None:
        self.sent: list[Settlement] = []

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        if self.fault is not None:
            raise self.fault
        self.sent += settlements
        return Settled(
            [
                SettleOutcome.OK if self.has_room or isinstance(each, Ack) else SettleOutcome.DEFERRED
                for each in settlements
            ],
            [],
        )


class Line:
    """Pending releases, on a clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.backend = Full()
        backend: Any = self.backend
        self.pending = PendingReleases(backend, lambda: self.now_s)


@pytest.fixture
def line() -> Line:
    return Line()


def test_a_job_whose_release_is_deferred_comes_back_and_is_not_sent_again(line: Line) -> None:
    """Where the lease is the connection, nobody else gets the job before (SET-4)."""
    line.pending.add([RETURNING])
    sent, answer, kept = line.pending.settle([Ack("another")], 0)

    assert sent == [Ack("another"), RETURNING.release]
    assert answer.outcomes == [SettleOutcome.OK, SettleOutcome.DEFERRED]
    assert kept == [RETURNING.delivery]
    assert not line.pending
    line.pending.settle([], 0)
    assert line.backend.sent == sent


def test_others_are_tried_a_moment_later_until_the_broker_takes_one(line: Line) -> None:
    line.pending.add([RETURNING])
    line.pending.settle([], 0)
    assert (line.pending.are_deferred, line.pending.may_try) == (True, False)

    line.now_s += 1.0
    assert (line.pending.are_deferred, line.pending.may_try) == (True, True)

    line.backend.has_room = True
    line.pending.add([RETURNING])
    assert line.pending.settle([], 0)[2] == []
    assert (line.pending.are_deferred, line.pending.may_try) == (False, True)


def test_an_ack_says_nothing_of_releases(line: Line) -> None:
    line.pending.add([RETURNING])
    line.pending.settle([], 0)
    line.pending.settle([Ack("another")], 0)
    assert line.pending.are_deferred


@pytest.mark.parametrize("fault", [BackendUnavailable("away"), KeyboardInterrupt()])
def test_what_an_outage_or_an_interrupt_kept_from_the_broker_is_sent_with_the_next(
    line: Line, fault: BaseException
) -> None:
    line.backend.fault, line.backend.has_room = fault, True
    line.pending.add([RETURNING])
    with pytest.raises(type(fault)):
        line.pending.settle([], 0)
    assert line.pending.unsent() == [RETURNING.delivery]

    line.backend.fault = None
    line.pending.settle([], 0)
    assert line.backend.sent == [RETURNING.release]
    assert not line.pending
