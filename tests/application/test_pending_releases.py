"""Releases of jobs that wait for a limit, where the broker takes no messages for a while."""

from collections.abc import Sequence
from typing import Any

from mindtrace.jobs.application.limits.pending_releases import PendingReleases
from mindtrace.jobs.ports import Release, Settled, Settlement, SettleOutcome


class Full:
    """Defers all until there is room."""

    has_room = False

    def __init__(self) -> None:
        self.sent: list[Settlement] = []

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        self.sent += settlements
        outcome = SettleOutcome.OK if self.has_room else SettleOutcome.DEFERRED
        return Settled([outcome] * len(settlements), [])


def test_a_deferred_release_is_due_again_without_any_settlement() -> None:
    """Where the lease is the connection, nobody else gets the job before (SET-4)."""
    now, backend = [100.0], Full()
    pending = PendingReleases(backend, lambda: now[0])  # type: ignore[arg-type]
    release: Any = Release("receipt")
    pending.add([release])
    pending.settle([], 0)
    assert (len(pending), backend.sent) == (1, [release])
    assert now[0] < pending.due_s <= now[0] + 1.0

    now[0], backend.has_room = pending.due_s, True
    pending.settle([], 0)

    assert backend.sent == [release] * 2
    assert (len(pending), pending.due_s) == (0, float("inf"))
