"""Many schedulers that are killed at random: exactly one job a slot, on any schedule of threads."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mindtrace.jobs import Capabilities, JobSchema, LocalClient, Orchestrator, Scheduler
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.ports import Guard, Message, PublishOutcome, PublishStatus

SCHEDULERS = 8
SLOTS = 1_000
SECOND = timedelta(seconds=1)


class Killed(BaseException):
    """A scheduler is dead: nothing of it may run after this."""


class Killer:
    """Kills schedulers at random, and counts how often."""

    def __init__(self, seed: int, share: float) -> None:
        self._random, self._share, self._lock = random.Random(seed), share, threading.Lock()
        self.kills: Counter[str] = Counter()

    def may_kill(self, point: str) -> None:
        with self._lock:
            if self._random.random() >= self._share:
                return
            self.kills[point] += 1
        raise Killed(point)


class CountingClient(LocalClient):
    """Queues in memory that count what is put into them, and whose callers may die around a publish."""

    def __init__(self, clock: ManualClock, killer: Killer) -> None:
        super().__init__(clock=clock)
        self.killer = killer
        self.published: Counter[str] = Counter()

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        self.killer.may_kill("between reading and publishing")
        outcome = super().publish_guarded(queue, message, guard)
        if outcome is not None:
            self.published[message.id] += 1
            self.killer.may_kill("between publishing and the answer")
        return outcome


class BorrowingClient(CountingClient):
    """The same as a broker whose store is another system: it can't write both in one step."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, guarded_publish=False, dedupe=False)

    def publish(self, queue: str, messages: Any) -> list[PublishOutcome]:
        self.killer.may_kill("between the claim and publishing")
        for message in messages:
            self.published[message.id] += 1
        super().publish(queue, messages)
        self.killer.may_kill("between publishing and the record")
        return [PublishOutcome(message.id, PublishStatus.ACCEPTED) for message in messages]


def run_slots(client: CountingClient, clock: ManualClock, background: Any, eventually: Any) -> list[str]:
    """Run all slots with schedulers that are replaced when they are killed; return the ids of the slots."""
    jobs = Orchestrator(client)
    over = threading.Event()

    def keep_running() -> None:
        while not over.is_set():
            try:
                Scheduler(jobs, poll_s=0.002).run()
            except Killed:
                continue

    running = [background(keep_running) for _ in range(SCHEDULERS)]
    chooser = random.Random(7)
    try:
        left = SLOTS
        while left:
            step = min(left, chooser.randint(1, 40))
            clock.advance(step)
            left -= step
            now = datetime.fromtimestamp(clock.now(), UTC)
            eventually(lambda now=now: jobs.schedules.list()[0].next_slot > now)
    finally:
        over.set()
        client.close()
    for each in running:
        each.result(60)
    first = datetime.fromtimestamp(ManualClock().now(), UTC)
    return [f"tick.{first + number * SECOND:%Y%m%dT%H%M%S}Z" for number in range(1, SLOTS + 1)]


@pytest.fixture
def scheduled(
    clock: ManualClock, schema: JobSchema[Any, Any]
) -> Callable[[type[CountingClient], float], CountingClient]:
    def make(kind: type[CountingClient], share: float) -> CountingClient:
        client = kind(clock, Killer(11, share))
        jobs = Orchestrator(client)
        jobs.register(schema)
        jobs.schedule("tick", schema, every=SECOND, misfire="all")
        return client

    return make


def test_each_slot_is_published_exactly_once(
    scheduled: Any, clock: ManualClock, background: Any, eventually: Any
) -> None:
    """Dedupe plays no part: what is counted is each publish that took effect (CRD-4)."""
    client = scheduled(CountingClient, 0.1)
    slots = run_slots(client, clock, background, eventually)

    assert client.published == Counter(slots)
    assert min(client.killer.kills.values()) > 20
    assert len(client.killer.kills) == 2


def test_with_a_borrowed_store_each_slot_is_published_and_twice_only_after_a_kill(
    scheduled: Any, clock: ManualClock, background: Any, eventually: Any
) -> None:
    client = scheduled(BorrowingClient, 0.05)
    slots = run_slots(client, clock, background, eventually)

    assert client.published.keys() == set(slots)
    doubles = client.published.total() - SLOTS
    assert doubles == client.killer.kills["between publishing and the record"] > 20
