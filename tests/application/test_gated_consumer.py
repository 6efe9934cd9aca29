"""What a consumer behind gates does with the jobs that none of them admits."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from unittest.mock import Mock

import pytest

from interrupts import interrupt_at
from mindtrace.jobs.application.gates.gate import Gate
from mindtrace.jobs.application.gates.gated_consumer import GatedConsumer
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import (
    Ack,
    Cancel,
    ConsumerBackend,
    Delivery,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)

LONG_S = 60.0
JOB = Delivery("job", b"{}", "1", 1, 1, 0, None)
OTHER = Delivery("other", b"{}", "2", 1, 1, 0, None)


class Dropping(Gate):
    """Ends all jobs but the other one; stops as a consumer does, from another thread."""

    interrupt_after = 5

    def __init__(self, inner: Mock) -> None:
        inner.settle.side_effect = lambda sent, **_: Settled([SettleOutcome.OK] * len(sent), [])
        self.backend = GatedConsumer(inner, [self], lambda: None)
        self.dropped = 0
        self.told: list[Delivery] = []

    def admit(self, jobs: Sequence[Delivery]) -> Mapping[str, Settlement]:
        ends = {job.receipt: Ack(job.receipt) for job in jobs if job is not OTHER}
        self.dropped += len(ends)
        if self.dropped == self.interrupt_after:
            self.backend.interrupt()
        return ends

    def ended(self, jobs: Sequence[Delivery]) -> None:
        self.told += jobs


def test_an_interrupt_ends_a_receive_that_only_drops_jobs() -> None:
    """RabbitMQ looks for it only where no job comes."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.return_value = [JOB]
    gate = Dropping(inner)

    assert gate.backend.receive(1, LONG_S) == []
    assert gate.dropped == 5
    inner.interrupt.assert_called_once_with()


def test_an_interrupt_from_before_ends_no_receive_that_finds_jobs() -> None:
    """Such as one of a consumer that its own handler stopped."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.side_effect = [[JOB], [JOB, OTHER]]
    backend = Dropping(inner).backend
    backend.interrupt()

    assert backend.receive(2, 0.0) == [OTHER]


def test_what_is_left_of_the_time_is_waited_for_jobs_that_run() -> None:
    inner = Mock(spec=ConsumerBackend)
    inner.receive.side_effect = [[JOB], [JOB, OTHER]]

    assert Dropping(inner).backend.receive(2, LONG_S) == [OTHER]
    (_, first), (_, second) = (call.args for call in inner.receive.call_args_list)
    assert second < first == LONG_S


def test_jobs_that_come_with_an_answer_are_looked_at_too() -> None:
    inner = Mock(spec=ConsumerBackend)
    gate = Dropping(inner)
    inner.settle.side_effect = [Settled([], [JOB, OTHER]), Settled([SettleOutcome.OK], [])]

    assert gate.backend.settle([], take=2).deliveries == [OTHER]
    assert gate.told == [JOB]


def test_of_a_job_that_cannot_be_ended_nothing_is_kept() -> None:
    """It comes again with another receipt, and has not ended."""
    inner = Mock(spec=ConsumerBackend)
    gate = Dropping(inner)
    inner.receive.side_effect = [[JOB, OTHER]]
    inner.settle.side_effect = BackendUnavailable("away")

    assert gate.backend.receive(2, LONG_S) == [OTHER]
    assert gate.told == []
    assert list(gate.backend._taken) == [OTHER.receipt]


class Cancelling(Dropping):
    """Admits all jobs, and cancels those that failed."""

    def admit(self, jobs: Sequence[Delivery]) -> Mapping[str, Settlement]:
        return {}

    def before_settling(
        self, settlements: Sequence[Settlement], jobs: Mapping[str, Delivery]
    ) -> Sequence[Settlement]:
        return [Cancel(each.receipt) if isinstance(each, Retry) else each for each in settlements]


@pytest.mark.parametrize(("answer", "ended"), [(SettleOutcome.OK, [JOB]), (SettleOutcome.ALREADY, [])])
def test_a_job_has_not_ended_whose_earlier_retry_counts(answer: SettleOutcome, ended: list[Delivery]) -> None:
    """A broker that had deferred it carries it out before it hears of the cancel: the job runs again."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.return_value = [JOB]
    gate = Cancelling(inner)
    assert gate.backend.receive(1, 0.0) == [JOB]
    inner.settle.side_effect = lambda sent, **_: Settled([answer], [])

    gate.backend.settle([Retry(JOB.receipt, 0.0, "no")])

    assert gate.told == ended


def test_a_resume_that_a_pause_follows_at_once_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting thread may not see that the queue went on for a moment."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.return_value = [JOB]
    backend = GatedConsumer(inner, [])
    backend.pause()
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        backend.resume()
        if len(waits) == 1:
            backend.pause()
        return True

    monkeypatch.setattr(backend._goes_on, "wait", wait)
    assert backend.receive(1, LONG_S) == [JOB]
    assert len(waits) == 2
    assert waits[1] <= waits[0] <= LONG_S


def test_a_wait_in_a_pause_that_was_interrupted_leaves_the_consumer_usable() -> None:
    """Ctrl-C itself is raised, wherever it comes."""
    files = ("gates/gated_consumer.py", "ports/signal_safe_event.py", "/threading.py")
    for point in itertools.count(1):
        inner = Mock(spec=ConsumerBackend)
        inner.receive.return_value = [JOB]
        backend = GatedConsumer(inner, [])
        backend.pause()
        was_interrupted = interrupt_at(point, files, partial(backend.receive, 1, 0.01))
        backend.resume()
        assert backend.receive(1, LONG_S) == [JOB], point
        if not was_interrupted:
            return
