"""What is in hand: leases are kept while a handler runs, lost ones told, and nothing waits behind a slow job.

The broker's clock stands still here until a test moves it; the heartbeat runs in real time.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mindtrace.jobs import Consumer, ConsumerBackend, Orchestrator, RetryPolicy
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.consuming import lease_renewer
from mindtrace.jobs.application.consuming.in_flight import InFlight
from mindtrace.jobs.application.gates.gated_consumer import GatedConsumer
from mindtrace.jobs.ports import Ack, SettleOutcome
from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent

MakeConsumer = Callable[..., Consumer]
LEASE_S = 0.12


@pytest.mark.usefixtures("never_slow")
@pytest.mark.parametrize(("prefetch", "beats"), [(1, 6), (3, 3)])
def test_a_heartbeat_keeps_the_lease_however_long_a_handler_runs(
    far: Orchestrator,
    clock: ManualClock,
    make_consumer: MakeConsumer,
    heartbeat: Any,
    prefetch: int,
    beats: int,
) -> None:
    """Leases later, the job and those behind it are still this consumer's alone (LSE-3, RCV-3)."""
    far.publish_batch("points", [{"x": n} for n in range(prefetch)])
    seen: list[float] = []

    def slow(job: Any) -> None:
        seen.append(job.payload.x)
        for _ in range(beats if job.payload.x == 0 else 0):
            clock.advance(LEASE_S / 2)
            heartbeat()
            assert far.counts("points").ready == 0

    consumer = make_consumer(slow, to=far, lease_s=LEASE_S, prefetch=prefetch)
    consumer.consume(prefetch)

    assert seen == list(range(prefetch))
    assert (consumer.stats.done, consumer.stats.lost) == (prefetch, 0)


def test_a_heartbeat_that_fails_is_tried_again_before_the_lease_ends(
    far: Orchestrator, clock: ManualClock, line: Any, make_consumer: MakeConsumer, heartbeat: Any
) -> None:
    """A moment's outage costs no lease (LSE-3)."""
    far.publish("points", {})

    def slow(job: Any) -> None:
        clock.advance(0.9 * LEASE_S)
        line.breaks["extend"] = 1
        heartbeat(2)  # the one that fails, and the next
        clock.advance(0.9 * LEASE_S)

    consumer = make_consumer(slow, to=far, lease_s=LEASE_S)
    consumer.consume(1)

    assert (consumer.stats.done, consumer.stats.lost) == (1, 0)


