"""Retries as a policy says: delays of each kind, exceptions that aren't retried; and jobs that snooze."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mindtrace.jobs import (
    Attempt,
    BatchConsumer,
    CancelOutcome,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Observer,
    Orchestrator,
    Outcome,
    Reject,
    RetryLater,
    RetryPolicy,
    Snooze,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import InvalidInput, InvalidJob


class Point(JobInput):
    x: int = 0


SCHEMA = JobSchema("points", Point)


class Heard(Observer):
    """Records how attempts ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def ended(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def jobs(clock: ManualClock, heard: Heard) -> Iterator[Orchestrator]:
    with LocalClient(clock=clock) as client:
        made = Orchestrator(client, observers=[heard])
        made.register(SCHEMA)
        yield made


class Failing(Consumer[Point, Any]):
    """Raises what it is given, one for each run; then the job is done."""

    schema = SCHEMA

    def __init__(self, *errors: BaseException) -> None:
        super().__init__()
        self.errors = list(errors)
        self.attempts: list[int] = []

    def run(self, job: Job[Point]) -> None:
        self.attempts.append(job.attempt)
        if self.errors:
            raise self.errors.pop(0)


def ran_after(jobs: Orchestrator, clock: ManualClock, consumer: Failing, times: int) -> list[int]:
    """Return after how many whole seconds each further run came."""
    waits: list[int] = []
    consumer.connect(jobs, poll_timeout_s=0.0)
    consumer.consume(block=False)
    for _ in range(times):
        seen, waited = len(consumer.attempts), 0
        while len(consumer.attempts) == seen:
            assert waited < 1000, waits
            clock.advance(1)
            waited += 1
            consumer.consume(block=False)
        waits.append(waited)
    return waits


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(max_attempts=5, delays_s=3), [3, 3, 3, 3]),
        (RetryPolicy(max_attempts=5, delays_s=[1, 5, 9]), [1, 5, 9, 9]),
        (RetryPolicy(max_attempts=5, base_delay_s=2, max_delay_s=9, jitter=False), [2, 4, 8, 9]),
        (RetryPolicy(max_attempts=5, delays_s=lambda n, error: 10 * n + len(str(error))), [13, 23, 33, 43]),
    ],
    ids=["fixed", "list", "doubling", "function"],
)
def test_the_policy_says_when_a_job_runs_again(
    jobs: Orchestrator, clock: ManualClock, policy: RetryPolicy, waits: list[int]
) -> None:
    class Own(Failing):
        retry = policy

    jobs.publish(SCHEMA, Point())
    with Own(*[ValueError("bad")] * 4) as consumer:
        assert ran_after(jobs, clock, consumer, 4) == waits
        assert consumer.attempts == [1, 2, 3, 4, 5]


