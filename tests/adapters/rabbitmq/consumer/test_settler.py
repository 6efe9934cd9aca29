"""Settling while the broker takes no messages, and what becomes of jobs that nobody was given."""

import logging
from types import SimpleNamespace
from typing import Any

from mindtrace.jobs.adapters.rabbitmq.consumer.channel import Arrival, Subscription
from mindtrace.jobs.adapters.rabbitmq.consumer.settler import Settler
from mindtrace.jobs.adapters.rabbitmq.message import DeliveryHistory
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.frames import Properties
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, SendState


class Line:
    """A channel that breaks as something is acknowledged."""

    generation, is_open, standing = 1, True, 0
    arrivals: tuple[()] = ()

    def count(self, *_: Any) -> None: ...

    def request(self, *_: Any) -> int:
        return 0

    def settle(self, *_: Any, **__: Any) -> bool:
        raise ConnectionBroken(OSError("cut"))


class Publisher:
    is_blocked = True

    def offer(self, names: Names, messages: list[Outgoing]) -> None:
        for message in messages:
            message.state = SendState.UNSENT if self.is_blocked else SendState.CONFIRMED


def settler_of(line: Line, publisher: Publisher) -> Settler:
    return Settler(
        SimpleNamespace(retry_timeout_s=1.0),  # type: ignore[arg-type]
        Names("test", "jobs"),
        line,  # type: ignore[arg-type]
        SimpleNamespace(after_settling=lambda take: (None, 0)),  # type: ignore[arg-type]
        publisher,  # type: ignore[arg-type]
        logging.getLogger(__name__),
    )


def job_of(tag: int) -> tuple[Arrival, Outgoing]:
    job = Arrival(Subscription("tag", 1), 1, tag, False, None, b"{}", f"job-{tag}", DeliveryHistory(), "")
    return job, Outgoing("jobs", Properties(job.id, None), b"{}")


def test_a_job_that_nobody_was_given_is_lost_for_nobody() -> None:
    """The caller settles none, so none of its settlements is lost."""
    publisher = Publisher()
    settler = settler_of(Line(), publisher)
    job, message = job_of(1)
    settler.put_back([job], [message])
    assert settler.returning == 1
    publisher.is_blocked = False

    assert settler.settle([], [], [], 0) == ([], [], None)
    assert settler.returning == 0


class Listens(Line):
    """Notes what is acknowledged, and what is to be delivered again."""

    def __init__(self) -> None:
        self.done: list[Arrival] = []
        self.returns: list[Arrival] = []

    def settle(self, done: list[Arrival], returns: list[Arrival], *_: Any, **__: Any) -> bool:  # type: ignore[override]
        self.done += done
        self.returns += returns
        return True


def test_a_job_whose_message_is_in_its_queue_is_not_delivered_again_at_the_close() -> None:
    """It would run twice. One whose message isn't there is (CON-1)."""
    line = Listens()
    settler = settler_of(line, Publisher())
    (there, confirmed), (here, unsent) = job_of(1), job_of(2)
    confirmed.state, unsent.state = SendState.CONFIRMED, SendState.UNSENT
    settler.put_back_later(there, confirmed)
    settler.put_back_later(here, unsent)

    settler.give_up()

    assert (line.done, line.returns, settler.returning) == ([there], [here], 0)
