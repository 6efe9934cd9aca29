"""What a backend can't do is refused, never silently something else."""

from dataclasses import replace

import pytest

from mindtrace.jobs import Capabilities, LocalClient, Queue, QueueCounts, QueueKind
from mindtrace.jobs.domain.errors import UnsupportedCapability
from mindtrace.jobs.ports import Durability

EVERYTHING = LocalClient().capabilities


@pytest.mark.parametrize("kind", QueueKind)
def test_what_is_supported_passes(kind: QueueKind) -> None:
    """Local has every kind of queue (ORD-1 to ORD-3) and results (RES-1)."""
    EVERYTHING.require_kind(Queue("points", kind))
    EVERYTHING.require_results()


@pytest.mark.parametrize(
    ("kind", "others"), [(QueueKind.STACK, "fifo, priority"), (QueueKind.PRIORITY, "fifo, stack")]
)
def test_a_kind_that_is_not_supported_is_refused(kind: QueueKind, others: str) -> None:
    """The message names the queue, the kind and what there is instead (ORD-2, ORD-3)."""
    without: Capabilities = replace(EVERYTHING, **{kind.value: False})

    with pytest.raises(UnsupportedCapability) as raised:
        without.require_kind(Queue("points", kind))

    assert str(raised.value) == f"queue 'points': this backend has no {kind} queues; it has: {others}"
    without.require_kind(Queue("points"))


def test_priority_queues_may_survive_less() -> None:
    """A backend may have to keep them in another way; without a word of their own they are as the others."""
    weaker = replace(EVERYTHING, durability=Durability.FSYNC, priority_durability=Durability.NONE)

    assert [weaker.durability_of(kind) for kind in QueueKind] == [
        Durability.NONE if kind is QueueKind.PRIORITY else Durability.FSYNC for kind in QueueKind
    ]
    assert {EVERYTHING.durability_of(kind) for kind in QueueKind} == {EVERYTHING.durability}


def test_results_that_are_not_kept_cannot_be_asked_for() -> None:
    """Silence would look like a job that never ends (RES-1)."""
    with pytest.raises(UnsupportedCapability, match="this backend keeps no results"):
        replace(EVERYTHING, results=False).require_results()


def test_what_waits_is_ready_or_delayed() -> None:
    """What is in flight or dead isn't waiting to be delivered (CNT-1)."""
    assert QueueCounts(ready=2, delayed=3, in_flight=5, dead=7).waiting == 5
    assert QueueCounts(ready=1, delayed=0, in_flight=None, dead=0).waiting == 1
