"""What the memory backend tells of itself besides the contract: its queues, progress, and findings."""

from mindtrace.jobs import LocalClient, Progress, Queue, QueueKind, Verdict
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.ports import Ack, Message


def test_its_queues_are_listed_by_name() -> None:
    with LocalClient() as client:
        client.declare(Queue("b", QueueKind.STACK))
        client.declare(Queue("a"))

        assert client.queues() == [Queue("a"), Queue("b", QueueKind.STACK)]


def test_progress_is_seen_while_the_job_is_in_hand_and_no_longer() -> None:
    """And what a consumer that lost the job says of it is not."""
    clock = ManualClock()
    with LocalClient(clock=clock) as client:
        client.declare(Queue("a"))
        client.publish("a", [Message("1", b"{}"), Message("2", b"{}")])
        consumer, other = client.open_consumer("a", lease_s=10), client.open_consumer("a", lease_s=10)
        first, second = consumer.receive(2, 0)
        consumer.report(first.receipt, Progress(1, 4))

        assert client.progress("a") == {"1": Progress(1, 4)}
        assert client.progress("a", ["2", "3"]) == {}

        consumer.settle([Ack(second.receipt)])
        clock.advance(11)
        (again,) = other.receive(1, 0)
        consumer.report(first.receipt, Progress(2, 4))

        assert again.id == "1"
        assert client.progress("a") == {}


def test_the_doctor_is_told_that_nothing_outlives_the_process() -> None:
    with LocalClient() as client:
        findings = {finding.subject: finding.verdict for finding in client.diagnose()}

    assert findings == {"reachable": Verdict.GOOD, "durability": Verdict.DOUBTFUL}


def test_a_closed_client_is_a_finding_too() -> None:
    client = LocalClient()
    client.close()

    assert client.diagnose()[0].verdict is Verdict.WRONG
