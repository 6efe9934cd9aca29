"""A backend that is away for a while is ridden out, and what it costs is told (CON-1)."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Orchestrator
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.shutdown import SecondSignal
from mindtrace.jobs.domain.errors import BackendUnavailable

MakeConsumer = Callable[..., Consumer]


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


def test_settlements_that_could_not_be_sent_are_lost_and_run_again(
    far: Orchestrator, line: Any, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """At least once: what ran is counted as lost, and the jobs come back when their leases end (LSE-1)."""
    far.publish_batch("points", [{"x": n} for n in range(3)])
    seen: list[float] = []
    consumer = make_consumer(lambda job: seen.append(job.payload.x), to=far, prefetch=3)
    line.breaks["settle"] = 1

    assert consumer.consume(3) == 3

    assert (consumer.stats.lost, consumer.stats.done) == (3, 0)
    clock.advance(30)
    assert consumer.consume(3) == 3
    assert seen == [0, 1, 2, 0, 1, 2]
    assert (consumer.stats.lost, consumer.stats.done) == (3, 3)


def test_an_outage_while_stopping_is_told_and_not_raised(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """What couldn't be released comes back with its lease."""
    far.publish_batch("points", [{}, {}, {}])

    def stop(job: Any) -> None:
        consumer.stop()
        line.before["settle"] = lambda: line.breaks.update(settle=line.calls["settle"])

    consumer = make_consumer(stop, to=far, prefetch=3)

    assert consumer.consume() == 1
    assert consumer.stats.done == 1
    assert "2 jobs not released; their leases will run out: the line broke" in caplog.text


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
