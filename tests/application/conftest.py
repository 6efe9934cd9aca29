"""A backend whose line breaks when a test says so: real queues, and real refusals."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mindtrace.jobs import (
    ConsumerBackend,
    JobSchema,
    LocalClient,
    Orchestrator,
    PublishOutcome,
    PublishStatus,
    Queue,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Delivery, Message, QueueCounts, Settled, Settlement, SettleOutcome
from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent


class Line:
    """What stands between the application and the queues, and what went over it."""

    def __init__(self) -> None:
        self.breaks: defaultdict[str, int] = defaultdict(int)
        """How many of the next calls fail, by the name of the method."""
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[[], object]] = {}
        """What to do before a call, by the name of the method."""
        self.is_the_lease = False
        """Whether the broker gives no lease besides."""

    def carry(self, method: str) -> None:
        self.before.get(method, lambda: None)()
        self.calls[method] += 1
        if self.breaks[method]:
            self.breaks[method] -= 1
            raise BackendUnavailable(f"the line broke during {method}")


class LineConsumer(ConsumerBackend):
    """A consumer backend at the other end of a line."""

    def __init__(self, inner: ConsumerBackend, line: Line) -> None:
        super().__init__()
        self.inner = inner
        self.line = line

    @property
    def lease_s(self) -> float | None:
        return None if self.line.is_the_lease else self.inner.lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        self.line.carry("receive")
        return self.inner.receive(max_jobs, timeout_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        try:
            self.line.carry("settle")
        except BackendUnavailable:
            if self.line.is_the_lease:
                return Settled([SettleOutcome.LOST] * len(settlements), [])
            raise
        return self.inner.settle(settlements, take=take)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self.line.carry("extend")
        return self.inner.extend(receipts)

    def release_ahead(self) -> None:
        self.line.carry("release_ahead")

    def interrupt(self) -> None:
        self.inner.interrupt()

    def close(self) -> None:
        self.inner.close()


class LineClient(LocalClient):
    """Queues in memory at the other end of a line, on a clock of their own."""

    def __init__(self, line: Line, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.line = line

    def open_consumer(self, queue: str, **settings: Any) -> LineConsumer:
        return LineConsumer(super().open_consumer(queue, **settings), self.line)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        try:
            self.line.carry("publish")
        except BackendUnavailable as error:  # after the jobs went out, before the confirm came back
            super().publish(queue, messages)
            return [PublishOutcome(message.id, PublishStatus.UNKNOWN, error) for message in messages]
        return super().publish(queue, messages)

    def declare(self, queue: Queue) -> None:
        self.line.carry("declare")
        super().declare(queue)

    def counts(self, queue: str) -> QueueCounts:
        self.line.carry("counts")
        return super().counts(queue)


@pytest.fixture
def clock() -> ManualClock:
    """The broker's time, which stands still until a test moves it."""
    return ManualClock()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def far(line: Line, clock: ManualClock, schema: JobSchema[Any, Any]) -> Iterator[Orchestrator]:
    """An orchestrator whose queues are at the other end of ``line``, and live by ``clock``."""
    with LineClient(line, clock) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(schema)
        yield orchestrator


@pytest.fixture
def never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a job runs, what waits behind it isn't given back."""
    monkeypatch.setattr("mindtrace.jobs.application.consuming.sequential_loop.SLOW_S", 3600.0)


@pytest.fixture
def never_early(never_slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a batch takes, none of its jobs is settled before its end."""
    monkeypatch.setattr("mindtrace.jobs.application.consuming.settle_timer.monotonic", lambda: 0.0)


@pytest.fixture
def heartbeat(line: Any, eventually: Any) -> Callable[..., None]:
    """Wait until so many heartbeats that began after now are over: until the one after them has begun."""

    def wait(count: int = 1) -> None:
        begun = line.calls["extend"]
        eventually(lambda: line.calls["extend"] > begun + count)

    return wait


class _JustMissed(SignalSafeEvent):
    def wait(self, seconds: float | None = None) -> bool:
        super().wait()
        return False


@pytest.fixture
def just_missed() -> type[SignalSafeEvent]:
    """An event that is always set just after a wait for it has timed out."""
    return _JustMissed
