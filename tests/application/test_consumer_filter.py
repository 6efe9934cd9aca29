"""What the backends have in common that end some of the jobs they take."""

from unittest.mock import Mock

from mindtrace.jobs.application.consumer_filter import ConsumerFilter
from mindtrace.jobs.ports import ConsumerBackend, Delivery, Settled

LONG_S = 60.0
JOB = Delivery("job", b"{}", "1", 1, 1, 0, None)
OTHER = Delivery("other", b"{}", "2", 1, 1, 0, None)


class Dropping(ConsumerFilter):
    """Ends all jobs but the other one; stops as a consumer does, from another thread."""

    interrupt_after = 5
    dropped = 0

    def _keep(self, deliveries: list[Delivery]) -> list[Delivery]:
        self.dropped += len(deliveries)
        if self.dropped == self.interrupt_after:
            self.interrupt()
        return [delivery for delivery in deliveries if delivery is OTHER]


def test_an_interrupt_ends_a_receive_that_only_drops_jobs() -> None:
    """RabbitMQ looks for it only where no job comes."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.return_value = [JOB]
    backend = Dropping(inner)

    assert backend.receive(1, LONG_S) == []
    assert backend.dropped == 5
    inner.interrupt.assert_called_once_with()


def test_an_interrupt_from_before_ends_no_receive_that_finds_jobs() -> None:
    """Such as one of a consumer that its own handler stopped."""
    inner = Mock(spec=ConsumerBackend)
    inner.receive.side_effect = [[JOB], [JOB, OTHER]]
    backend = Dropping(inner)
    backend.interrupt()

    assert backend.receive(2, 0.0) == [OTHER]


def test_what_is_left_of_the_time_is_waited_for_jobs_that_run() -> None:
    inner = Mock(spec=ConsumerBackend)
    inner.receive.side_effect = [[JOB], [JOB, OTHER]]

    assert Dropping(inner).receive(2, LONG_S) == [OTHER]
    (_, first), (_, second) = (call.args for call in inner.receive.call_args_list)
    assert second < first == LONG_S


def test_jobs_that_come_with_an_answer_are_looked_at_too() -> None:
    inner = Mock(spec=ConsumerBackend)
    inner.settle.return_value = Settled([], [JOB, OTHER])

    assert Dropping(inner).settle([], take=2).deliveries == [OTHER]
