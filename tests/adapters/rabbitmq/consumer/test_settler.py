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


def test_a_job_that_nobody_was_given_is_lost_for_nobody() -> None:
    """The caller settles none, so none of its settlements is lost."""
    publisher = Publisher()
    settler = Settler(
        SimpleNamespace(retry_timeout_s=1.0),  # type: ignore[arg-type]
        Names("test", "jobs"),
        Line(),  # type: ignore[arg-type]
        SimpleNamespace(after_settling=lambda take: (None, 0)),  # type: ignore[arg-type]
        publisher,  # type: ignore[arg-type]
        logging.getLogger(__name__),
    )
    job = Arrival(Subscription("tag", 1), 1, 1, False, None, b"{}", "job", DeliveryHistory(), "")
    settler.put_back([job], [Outgoing("jobs", Properties("job", None), b"{}")])
    assert settler.has_returning
    publisher.is_blocked = False

    assert settler.settle([], [], [], 0) == ([], [], None)
    assert not settler.has_returning