def test_a_function_learns_what_was_raised_and_a_retry_without_an_error_raised_nothing(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    from mindtrace.jobs import Retry

    asked: list[tuple[int, Any]] = []

    class Batches(BatchConsumer[Point, Any]):
        schema = SCHEMA
        batch_size = 2
        retry = RetryPolicy(delays_s=lambda attempt, error: asked.append((attempt, error)) or 5)

        def run_batch(self, jobs: Sequence[Job[Point]]) -> list[Any]:
            return [Retry(), error]

    error = ValueError("bad")
    jobs.publish_batch(SCHEMA, [Point(), Point()])
    with Batches() as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
    assert asked == [(1, None), (1, error)]
    assert jobs.counts(SCHEMA).delayed == 2


def raising(_attempt: int, _error: object) -> float:
    raise KeyError("no such delay")


@pytest.mark.parametrize("function", [raising, lambda *_: -1.0, lambda *_: "5", lambda *_: None])
def test_a_function_that_fails_gives_way_to_the_backoff(
    jobs: Orchestrator, clock: ManualClock, caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    """No consumer ends of it, and the log says so."""

    class Own(Failing):
        retry = RetryPolicy(max_attempts=2, delays_s=function)

    jobs.publish(SCHEMA, Point())
    with Own(ValueError("bad")) as consumer:
        assert ran_after(jobs, clock, consumer, 1) == [1]
    assert "delays_s of its retry policy failed" in caplog.text


@pytest.mark.parametrize(
    ("policy", "error", "is_retried"),
    [
        (RetryPolicy(dont_retry_on=ValueError), ValueError("bad"), False),
        (RetryPolicy(dont_retry_on=(LookupError, OSError)), KeyError("bad"), False),
        (RetryPolicy(dont_retry_on=(LookupError, OSError)), ValueError("bad"), True),
        (RetryPolicy(retry_on=(LookupError, OSError)), KeyError("bad"), True),
        (RetryPolicy(retry_on=[LookupError, OSError]), ValueError("bad"), False),
        (RetryPolicy(retry_on=OSError), RetryLater(1), True),
        (RetryPolicy(retry_on=OSError), Snooze(1), True),
        (RetryPolicy(dont_retry_on=Exception), RetryLater(1), True),
        (RetryPolicy(), ValueError("bad"), True),
    ],
)
def test_the_policy_says_after_which_errors(
    jobs: Orchestrator, policy: RetryPolicy, error: BaseException, is_retried: bool
) -> None:
    class Own(Failing):
        retry = policy

    handle = jobs.queue(SCHEMA).publish(Point())
    with Own(error) as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
    assert jobs.counts(SCHEMA).delayed == is_retried
    if not is_retried:
        (letter,) = jobs.dead_letters(SCHEMA)
        assert (letter.id, letter.reason, letter.attempt) == (handle.id, "error not retried", 1)
        assert letter.traceback is not None
        assert "bad" in letter.traceback


def test_an_error_that_can_not_be_compared_is_retried(jobs: Orchestrator) -> None:
    """No class of an error makes a consumer end."""

    class Broken(type):
        def __instancecheck__(cls, _instance: object) -> bool:
            raise RuntimeError("broken")

    class Odd(Exception, metaclass=Broken): ...

    class Own(Failing):
        retry = RetryPolicy(dont_retry_on=Odd)

    jobs.publish(SCHEMA, Point())
    with Own(ValueError("bad")) as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
    assert jobs.counts(SCHEMA).delayed == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delays_s": -1}, "delays_s -1: must be a number of seconds"),
        ({"delays_s": "5"}, "delays_s '5': must be a number of seconds"),
        ({"delays_s": True}, "delays_s True: must be a number of seconds"),
        ({"delays_s": [1, "5"]}, "delays_s '5': must be a number of seconds"),
        ({"delays_s": []}, "give at least one delay; max_attempts=1 retries nothing"),
        ({"delays_s": [1, 10, 60]}, "max_attempts=3 has 2 of them used: pass max_attempts=4"),
        ({"delays_s": 5, "base_delay_s": 2}, "base_delay_s has no effect beside delays_s"),
        ({"delays_s": 5, "jitter": False}, "jitter has no effect beside delays_s"),
        ({"jitter": 0.5}, "jitter 0.5: must be True or False"),
        ({"retry_on": "ValueError"}, "'ValueError': must be a class of exceptions, such as ValueError"),
        ({"retry_on": ValueError("bad")}, "must be a class of exceptions"),
        ({"dont_retry_on": (ValueError, int)}, "dont_retry_on <class 'int'>: must be a class of exceptions"),
        ({"retry_on": OSError, "dont_retry_on": ValueError}, "pass one; nothing but"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        RetryPolicy(**settings)
    assert message in str(raised.value)


def test_policies_are_compared_and_hashed() -> None:
    """As parts of a schema."""
    one = RetryPolicy(max_attempts=4, delays_s=[1, 2, 3], retry_on=[OSError])
    assert one == RetryPolicy(max_attempts=4, delays_s=(1.0, 2.0, 3.0), retry_on=OSError)
    assert len({one, RetryPolicy(max_attempts=4, delays_s=(1, 2, 3), retry_on=(OSError,))}) == 1


# -- snoozing -------------------------------------------------------------------------------------


def test_a_job_that_snoozes_spends_no_attempt(jobs: Orchestrator, clock: ManualClock, heard: Heard) -> None:
    """It runs again after its own delay, however often, and has no history of it."""
    job_id = jobs.publish(SCHEMA, Point())
    with Failing(*[Snooze(7)] * 10) as consumer:
        assert ran_after(jobs, clock, consumer, 10) == [7] * 10
        assert consumer.attempts == [1] * 11
        assert (consumer.stats.released, consumer.stats.done, consumer.stats.retried) == (10, 1, 0)
    assert {(each.job_id, each.outcome, each.error) for each in heard.attempts[:10]} == {
        (job_id, Outcome.SNOOZED, None)
    }


def test_a_job_of_a_batch_may_snooze(jobs: Orchestrator, clock: ManualClock) -> None:
    class Batches(BatchConsumer[Point, Any]):
        schema = SCHEMA
        batch_size = 2

        def run_batch(self, jobs: Sequence[Job[Point]]) -> list[Any]:
            ran.extend((job.payload.x, job.attempt) for job in jobs)
            return [Snooze(5) if clock.now() == began_s else None, None][: len(jobs)]

    ran: list[tuple[int, int]] = []
    began_s = clock.now()
    jobs.publish_batch(SCHEMA, [Point(x=1), Point(x=2)])
    with Batches() as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
        clock.advance(5)
        consumer.consume(block=False)
    assert ran == [(1, 1), (2, 1), (1, 1)]


def test_a_cancelled_job_does_not_snooze(jobs: Orchestrator) -> None:
    class Cancelled(Failing):
        def run(self, job: Job[Point]) -> None:
            assert jobs.cancel(SCHEMA, job.id) is CancelOutcome.REQUESTED
            raise Snooze(5)

    jobs.publish(SCHEMA, Point())
    with Cancelled() as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
        assert consumer.stats.cancelled == 1
    assert jobs.counts(SCHEMA).waiting == 0


def test_a_job_may_fail_or_be_rejected_after_it_snoozed(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.publish(SCHEMA, Point())
    with Failing(Snooze(1), Reject("no")) as consumer:
        ran_after(jobs, clock, consumer, 1)
    (letter,) = jobs.dead_letters(SCHEMA)
    assert (letter.attempt, letter.history) == (1, ())


@pytest.mark.parametrize("wrong", [0, -1, "5", float("inf")])
def test_a_snooze_for_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidJob, match="delay_s"):
        Snooze(wrong)
