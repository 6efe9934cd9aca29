"""A queue in memory on a clock that stands still until it is moved."""

from collections.abc import Callable, Iterator

import pytest

from mindtrace.jobs import LocalClient, LocalConsumerBackend, Queue
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.queue import LocalQueue
from mindtrace.jobs.ports import Message, PublishStatus


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(clock: ManualClock) -> Iterator[LocalClient]:
    """A client with the queue ``points`` declared, in the place of the one on the machine's clock."""
    with LocalClient(clock=clock) as client:
        client.declare(Queue("points"))
        yield client


@pytest.fixture
def local_queue(client: LocalClient) -> LocalQueue:
    return client._queue("points")


@pytest.fixture
def consumer(client: LocalClient) -> LocalConsumerBackend:
    return client.open_consumer("points", lease_s=10)


@pytest.fixture
def put(client: LocalClient) -> Callable[..., None]:
    """Publish jobs by their ids."""

    def put(*ids: str, delay_s: float = 0.0, queue: str = "points") -> None:
        outcomes = client.publish(queue, [Message(id_, b"{}", delay_s=delay_s) for id_ in ids])
        assert [outcome.status for outcome in outcomes] == [PublishStatus.ACCEPTED] * len(ids)

    return put
