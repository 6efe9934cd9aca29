"""Which clients share their queues, how long those live, and what closing leaves behind."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import LocalClient, Queue
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import Closed, InvalidName, QueueConflict, QueueNotFound
from mindtrace.jobs.ports import Message

POINTS = Queue("points")


def test_clients_without_a_namespace_share_nothing() -> None:
    """Each has queues of its own (CON-2)."""
    with LocalClient() as one, LocalClient() as other:
        one.declare(POINTS)
        with pytest.raises(QueueNotFound, match="queue 'points': not declared; register its schema first"):
            other.counts("points")


def test_clients_of_one_namespace_share_its_queues() -> None:
    """And clients of another never see them (CON-2)."""
    with LocalClient("a") as one, LocalClient("a") as other, LocalClient("b") as stranger:
        one.declare(POINTS)
        one.publish("points", [Message("1", b"{}")])

        assert other.counts("points").ready == 1
        with pytest.raises(QueueNotFound):
            stranger.counts("points")


@pytest.mark.parametrize("drop", [LocalClient.close, lambda client: None], ids=["closed", "dropped"])
def test_a_namespace_ends_with_its_last_client(drop: Any) -> None:
    """Nothing of it is left in the process (CON-2)."""
    first, second = LocalClient("a"), LocalClient("a")
    first.declare(POINTS)
    drop(first)
    del first
    gc.collect()
    assert second.counts("points").ready == 0

    drop(second)
    del second
    gc.collect()
    with LocalClient("a") as third, pytest.raises(QueueNotFound):
        third.counts("points")


def test_a_consumer_keeps_its_queues_alive() -> None:
    """Even where the client that opened it was dropped without closing."""
    client = LocalClient("a")
    client.declare(POINTS)
    consumer = client.open_consumer("points")
    del client
    gc.collect()

    assert consumer.receive(1, 0) == []
    consumer.close()


def test_a_namespace_has_one_clock() -> None:
    """A second one is refused, no clock or the same one is fine."""
    clock = ManualClock()
    first, same, no = LocalClient("a", clock=clock), LocalClient("a", clock=clock), LocalClient("a")

    with pytest.raises(ValueError, match="namespace 'a' is open already, and runs on another clock"):
        LocalClient("a", clock=ManualClock())
    for client in (first, same, no):
        client.close()


def test_a_namespace_is_a_name() -> None:
    """The rule for names holds (PUB-6)."""
    with pytest.raises(InvalidName, match="namespace 'a b': use 1 to 128 characters"):
        LocalClient("a b")


def test_declaring_again_is_the_same_queue_and_another_kind_is_refused() -> None:
    """What waits stays (ADM-1)."""
    with LocalClient() as client:
        client.declare(POINTS)
        client.publish("points", [Message("1", b"{}")])

        client.declare(POINTS)
        with pytest.raises(QueueConflict, match="queue 'points' already has the type fifo, not priority"):
            client.declare(Queue("points", "priority"))

        assert client.counts("points").ready == 1


CALLS: dict[str, Callable[[LocalClient, str], object]] = {
    "publish": lambda client, queue: client.publish(queue, [Message("1", b"{}")]),
    "open_consumer": lambda client, queue: client.open_consumer(queue),
    "counts": lambda client, queue: client.counts(queue),
    "purge": lambda client, queue: client.purge(queue),
    "delete": lambda client, queue: client.delete(queue),
    "dead_letters": lambda client, queue: client.dead_letters(queue),
    "redrive": lambda client, queue: client.redrive(queue),
    "discard": lambda client, queue: client.discard(queue),
    "result": lambda client, queue: client.result(queue, "1"),
}


@pytest.mark.parametrize("call", [*CALLS.values(), lambda client, queue: client.declare(Queue(queue))])
def test_a_closed_client_refuses_every_call(call: Callable[..., object]) -> None:
    """By the same error; only what it can do is still told (CON-2)."""
    client = LocalClient()
    client.declare(POINTS)
    client.close()

    with pytest.raises(Closed, match="this LocalClient is closed"):
        call(client, "points")
    assert client.capabilities.stack


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_queue_that_was_never_declared_is_refused_by_every_call(
    client: LocalClient, call: Callable[..., object]
) -> None:
    """And nothing is created (PUB-3)."""
    for _ in range(2):
        with pytest.raises(QueueNotFound, match="queue 'nowhere': not declared"):
            call(client, "nowhere")


def test_closing_a_client_closes_its_consumers_and_no_others() -> None:
    """What they held goes to those who are left, without a crash counted (CON-2, SET-4)."""
    with LocalClient("a") as stays:
        leaves = LocalClient("a")
        leaves.declare(POINTS)
        leaves.publish("points", [Message("1", b"{}")])
        left, right = leaves.open_consumer("points"), stays.open_consumer("points")
        left.receive(1, 0)

        leaves.close()

        with pytest.raises(Closed):
            left.receive(1, 0)
        (delivery,) = right.receive(1, 0)
        assert (delivery.id, delivery.crashes, delivery.number) == ("1", 0, 2)


def test_no_consumer_outlives_its_client_by_a_race(background: Any) -> None:
    """One opened while the client closes is closed as well, or refused (CON-2)."""
    for _ in range(200):
        client = LocalClient()
        client.declare(POINTS)
        local_queue = client._queue("points")
        barrier = threading.Barrier(2)

        def open_one(client: LocalClient = client, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return client.open_consumer("points")  # kept by the future

        opening = background(open_one)
        barrier.wait()
        client.close()
        assert opening.exception() is None or isinstance(opening.exception(), Closed)
        assert not local_queue._tables


@pytest.mark.parametrize("path", ["jobs.db", "jobs.sqlite3", "/var/lib/jobs", Path("jobs.db")])
def test_a_path_is_refused_with_the_client_that_keeps_queues_in_a_file(path: object) -> None:
    """Or its jobs would be gone with the process, and nobody would have been told."""
    with pytest.raises(InvalidName, match=r"is a path: .* use SQLiteClient\('"):
        LocalClient(path)  # type: ignore[arg-type]
