"""The lock of a publisher, under interrupts that come between any two steps."""

import threading
from typing import Any
from unittest.mock import MagicMock

import pytest

from mindtrace.jobs.adapters.redis.publisher import Publisher
from mindtrace.jobs.domain.errors import UsageError
from mindtrace.jobs.ports import Message

MESSAGE = Message("job", b"{}")


class InterruptedLock:
    """A lock that is taken, and then a signal handler raises."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.interrupts = 1

    def acquire(self, *args: Any, **options: Any) -> bool:
        taken: bool = self.inner.acquire(*args, **options)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return taken

    def release(self) -> None:
        self.inner.release()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    publisher = Publisher(MagicMock())
    monkeypatch.setattr(publisher, "_publish_chunk", lambda messages, timeout_s: [])
    return publisher


def test_an_interrupt_just_after_the_lock_was_taken_leaves_it_free(publisher: Publisher) -> None:
    lock: Any = publisher._lock
    publisher._lock = InterruptedLock(lock)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        publisher.publish([MESSAGE])

    others: list[object] = []
    thread = threading.Thread(target=lambda: others.append(publisher.publish([MESSAGE])))
    thread.start()
    thread.join(60)
    assert others == [[]]


def test_a_signal_handler_that_publishes_while_it_interrupts_a_publish_is_refused(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for what it interrupted; and the publish that it interrupted goes on."""
    answers: list[object] = []

    def interrupted(messages: object, timeout_s: object) -> list[Any]:
        with pytest.raises(UsageError, match="publish later"):
            publisher.publish([MESSAGE])
        answers.append("sent")
        return []

    monkeypatch.setattr(publisher, "_publish_chunk", interrupted)
    publisher.publish([MESSAGE])
    publisher.publish([MESSAGE])
    assert answers == ["sent", "sent"]