def test_a_lost_lease_is_told_to_the_handler_and_counted(
    far: Orchestrator,
    clock: ManualClock,
    make_consumer: MakeConsumer,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ack under the stale receipt changes nothing, and the job runs again (LSE-2, LSE-4)."""
    job_id = far.publish("points", {})
    told: list[bool] = []

    def pause(job: Any) -> None:
        told.append(consumer.lease_lost)
        clock.advance(10 * LEASE_S)
        eventually(lambda: consumer.lease_lost)
        told.append(consumer.lease_lost)

    consumer = make_consumer(pause, to=far, lease_s=LEASE_S)
    assert consumer.consume(1) == 1

    assert told == [False, True]
    assert (consumer.stats.attempted, consumer.stats.lost, consumer.stats.done) == (1, 1, 0)
    assert f"job {job_id}: its lease was lost before it was settled" in caplog.text
    again: list[tuple[int, bool]] = []
    other = make_consumer(lambda job: again.append((job.attempt, other.lease_lost)), to=far)
    other.consume(1)
    assert again == [(1, False)]
    assert other.stats.done == 1


@pytest.fixture
def stand_still(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> Callable[..., None]:
    """Let time pass at once, as for a process that was stopped: no heartbeat comes in between."""
    passed_s = 0.0

    def stop(seconds: float, broker_s: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        clock.advance(broker_s)

    monkeypatch.setattr(
        "mindtrace.jobs.application.consuming.in_flight.monotonic", lambda: time.monotonic() + passed_s
    )
    return stop


@pytest.mark.usefixtures("never_slow")
@pytest.mark.parametrize(
    ("broker_s", "line_breaks", "run"),
    [(61.0, 0, [1]), (59.0, 0, [1, 2, 3]), (61.0, 1, [1]), (59.0, 1, [1, 2, 3])],
    ids=["lost", "kept", "lost while nobody answered", "released once somebody answered"],
)
def test_a_worker_that_stood_still_for_a_lease_starts_only_what_is_still_its_own(
    far: Orchestrator,
    line: Any,
    make_consumer: MakeConsumer,
    stand_still: Callable[..., None],
    broker_s: float,
    line_breaks: int,
    run: list[float],
) -> None:
    """It asks before it starts what waited, for the broker's clock decides (LSE-5, RCV-3)."""
    far.publish_batch("points", [{"x": 1}, {"x": 2}, {"x": 3}])
    seen: list[float] = []

    def stopped(job: Any) -> None:
        seen.append(job.payload.x)
        if len(seen) == 1:
            line.breaks["extend"] = line_breaks
            stand_still(61.0, broker_s)
            others.extend(far.backend.open_consumer("points").receive(3, 0))

    others: list[Any] = []
    consumer = make_consumer(stopped, to=far, lease_s=60.0, prefetch=3, poll_timeout_s=0)
    consumer.consume(3)

    assert seen == run
    assert len(others) == (3 if broker_s > 60 else 0)


@pytest.mark.usefixtures("never_slow")
def test_a_job_that_was_lost_while_it_waited_is_not_started(
    far: Orchestrator, clock: ManualClock, make_consumer: MakeConsumer, heartbeat: Any
) -> None:
    """It is known to be someone else's by now (RCV-3)."""
    far.publish_batch("points", [{"x": 1}, {"x": 2}])
    seen: list[float] = []

    def pause(job: Any) -> None:
        seen.append(job.payload.x)
        if len(seen) == 1:
            clock.advance(10 * LEASE_S)
            heartbeat()  # after which the loss of both is known
            assert consumer.lease_lost
            # From here on they are another consumer's.
            other = far.backend.open_consumer("points")
            taken.extend(other.receive(2, 0))

    taken: list[Any] = []
    consumer = make_consumer(pause, to=far, lease_s=LEASE_S, prefetch=2, poll_timeout_s=0)

    assert consumer.consume(2) == 1
    assert seen == [1]
    assert [delivery.crashes for delivery in taken] == [1, 1]


def test_jobs_behind_a_slow_one_are_given_to_another_consumer(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """Within about a second, in order, and without spending an attempt (SET-4)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(4)])
    running, finish = threading.Event(), threading.Event()

    def slow(job: Any) -> None:
        running.set()
        finish.wait()

    consumer = make_consumer(slow, prefetch=4)
    consuming = background(consumer.consume)
    running.wait()
    seen: list[tuple[float, int]] = []
    other = make_consumer(lambda job: seen.append((job.payload.x, job.attempt)), poll_timeout_s=60)
    assert other.consume(3) == 3
    consumer.stop()
    finish.set()

    assert consuming.result() == 1
    assert seen == [(1, 1), (2, 1), (3, 1)]
    assert (consumer.stats.done, consumer.stats.released) == (1, 3)


def test_given_back_jobs_do_not_count_and_are_fetched_again(
    far: Orchestrator, make_consumer: MakeConsumer, eventually: Any, request: pytest.FixtureRequest
) -> None:
    """``num_messages`` is met exactly, though what was taken at first was given back (SET-4)."""
    far.publish_batch("points", [{"x": n} for n in range(5)])
    seen: list[float] = []

    def slow_at_first(job: Any) -> None:
        seen.append(job.payload.x)
        if len(seen) == 1:
            eventually(lambda: far.counts("points").ready == 4)
            request.getfixturevalue("never_slow")  # the others are quick, whatever the machine takes

    consumer = make_consumer(slow_at_first, to=far, prefetch=3)

    assert consumer.consume(3) == 3
    assert seen == [0, 1, 2]
    assert consumer.stats.released == 2


def test_what_is_on_its_way_to_a_slow_job_s_consumer_is_given_back_as_well(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, eventually: Any
) -> None:
    """Though nothing waits in hand: what the broker sent ahead, the consumer doesn't see."""
    far.publish("points", {})

    consumer = make_consumer(lambda job: eventually(lambda: line.calls["release_ahead"]), to=far)

    assert consumer.consume(1) == 1


@pytest.mark.usefixtures("never_slow")
def test_a_job_that_may_kill_its_consumer_has_nothing_on_its_way_behind_it(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """What the broker sent ahead would be counted as crashed with it (RTY-3)."""
    far.publish("points", {})
    for _ in range(2):
        far.backend.open_consumer("points", lease_s=1).receive(1, 0)
        clock.advance(1)
    before: list[int] = []

    consumer = make_consumer(lambda job: before.append(line.calls["release_ahead"]), to=far)
    consumer.consume(1)

    assert before == [1]


def test_jobs_that_could_not_be_released_are_released_once_the_broker_is_back(
    far: Orchestrator,
    line: Any,
    make_consumer: MakeConsumer,
    eventually: Any,
    request: pytest.FixtureRequest,
) -> None:
    """Before more are taken, so that they keep their places, and ``num_messages`` is met exactly (SET-4)."""
    far.publish_batch("points", [{"x": n} for n in range(6)])
    seen: list[float] = []

    def slow_at_first(job: Any) -> None:
        seen.append(job.payload.x)
        if len(seen) == 1:
            line.breaks["settle"] = 1
            eventually(lambda: line.calls["settle"])
            request.getfixturevalue("never_slow")  # the others are quick, whatever the machine takes

    consumer = make_consumer(slow_at_first, to=far, prefetch=3)

    assert consumer.consume(3) == 3
    assert seen == [0, 1, 2]
    assert far.counts("points").in_flight == 0
    assert (consumer.stats.released, consumer.stats.lost) == (2, 0)


def test_a_crash_is_counted_and_a_release_is_not(
    far: Orchestrator, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """Five deliveries that end without a settlement are the end of a job; nothing else is (RTY-3)."""
    far.publish("points", {})
    for _ in range(5):
        far.backend.open_consumer("points", lease_s=1).receive(1, 0)
        clock.advance(1)
        released = far.backend.open_consumer("points")
        released.receive(1, 0)
        released.close()

    consumer = make_consumer(to=far)
    consumer.consume(1)

    (letter,) = far.dead_letters("points")
    assert (letter.reason, letter.crashes, letter.attempt) == ("crash budget exhausted", 5, 1)
    assert far.redrive("points") == 1
    consumer.consume(1)
    assert consumer.stats.done == 1


def test_a_consumer_that_ends_leaves_no_thread(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """That of leases ends with the call that needed it, those of signals and of pauses soon (CON-2)."""
    during: set[threading.Thread] = set()
    orchestrator.publish("points", {})
    before = {*threading.enumerate()}

    make_consumer(lambda job: during.update(threading.enumerate())).consume(1)

    names = {thread.name.removeprefix("mindtrace-jobs-") for thread in during}
    assert names >= {"leases", "signals", "pauses"}
    left = {*threading.enumerate()} - before
    assert {thread.name for thread in left} <= {"mindtrace-jobs-pauses", "mindtrace-jobs-signals"}
    for thread in left:
        thread.join()


def test_a_receipt_is_good_for_one_settlement(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """A handler's job that another settled meanwhile is not counted as lost (SET-1)."""
    orchestrator.publish("points", {})
    local_queue = orchestrator.backend._queue("points")

    def settle_behind_its_back(job: Any) -> None:
        ((receipt, _),) = next(iter(local_queue._tables._tables.values())).held.items()
        assert consumer.consumer_backend.settle([Ack(receipt)]).outcomes == [SettleOutcome.OK]

    consumer = make_consumer(settle_behind_its_back)
    consumer.consume(1)

    assert (consumer.stats.done, consumer.stats.lost) == (1, 0)


def test_a_handler_is_told_that_the_connection_that_was_its_lease_is_gone(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer, eventually: Any
) -> None:
    """Where nothing is to be extended, the heartbeat asks all the same, at each tick (LSE-4)."""
    line.is_the_lease = True
    far.publish("points", {})
    told: list[bool] = []

    def work(job: Any) -> None:
        clock.advance(10 * LEASE_S)  # as the broker does with what a broken connection held
        eventually(lambda: consumer.lease_lost)
        told.append(consumer.lease_lost)

    consumer = make_consumer(work, to=far, lease_s=LEASE_S)
    consumer.consume(1)

    assert told == [True]
    assert consumer.stats.lost == 1


class HoldingBack(GatedConsumer):
    """A consumer backend whose limits hold back a job, and that notes what is extended."""

    held_back = 1

    def __init__(self, inner: ConsumerBackend) -> None:
        super().__init__(inner, [])
        self.extended: list[list[str]] = []

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self.extended.append(list(receipts))
        return self._inner.extend(receipts)


def test_the_heartbeat_keeps_the_leases_of_jobs_that_are_held_back_though_none_runs(
    orchestrator: Orchestrator,
) -> None:
    """The backend extends them while it receives. But that pauses for seconds after an outage."""
    backend = HoldingBack(orchestrator.backend.open_consumer("points"))
    in_flight = InFlight(backend, logging.getLogger("test"), lambda *_: Ack(""), RetryPolicy())
    in_flight.extend()
    assert backend.extended == [[]]
    backend.held_back = 0
    in_flight.extend()
    assert backend.extended == [[]]


def test_leases_are_extended_at_once_though_it_is_asked_for_as_a_wait_ends(
    monkeypatch: pytest.MonkeyPatch, just_missed: type[SignalSafeEvent]
) -> None:
    """Else a cancellation would be seen only with the next heartbeat (CAN-2)."""
    monkeypatch.setattr(lease_renewer, "SignalSafeEvent", just_missed)
    extended = threading.Event()
    in_flight: Any = SimpleNamespace(since_extended_s=0.0, extend=extended.set)
    renewer = lease_renewer.LeaseRenewer(in_flight, 3600.0, lambda: None, logging.getLogger("test"))

    renewer.start()
    try:
        renewer.renew_now()
        assert extended.wait(60.0)
    finally:
        renewer.stop()
