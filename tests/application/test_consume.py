"""Consuming: what is counted, when it ends, and in which order things happen."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    LocalClient,
    Observer,
    Orchestrator,
    Reject,
    Retry,
    RetryLater,
    RetryPolicy,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.consuming import sequential_loop, settle_timer
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.errors import Closed, NotConnected, QueueNotFound, UsageError
from mindtrace.jobs.ports import Message

MakeConsumer = Callable[..., Consumer]


# -- consume(num_messages) ------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 1, 3, 10])
@pytest.mark.parametrize("prefetch", [None, 1, 4])
def test_so_many_deliveries_are_attempted_and_no_more(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, wanted: int, prefetch: int | None
) -> None:
    """However many are taken at once, the rest stays in the queue, in order (RCV-1, ORD-1)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(10)])
    seen: list[float] = []
    consumer = make_consumer(lambda job: seen.append(job.payload.x), prefetch=prefetch)

    assert consumer.consume(wanted) == wanted

    assert seen == list(range(wanted))
    assert orchestrator.count_queue_messages("points") == 10 - wanted
    assert orchestrator.counts("points").in_flight == 0


@pytest.mark.usefixtures("never_early")
def test_every_attempt_counts_whatever_becomes_of_it(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """Done, retried, rejected, exhausted and undecodable deliveries are all one each (RTY-1, RCV-4)."""
    fates = [None, ValueError(), RetryLater(3600), Reject()]
    orchestrator.publish_batch("points", [{"x": n} for n in range(len(fates))])
    client.publish("points", [Message("bad", b"not JSON")])

    def meet(job: Any) -> None:
        if fate := fates[int(job.payload.x)]:
            raise fate

    consumer = make_consumer(meet, policy=RetryPolicy(base_delay_s=3600))
    assert consumer.consume(5) == 5

    stats = consumer.stats
    assert (stats.attempted, stats.done, stats.retried, stats.dead) == (5, 1, 2, 2)
    assert (stats.lost, stats.released) == (0, 0)


def test_an_attempt_of_the_same_job_counts_again(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """``num_messages`` counts deliveries, not jobs (SET-2)."""
    orchestrator.publish("points", {})
    attempts: list[int] = []

    def fail(job: Any) -> None:
        attempts.append(job.attempt)
        raise ValueError

    assert make_consumer(fail).consume(2) == 2
    assert attempts == [1, 2]
    assert orchestrator.count_queue_messages("points") == 1


def test_it_gives_up_after_a_whole_poll_without_a_job(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """What was there is done; then one poll is waited out."""
    orchestrator.publish_batch("points", [{}, {}])
    consumer = make_consumer(poll_timeout_s=0.2)

    began = time.monotonic()
    assert consumer.consume(5) == 2

    assert time.monotonic() - began >= 0.2


def test_an_interrupted_poll_is_waited_out(
    make_consumer: MakeConsumer,
    background: Any,
    eventually: Any,
    until_blocked: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sooner for the interruption, and it does end."""
    now_s, waits = 1000.0, list[float]()
    monkeypatch.setattr(sequential_loop, "monotonic", lambda: now_s)
    consumer = make_consumer(poll_timeout_s=3600)
    receive = consumer.consumer_backend.receive

    def noted(max_jobs: int, timeout_s: float) -> Any:
        waits.append(timeout_s)
        return receive(max_jobs, timeout_s)

    monkeypatch.setattr(consumer.consumer_backend, "receive", noted)
    consuming = background(consumer.consume, 1)
    for number, passed_s in enumerate((600.0, 2999.0, 1.0), 1):
        eventually(lambda number=number: len(waits) == number)
        until_blocked()
        now_s += passed_s
        consumer.consumer_backend.interrupt()

    assert consuming.result() == 0
    assert waits == [3600.0, 3000.0, 1.0]


def test_a_poll_of_no_length_takes_what_is_there(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """``poll_timeout_s=0`` never waits."""
    orchestrator.publish_batch("points", [{}, {}])

    assert make_consumer(poll_timeout_s=0).consume(5) == 2


class Polls(Observer):
    """Counts how often jobs were asked for."""

    count = 0

    def polled(self, queue: str, received: int) -> None:
        self.count += 1


def test_block_waits_however_long_it_takes(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer, background: Any, eventually: Any
) -> None:
    """Past many polls, for exactly as many as were asked for."""
    polls = Polls()
    orchestrator = Orchestrator(client, observers=[polls])
    orchestrator.register(schema)
    consumer = make_consumer(to=orchestrator, poll_timeout_s=0.01)
    consuming = background(consumer.consume, 2, block=True)
    orchestrator.publish("points", {})
    eventually(lambda: consumer.stats.done == 1)
    so_far = polls.count
    eventually(lambda: polls.count > so_far + 3)
    assert not consuming.done()

    orchestrator.publish_batch("points", [{}, {}])

    assert consuming.result() == 2
    assert orchestrator.count_queue_messages("points") == 1


@pytest.mark.parametrize(("limit", "runs"), [(None, 3), (5, 3), (2, 2), (0, 0)])
def test_without_blocking_it_takes_what_is_there(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, limit: int | None, runs: int
) -> None:
    """However long a poll is; delayed jobs stay."""
    consumer = make_consumer(poll_timeout_s=3600)
    orchestrator.publish_batch("points", [{}, {}, {}])
    orchestrator.publish("points", {}, delay_s=3600)

    assert consumer.consume(limit, block=False) == runs
    assert orchestrator.count_queue_messages("points") == 4 - runs


def test_without_a_number_blocking_is_the_default(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any, eventually: Any
) -> None:
    consumer = make_consumer(poll_timeout_s=0.01)
    consuming = [background(consumer.consume, block=True)]
    orchestrator.publish("points", {})
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()

    assert consuming[0].result() == 1


def test_a_publish_wakes_it_at_once(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any, until_blocked: Any
) -> None:
    """A blocked consumer doesn't sleep out its poll (RCV-2)."""
    consuming = background(make_consumer(poll_timeout_s=3600).consume, 1)
    until_blocked()

    orchestrator.publish("points", {})

    assert consuming.result() == 1


# -- consume_until_empty --------------------------------------------------------------------------


def test_short_jobs_that_are_followed_by_long_ones_leave_some_to_others(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that takes far longer than was planned is cut short, and the rest keeps its order (ORD-1)."""
    short, long = 3000, 100
    orchestrator.publish_batch("points", [{"x": n} for n in range(short + long)])
    seen: list[float] = []
    now_s = 1000.0
    monkeypatch.setattr(settle_timer, "monotonic", lambda: now_s)

    def run(job: Any) -> None:
        nonlocal now_s
        seen.append(job.payload.x)
        now_s += 0.01 if job.payload.x >= short else 1e-6

    consumer = make_consumer(run, prefetch=None)
    consumer.consume(short + long)

    assert seen == list(range(short + long))
    assert (consumer.stats.done, consumer.stats.lost) == (short + long, 0)
    assert consumer.stats.released > 0


def test_until_empty_runs_retries_and_delays_too(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """It waits for what is to be retried or due later, and ends when nothing waits (DLY-2, SET-2)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(5)])
    orchestrator.publish("points", {"x": 9}, delay_s=0.05)
    attempts: list[tuple[float, int]] = []

    def fail_twice(job: Any) -> None:
        attempts.append((job.payload.x, job.attempt))
        if job.attempt < 3:
            raise RetryLater(0.02)

    consumer = make_consumer(fail_twice)

    assert consumer.consume_until_empty() == 18
    assert sorted(attempts) == [(x, attempt) for x in (0, 1, 2, 3, 4, 9) for attempt in (1, 2, 3)]
    assert (consumer.stats.done, consumer.stats.retried) == (6, 12)


class Once(Consumer):
    """Fails once, and is to run again a minute later."""

    def run(self, job: Job[Any]) -> None:
        if job.attempt == 1:
            raise RetryLater(60)


class OnceAsync(Consumer):
    async def run(self, job: Job[Any]) -> None:
        if job.attempt == 1:
            raise RetryLater(60)


class OnceInBatches(BatchConsumer):
    batch_wait_s = 0.0

    def run_batch(self, jobs: Sequence[Job[Any]]) -> list[Retry | None]:
        return [Retry(60) if job.attempt == 1 else None for job in jobs]


KINDS: dict[str, tuple[type[Consumer], dict[str, Any]]] = {
    "one at a time": (Once, {}),
    "threads": (Once, {"concurrency": 3}),
    "async": (OnceAsync, {}),
    "tasks": (OnceAsync, {"concurrency": 3}),
    "batches": (OnceInBatches, {}),
}


@pytest.mark.parametrize(("consumer_class", "settings"), KINDS.values(), ids=list(KINDS))
def test_until_empty_waits_for_no_clock_that_stands_still(
    consumer_class: type[Consumer], settings: Any, far: Orchestrator, clock: ManualClock
) -> None:
    """It would wait for ever: it says for which job, and goes on once the clock was moved."""
    job_id = far.publish("points", {})
    with consumer_class("points") as consumer:
        consumer.connect(far, poll_timeout_s=3600, **settings)
        with pytest.raises(UsageError, match=f"attempt 2 of job {job_id}, due in 60 s by the ManualClock"):
            consumer.consume_until_empty()
        clock.advance(60)
        assert consumer.consume_until_empty() == 1
        assert (consumer.stats.done, consumer.stats.retried) == (1, 1)


def test_until_empty_names_the_job_that_is_due_first(
    far: Orchestrator, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    far.publish("points", {}, delay_s=3600)
    first = far.publish("points", {}, delay_s=1.5)
    consumer = make_consumer(to=far)
    with pytest.raises(UsageError, match=rf"attempt 1 of job {first}, due in 1\.5 s"):
        consumer.consume_until_empty()
    clock.advance(1.5)
    with pytest.raises(UsageError, match=r"due in 3598\.5 s"):
        consumer.consume_until_empty()
    clock.advance(3598.5)
    assert consumer.consume_until_empty() == 1


def test_until_empty_of_an_empty_queue_is_over_at_once(make_consumer: MakeConsumer) -> None:
    """No poll is waited out."""
    assert make_consumer(poll_timeout_s=3600).consume_until_empty() == 0


def test_until_empty_does_not_wait_for_what_others_run(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """A job in flight elsewhere isn't waiting to be delivered."""
    orchestrator.publish("points", {})
    orchestrator.backend.open_consumer("points").receive(1, 0)

    assert make_consumer().consume_until_empty() == 0


# -- what happens to a job ------------------------------------------------------------------------


def test_a_retry_comes_back_with_the_next_attempt_and_its_history(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """Each failure is kept, and the last one ends it (SET-2, SET-3)."""
    job_id = orchestrator.publish("points", {})

    def fail(job: Any) -> None:
        raise ValueError(f"attempt {job.attempt}")

    make_consumer(fail).consume_until_empty()

    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.attempt, letter.crashes) == (job_id, 3, 0)
    assert [(failure.attempt, failure.error) for failure in letter.history] == [
        (1, "ValueError: attempt 1"),
        (2, "ValueError: attempt 2"),
    ]
    assert letter.error == "ValueError: attempt 3"


def test_a_retry_later_waits_its_time(
    far: Orchestrator, clock: ManualClock, make_consumer: MakeConsumer
) -> None:
    """By the broker's clock, during which others are served (RTY-2, DLY-3)."""
    far.publish_batch("points", [{"x": 1}, {"x": 2}])
    seen: list[float] = []

    def later(job: Any) -> None:
        seen.append(job.payload.x)
        if seen == [1]:
            raise RetryLater(60)

    consumer = make_consumer(later, to=far, poll_timeout_s=0)
    consumer.consume(2)
    clock.advance(59)
    assert consumer.consume(1) == 0
    clock.advance(1)
    assert consumer.consume(1) == 1

    assert seen == [1, 2, 1]


@pytest.mark.parametrize("delay_s", [None, 3600])
def test_a_bounded_consume_ends_though_the_brokers_clock_stands_still(
    far: Orchestrator, make_consumer: MakeConsumer, delay_s: float | None
) -> None:
    """After its poll, and with nothing run: the job is due later, or there is none (RCV-1, DLY-1)."""
    if delay_s is not None:
        far.publish("points", {}, delay_s=delay_s)

    assert make_consumer(to=far, poll_timeout_s=0.01).consume(1) == 0


def test_a_body_that_cannot_be_decoded_never_stops_the_consumer(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """It is dead-lettered between two good jobs, and counted (RCV-4)."""
    orchestrator.publish("points", {"x": 1})
    client.publish("points", [Message("bad", b'{"v":1')])
    orchestrator.publish("points", {"x": 2})
    seen: list[float] = []

    consumer = make_consumer(lambda job: seen.append(job.payload.x))

    assert consumer.consume(3) == 3
    assert seen == [1, 2]
    assert [(letter.id, letter.reason) for letter in orchestrator.dead_letters("points")] == [
        ("bad", "malformed")
    ]


def test_a_handler_may_publish(orchestrator: Orchestrator, make_consumer: MakeConsumer) -> None:
    """Jobs that make jobs, into the queue that is being consumed."""
    orchestrator.publish("points", {"x": 4})

    def split(job: Any) -> None:
        if job.payload.x > 1:
            orchestrator.publish_batch("points", [{"x": job.payload.x / 2}] * 2)

    assert make_consumer(split).consume_until_empty() == 7


# -- a queue or a connection that goes away -------------------------------------------------------


@pytest.mark.parametrize(
    ("pull", "error"),
    [
        (lambda consumer, orchestrator: orchestrator.delete_queue("points"), QueueNotFound),
        (lambda consumer, orchestrator: orchestrator.backend.close(), Closed),
        (lambda consumer, orchestrator: consumer.close(), Closed),
    ],
    ids=["the queue is deleted", "the client is closed", "the consumer is closed"],
)
def test_a_blocked_consumer_is_told(
    orchestrator: Orchestrator,
    make_consumer: MakeConsumer,
    background: Any,
    until_blocked: Any,
    pull: Callable[..., None],
    error: type[Exception],
) -> None:
    """Nobody waits for ever for what can't come any more (ADM-3, CON-2)."""
    consumer = make_consumer(poll_timeout_s=3600)
    consuming = background(consumer.consume)
    until_blocked()

    pull(consumer, orchestrator)

    with pytest.raises(error, match="'points'"):
        consuming.result()


def test_a_queue_deleted_under_a_running_handler_resurrects_nothing(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, schema: Any
) -> None:
    """Its ack is lost and counted so, and a queue declared anew is empty (ADM-3, LSE-4)."""
    orchestrator.publish_batch("points", [{}, {}, {}])

    def delete(job: Any) -> None:
        orchestrator.delete_queue("points")
        orchestrator.register(schema)

    consumer = make_consumer(delete, prefetch=2)
    consumer.consume(1)

    assert (consumer.stats.lost, consumer.stats.done) == (1, 0)
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight, counts.dead) == (0, 0, 0)


def test_a_consumer_closed_under_its_handler_gives_its_jobs_back(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """From another thread: what is in hand is released at once, without spending an attempt (SET-4)."""
    orchestrator.publish_batch("points", [{}, {}])
    started: list[str] = []

    def close(job: Any) -> None:
        started.append(job.id)
        background(consumer.close).result()

    consumer = make_consumer(close, prefetch=2)

    with pytest.raises(Closed):
        consumer.consume(2)

    assert len(started) == 1, "what was released is another's to start"
    seen: list[int] = []
    make_consumer(lambda job: seen.append(job.attempt)).consume_until_empty()
    assert seen == [1, 1]


def test_a_handler_that_closes_its_own_consumer_ends_it_after_its_job(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """The job is settled, or it would close one consumer after the other; the rest is given back (SET-4)."""
    ids = [handle.id for handle in orchestrator.publish_batch("points", [{}, {}])]

    def close(job: Any) -> dict[str, float]:
        consumer.close()
        return {"total": 1}

    consumer = make_consumer(close, prefetch=2)

    assert consumer.consume() == 1
    with pytest.raises(NotConnected):
        consumer.consume()
    assert orchestrator.result("points", ids[0]).total == 1
    seen: list[tuple[str, int]] = []
    consumer = make_consumer(lambda job: seen.append((job.id, job.attempt)))
    consumer.consume_until_empty()
    assert seen == [(ids[1], 1)]


@pytest.mark.usefixtures("never_slow")
@pytest.mark.parametrize("prefetch", [1, 3])
def test_an_interrupt_inside_a_handler_settles_what_ran_and_releases_the_rest(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, prefetch: int
) -> None:
    """A second signal leaves nothing in flight and spends no attempt (SET-4)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(3)])

    def interrupted(job: Any) -> None:
        if job.payload.x == 1:
            raise SecondSignal

    consumer = make_consumer(interrupted, prefetch=prefetch)
    with pytest.raises(KeyboardInterrupt):
        consumer.consume(3)

    assert (consumer.stats.attempted, consumer.stats.done) == (2, 1)
    assert consumer.stats.released == (2 if prefetch == 3 else 1)
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight) == (2, 0)
    seen: list[tuple[float, int]] = []
    make_consumer(lambda job: seen.append((job.payload.x, job.attempt))).consume_until_empty()
    assert seen == [(1, 1), (2, 1)]
