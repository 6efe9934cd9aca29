"""What a file tells besides the contract: its queues, and how far their jobs have come."""

import threading
from pathlib import Path

import pytest

from mindtrace.jobs import Progress, Queue, QueueKind, SQLiteClient
from mindtrace.jobs.domain.errors import BackendUnavailable, BrokerUnsuitable, Closed
from mindtrace.jobs.ports import Ack, Message, Release

from .conftest import Machine


def test_its_queues_are_listed_by_name_each_namespace_its_own(client: SQLiteClient, path: Path) -> None:
    client.declare(Queue("pile", QueueKind.STACK))
    client.declare(Queue("gone"))
    client.delete("gone")
    with SQLiteClient(path, namespace="team") as other:
        other.declare(Queue("theirs"))

        assert other.queues() == [Queue("theirs")]
    assert client.queues() == [Queue("pile", QueueKind.STACK), Queue("points")]


def test_to_look_for_queues_makes_no_file(path: Path) -> None:
    """So that a command in the wrong folder leaves nothing there."""
    with SQLiteClient(path) as client:
        assert client.queues() == []
        assert not path.exists()
        path.touch()
        assert client.queues() == []
        assert path.stat().st_size == 0


def test_queues_that_cannot_be_listed_are_an_error_with_the_reason(path: Path) -> None:
    nowhere = path.parent / "no" / "jobs.db"
    with SQLiteClient(nowhere) as client, pytest.raises(BackendUnavailable, match="no folder"):
        client.queues()
    path.write_bytes(b"Dear diary, " * 1000)
    with SQLiteClient(path) as client, pytest.raises(BrokerUnsuitable, match="no SQLite database"):
        client.queues()
    with pytest.raises(Closed):
        client.queues()


def test_progress_is_seen_while_the_job_is_in_hand_and_no_longer(client: SQLiteClient, path: Path) -> None:
    """Across heartbeats, by every process; a job that is in hand again begins anew."""
    client.publish("points", [Message("1", b"{}"), Message("2", b"{}")])
    with SQLiteClient(path) as other, client.open_consumer("points") as consumer:
        first, second = consumer.receive(2, 0.0)
        consumer.report(first.receipt, Progress(1, 4))
        consumer.report(second.receipt, Progress(0.5))
        consumer.report(first.receipt, Progress(2, 4))
        consumer.extend([first.receipt])

        assert other.progress("points") == {"1": Progress(2, 4), "2": Progress(0.5)}
        assert other.progress("points", ["2", "3"]) == {"2": Progress(0.5)}
        assert other.progress("points", []) == {}

        consumer.settle([Ack(second.receipt), Release(first.receipt)])
        assert other.progress("points") == {}
        consumer.receive(1, 0.0)
        assert other.progress("points") == {}


def test_what_a_consumer_that_lost_the_job_says_of_it_changes_nothing(
    machine: Machine, client: SQLiteClient
) -> None:
    client.publish("points", [Message("1", b"{}")])
    late, other = client.open_consumer("points", lease_s=10.0), client.open_consumer("points")
    (lost,) = late.receive(1, 0.0)
    late.report(lost.receipt, Progress(1, 4))
    assert client.progress("points") == {"1": Progress(1, 4)}
    machine.run(11)
    (held,) = other.receive(1, 0.0)
    late.report(lost.receipt, Progress(2, 4))
    assert client.progress("points") == {}
    other.report(held.receipt, Progress(3, 4))
    late.report("unknown", Progress(4, 4))

    assert client.progress("points") == {"1": Progress(3, 4)}
    client.delete("points")
    other.report(held.receipt, Progress(4, 4))


def test_progress_is_told_from_one_thread_while_another_keeps_the_lease(client: SQLiteClient) -> None:
    """Whichever comes first, the lease that is written to is the one that is held."""
    client.publish("points", [Message("1", b"{}")])
    with client.open_consumer("points") as consumer:
        (held,) = consumer.receive(1, 0.0)
        beating = threading.Thread(target=lambda: [consumer.extend([held.receipt]) for _ in range(100)])
        beating.start()
        for done in range(100):
            consumer.report(held.receipt, Progress(done, 100))
            assert client.progress("points") == {"1": Progress(done, 100)}
        beating.join()
