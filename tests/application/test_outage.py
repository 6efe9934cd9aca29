"""A backend that is away for a while is ridden out, and what it costs is told (CON-1)."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Orchestrator, QueueCounts, RetryPolicy
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.errors import BackendUnavailable, Closed

MakeConsumer = Callable[..., Consumer]
LEASE_S = 0.12


def test_receiving_rides_an_outage_out(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Tried again with backoff until it is back, and told once each way (CON-1)."""
    far.publish_batch("points", [{}, {}])
    line.breaks["receive"] = 3

    with caplog.at_level(logging.WARNING):
        assert make_consumer(to=far).consume(2) == 2

    assert [record.getMessage() for record in caplog.records] == [
        "backend unavailable, retrying until it is back: the line broke during receive",
        "backend is back after 3 tries",
    ]


def test_until_empty_rides_an_outage_out_as_well(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """Whichever call it hits, the count included (CON-1)."""
    far.publish_batch("points", [{}, {}])
    line.breaks["receive"] = 1
    line.breaks["counts"] = 1
    line.before["counts"] = lambda: clock.advance(5)

    assert make_consumer(to=far, poll_timeout_s=0).consume_until_empty() == 2
    assert line.calls["counts"] == 2


def test_a_stop_ends_the_wait_for_a_backend_that_is_away(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, background: Any, eventually: Any
) -> None:
    """A worker can be shut down while its broker is (CON-1)."""
    line.breaks["receive"] = 1_000_000
    consumer = make_consumer(to=far)
    consuming = background(consumer.consume)
    eventually(lambda: line.calls["receive"] >= 3)

    consumer.stop()

    assert consuming.result() == 0


@pytest.mark.usefixtures("never_early")
def test_a_settlement_is_sent_again_until_the_broker_answers_it(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """No finished job runs again, and the outage is told once each way (CON-1)."""
    far.publish_batch("points", [{"x": n} for n in range(4)])
    seen: list[float] = []
    consumer = make_consumer(lambda job: seen.append(job.payload.x), to=far, prefetch=3)
    line.breaks["settle"] = 3

    with caplog.at_level(logging.WARNING):
        assert consumer.consume(4) == 4

    assert seen == [0, 1, 2, 3]
    assert (consumer.stats.lost, consumer.stats.done) == (0, 4)
    assert far.counts("points") == QueueCounts(0, 0, 0, 0)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == [
        "backend unavailable, retrying until it is back: the line broke during settle",
        "backend is back after 3 tries",
    ]


@pytest.mark.usefixtures("never_early")
def test_the_lease_of_a_finished_job_is_kept_until_its_settlement_is_answered(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer, heartbeat: Any
) -> None:
    """An outage of several leases that hits only settlements costs no lease, and no crash (LSE-3, RTY-3)."""
    far.publish_batch("points", [{}, {}])
    line.breaks["settle"] = 4

    def half_a_lease_later() -> None:
        clock.advance(LEASE_S / 2)
        heartbeat()

    line.before["settle"] = half_a_lease_later
    consumer = make_consumer(to=far, prefetch=2, lease_s=LEASE_S)

    assert consumer.consume(2) == 2
    assert (consumer.stats.done, consumer.stats.lost) == (2, 0)


def test_a_settlement_whose_lease_ended_during_an_outage_is_lost(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """The broker decides, once it is back, and the job runs again (LSE-2, LSE-4)."""
    far.publish("points", {"x": 1})
    seen: list[float] = []
    line.breaks["settle"] = 1
    line.before["settle"] = lambda: clock.advance(31)
    consumer = make_consumer(lambda job: seen.append(job.payload.x), to=far, lease_s=30.0)
    consumer.consume(1)
    assert (consumer.stats.done, consumer.stats.lost) == (0, 1)

    line.before.clear()
    consumer.consume(1)
    assert seen == [1, 1]
    assert consumer.stats.done == 1


def test_a_settlement_is_lost_with_the_connection_that_was_its_lease(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """There is nobody to ask again; the consumer goes on with what comes next (LSE-4, CON-1)."""
    far.publish_batch("points", [{}, {}])
    line.is_the_lease = True
    line.breaks["settle"] = 1
    consumer = make_consumer(to=far, prefetch=1)

    assert consumer.consume(2) == 2
    assert (consumer.stats.done, consumer.stats.lost) == (1, 1)


@pytest.mark.usefixtures("never_slow")
def test_jobs_whose_leases_stand_are_started_while_the_broker_is_away(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """Of a batch, only the first attempt to settle holds them up."""
    far.publish_batch("points", [{"x": n} for n in range(4)])
    when: list[tuple[float, int]] = []

    def work(job: Any) -> None:
        when.append((job.payload.x, line.calls["settle"]))
        time.sleep(0.06)  # more than settlements are put off to share a round trip

    line.breaks["settle"] = 2
    consumer = make_consumer(work, to=far, prefetch=4)

    assert consumer.consume(4) == 4
    assert when == [(0, 0), (1, 1), (2, 1), (3, 1)]
    assert consumer.stats.done == 4


def test_a_job_that_may_kill_its_consumer_is_not_started_while_others_can_not_be_released(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """If it did kill it, those behind it would be charged with a crash (RTY-3)."""
    suspect, *others = [handle.id for handle in far.publish_batch("points", [{}, {}, {}])]
    for _ in range(2):
        far.backend.open_consumer("points", lease_s=1).receive(1, 0)
        clock.advance(1)
    in_hand: list[tuple[str, int | None]] = []

    def look(job: Any) -> None:
        in_hand.append((job.id, far.counts("points").in_flight))

    line.breaks["settle"] = 2
    consumer = make_consumer(look, to=far, prefetch=3)

    assert consumer.consume(3) == 3
    assert in_hand[0] == (suspect, 1)
    assert sorted(id_ for id_, _ in in_hand[1:]) == sorted(others)
    assert (consumer.stats.done, consumer.stats.lost) == (3, 0)


def stop_during_an_outage(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> tuple[Consumer, list[float]]:
    """Let a consumer finish one job of three and stop, with nobody there to settle it."""
    far.publish_batch("points", [{"x": n} for n in range(3)])
    seen: list[float] = []

    def stop(job: Any) -> None:
        seen.append(job.payload.x)
        if len(seen) == 1:
            line.breaks["settle"] = 1_000_000
            consumer.stop()

    consumer = make_consumer(stop, to=far, prefetch=3, poll_timeout_s=0)
    assert consumer.consume() == 1
    line.breaks.clear()
    return consumer, seen


@pytest.mark.usefixtures("never_slow")
def test_an_outage_while_stopping_is_told_and_not_raised(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is settled yet, and nothing lost."""
    consumer, _ = stop_during_an_outage(far, line, make_consumer)

    assert (consumer.stats.done, consumer.stats.lost, consumer.stats.released) == (0, 0, 0)
    assert "the broker is away: kept 3 settlements" in caplog.text


@pytest.mark.usefixtures("never_slow")
def test_what_an_outage_left_in_hand_is_settled_by_the_next_consume(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """First of all: the finished job is done, and the others come again."""
    consumer, seen = stop_during_an_outage(far, line, make_consumer)

    assert consumer.consume(2) == 2
    assert seen == [0, 1, 2]
    assert (consumer.stats.done, consumer.stats.lost, consumer.stats.released) == (3, 0, 2)


def test_what_an_outage_left_in_hand_is_settled_by_close(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """The finished job is done, the others are ready again, and no crash is charged (SET-4)."""
    consumer, _ = stop_during_an_outage(far, line, make_consumer)
    consumer.close()

    assert far.counts("points") == QueueCounts(2, 0, 0, 0)
    deliveries = far.backend.open_consumer("points").receive(3, 0)
    assert [delivery.crashes for delivery in deliveries] == [0, 0]


def test_close_ends_while_the_broker_is_away(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """What it can't settle comes back when the leases end (CON-2, LSE-1)."""
    consumer, _ = stop_during_an_outage(far, line, make_consumer)
    line.breaks["settle"] = 1

    consumer.close()

    assert far.counts("points").in_flight == 0, "the queue itself was there, and took the jobs back"


def test_close_ends_the_wait_of_a_consume_for_a_broker_that_is_away(
    far: Orchestrator,
    line: Any,
    make_consumer: MakeConsumer,
    background: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It doesn't wait out its backoff, at the end of which it would see that it is closed."""
    monkeypatch.setattr(RetryPolicy, "delay_s", lambda _policy, _tries: 120.0)
    consumer = make_consumer(to=far)
    line.breaks["receive"] = 1
    consuming = background(consumer.consume)
    eventually(lambda: not line.breaks["receive"])

    consumer.close()
    assert isinstance(consuming.exception(60), Closed)


def test_an_interrupt_while_settling_forgets_no_settlement(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """It may have come before or after the broker did its part: the broker is asked again."""
    far.publish("points", {})
    consumer = make_consumer(to=far)

    def interrupt() -> None:
        line.before.clear()
        raise KeyboardInterrupt

    line.before["settle"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        consumer.consume()

    assert (consumer.stats.done, consumer.stats.lost) == (1, 0)


def test_an_outage_while_an_interrupt_passes_hides_neither(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """A second signal still ends the program (CON-1)."""
    far.publish_batch("points", [{"x": 1}, {"x": 2}])

    def interrupted(job: Any) -> None:
        if job.payload.x == 2:
            line.breaks["settle"] = 2
            raise SecondSignal

    with pytest.raises(KeyboardInterrupt):
        make_consumer(interrupted, to=far, prefetch=2).consume()


def test_other_calls_say_that_the_backend_is_away(far: Orchestrator, line: Any) -> None:
    """Only a consumer waits for it; a caller decides for itself."""
    line.breaks["counts"] = 1

    with pytest.raises(BackendUnavailable):
        far.counts("points")
    assert far.counts("points").ready == 0
