"""What is sent again, and how often, by what the broker says of each message."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from mindtrace.jobs.adapters.rabbitmq import publisher as publisher_module
from mindtrace.jobs.adapters.rabbitmq.delays import DelayLevels
from mindtrace.jobs.adapters.rabbitmq.publisher import Publisher
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport.broker import Broker
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, SendState
from mindtrace.jobs.ports import Message, PublishStatus

NAMES = Names("n", "q")


class FakeBroker:
    retry_timeout_s = 3600.0

    def retry(self, call: Any) -> Any:
        return call(self.retry_timeout_s)


class Trial:
    """A publisher, and a broker that answers each send of a message by the next of ``answers``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: SendState) -> None:
        self.answers = list(answers)
        self.said: list[str] = []
        self.blocked = self.broken_by = self.blocked_when_broken = None
        monkeypatch.setattr(publisher_module, "PublishConnection", lambda _broker: self)
        self.publisher = Publisher(cast(Broker, FakeBroker()), self._make_levels)

    def send(self, messages: Sequence[Outgoing], _timeout_s: float) -> None:
        for message in messages:
            self.said.append(f"send {message.properties.message_id}")
            message.state = self.answers.pop(0)

    def _make_levels(self, levels: DelayLevels, top: int) -> None:
        self.said.append(f"make {levels.level(top)}")


@pytest.mark.parametrize("said", [SendState.REFUSED, SendState.UNROUTABLE])
def test_a_delayed_job_whose_delay_queue_was_deleted_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, said: SendState
) -> None:
    """RabbitMQ refuses it while it deletes the queue, and returns it afterwards."""
    trial = Trial(monkeypatch, said, SendState.CONFIRMED)

    (outcome,) = trial.publisher.publish(NAMES, [Message("a", b"{}", delay_s=0.1)])

    assert (outcome.status, outcome.error) == (PublishStatus.ACCEPTED, None)
    assert trial.said == ["send a", "make mtj:n/q:delay.0", "send a"]


def test_only_what_was_refused_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confirmed isn't, nor what may have arrived; the others are, under their ids."""
    trial = Trial(monkeypatch, SendState.CONFIRMED, SendState.REFUSED, SendState.UNKNOWN, SendState.CONFIRMED)

    outcomes = trial.publisher.publish(NAMES, [Message(id_, b"{}", delay_s=0.1) for id_ in "abc"])

    accepted, unknown = PublishStatus.ACCEPTED, PublishStatus.UNKNOWN
    assert [outcome.status for outcome in outcomes] == [accepted, accepted, unknown]
    assert trial.said == ["send a", "send b", "send c", "make mtj:n/q:delay.0", "send b"]


def test_a_full_delay_queue_refuses_a_job_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't sent again until the time is up, which an hour would be here."""
    trial = Trial(monkeypatch, *[SendState.REFUSED] * 10)

    (outcome,) = trial.publisher.publish(NAMES, [Message("a", b"{}", delay_s=0.1)])

    assert outcome.status is PublishStatus.REJECTED
    assert "full" in str(outcome.error)
    assert trial.said.count("send a") == 4


def test_a_job_without_a_delay_that_is_refused_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(monkeypatch, SendState.REFUSED)

    (outcome,) = trial.publisher.publish(NAMES, [Message("a", b"{}")])

    assert outcome.status is PublishStatus.REJECTED
    assert trial.said == ["send a"]
