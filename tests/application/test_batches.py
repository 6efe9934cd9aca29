"""Batches: what comes together, what becomes of each job, and what one bad job may cost the others."""

import asyncio
import itertools
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from pydantic import field_validator

from mindtrace.jobs import (
    Attempt,
    BatchConsumer,
    Dead,
    Done,
    HandlerMissing,
    InvalidInput,
    Job,
    JobContextFilter,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Observer,
    Orchestrator,
    Reject,
    Retry,
    RetryLater,
    RetryPolicy,
    UsageError,
    batch_handler,
    current_job,
    job_from_schema,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.dead_reasons import DeadReason
from mindtrace.jobs.ports import Delivery, Message, SettleOutcome


class Number(JobInput):
    x: float


Handler = Callable[[Sequence[Job[Any]]], Any]
MakeBatcher = Callable[..., BatchConsumer]
FOREVER_S = 86_400.0
"""A wait that no test waits out."""
LEASE_S = 0.12


@pytest.fixture
def batches() -> list[list[float]]:
    """The batches that ran, each as the numbers of its jobs."""
    return []


@pytest.fixture
def make_batcher(
    orchestrator: Orchestrator, background: Any, batches: list[list[float]]
) -> Iterator[MakeBatcher]:
    """Make a connected consumer of batches of a function, which notes what it runs."""
    with ExitStack() as stack:

        def make(
            handler: Handler = lambda jobs: [None] * len(jobs),
            *,
            to: Orchestrator = orchestrator,
            policy: RetryPolicy | None = None,
            batch_size: int = 4,
            batch_wait_s: float = 0.0,
            **connect: Any,
        ) -> BatchConsumer:
            class FunctionBatcher(BatchConsumer):
                retry = policy

                def run_batch(self, jobs: Sequence[Job[Any]]) -> Any:
                    batches.append([job.payload.x for job in jobs])
                    return handler(jobs)

            consumer = stack.enter_context(FunctionBatcher("points"))
            consumer.connect(to, batch_size=batch_size, batch_wait_s=batch_wait_s, **connect)
            return consumer

        yield make


def publish(orchestrator: Orchestrator, count: int) -> list[str]:
    """Publish jobs that are numbered by their x, and return their ids."""
    outcomes = orchestrator.publish_batch("points", [{"x": number} for number in range(count)])
    return [outcome.id for outcome in outcomes]


def raising(error: BaseException) -> Handler:
    def handler(jobs: Sequence[Job[Any]]) -> None:
        raise error

    return handler


# -- what is a batch ------------------------------------------------------------------------------


def test_a_full_batch_starts_at_once(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    publish(orchestrator, 8)

    assert make_batcher(batch_wait_s=FOREVER_S).consume(8) == 8
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_batch_that_stays_small_runs_after_its_wait(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    publish(orchestrator, 6)

    assert make_batcher(batch_wait_s=0.02).consume_until_empty() == 6
    assert batches == [[0, 1, 2, 3], [4, 5]]


def test_what_comes_within_the_wait_joins_the_batch(
    orchestrator: Orchestrator,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
    background: Any,
    until_blocked: Any,
) -> None:
    consumer = make_batcher(batch_size=3, batch_wait_s=FOREVER_S)
    consuming = background(consumer.consume, 3)
    for number in range(3):
        until_blocked()
        assert batches == []
        orchestrator.publish("points", {"x": number})

    assert consuming.result() == 3
    assert batches == [[0, 1, 2]]


def test_the_wait_counts_from_the_first_job(
    orchestrator: Orchestrator,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs that trickle in hold up none that came before."""
    consumer = make_batcher(batch_size=10, batch_wait_s=1.0)
    backend, moment, waits = consumer.consumer_backend, 0.0, list[float]()
    monkeypatch.setattr("mindtrace.jobs.application.consuming.batch_loop.monotonic", lambda: moment)
    receive = backend.receive

    def trickle(max_jobs: int, timeout_s: float) -> list[Delivery]:
        nonlocal moment
        if batches:
            moment += timeout_s
            return []
        waits.append(timeout_s)
        moment += 0.4
        orchestrator.publish("points", {"x": moment})
        return receive(max_jobs, timeout_s)

    monkeypatch.setattr(backend, "receive", trickle)
    consumer.consume(10)

    assert waits[1:] == pytest.approx([1.0, 0.6, 0.2])
    assert len(batches) == 1
    assert len(batches[0]) == 4


def test_a_bound_on_deliveries_is_kept_to_the_job(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    publish(orchestrator, 10)

    assert make_batcher(batch_wait_s=FOREVER_S).consume(6) == 6
    assert batches == [[0, 1, 2, 3], [4, 5]]
    assert orchestrator.counts("points").ready == 4


def test_the_highest_priority_comes_first(client: LocalClient, batches: list[list[float]]) -> None:
    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("urgent", JobInput), queue_type="priority")
    ids = [orchestrator.publish("urgent", {}, priority=priority) for priority in (0, 9, 5, 9)]
    seen: list[list[str]] = []

    class Batcher(BatchConsumer):
        batch_size = 3

        def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
            seen.append([job.id for job in jobs])
            return [None] * len(jobs)

    with Batcher("urgent") as consumer:
        consumer.connect(orchestrator, batch_wait_s=0)
        consumer.consume(4)
    assert seen == [[ids[1], ids[3], ids[2]], [ids[0]]]


def test_a_delayed_job_is_in_no_batch_before_it_is_due(
    far: Orchestrator, clock: ManualClock, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    far.publish("points", {"x": 0}, delay_s=60)
    far.publish("points", {"x": 1})
    consumer = make_batcher(to=far)

    consumer.consume(1)
    clock.advance(60)
    consumer.consume(1)

    assert batches == [[1], [0]]


def test_an_async_handler_runs_batches(orchestrator: Orchestrator) -> None:
    ids = publish(orchestrator, 3)

    class Batcher(BatchConsumer):
        async def run_batch(self, jobs: Sequence[Job[Any]]) -> list[Any]:
            await asyncio.sleep(0)
            return await asyncio.gather(*(self.double(job) for job in jobs))

        async def double(self, job: Job[Any]) -> dict[str, float]:
            return {"total": 2 * job.payload.x}

    with Batcher("points") as consumer:
        consumer.connect(orchestrator, batch_wait_s=0)
        consumer.consume_until_empty()
    assert [orchestrator.result("points", id_).total for id_ in ids] == [0, 2, 4]


# -- what becomes of each -------------------------------------------------------------------------


def test_each_job_has_an_outcome_of_its_own(
    far: Orchestrator, schema: Any, make_batcher: MakeBatcher
) -> None:
    """A result, or what else becomes of it; an exception counts as if the job had raised it alone."""
    outcomes: dict[str, Any] = {
        "model": schema.output(total=1),
        "dict": {"total": 2},
        "none": None,
        "done": Done(),
        "done with a result": Done({"total": 3}),
        "retry": Retry(reason="busy"),
        "retry later": Retry(60, "busy"),
        "raised later": RetryLater(60, "busy"),
        "error": ValueError("torn"),
        "dead": Dead("no image"),
        "rejected": Reject("no image"),
    }
    ids = dict(zip(outcomes, publish(far, len(outcomes)), strict=True))
    consumer = make_batcher(lambda jobs: list(outcomes.values()), to=far, batch_size=len(outcomes))

    consumer.consume(len(outcomes))

    results = [far.result("points", ids[name]) for name in ("model", "dict", "none", "done")]
    assert [result and result.total for result in results] == [1, 2, None, None]
    assert far.result("points", ids["done with a result"]).total == 3
    assert (consumer.stats.done, consumer.stats.retried, consumer.stats.dead) == (5, 4, 2)
    assert (far.counts("points").ready, far.counts("points").delayed) == (2, 2)
    letters = far.dead_letters("points")
    assert {(one.id, one.reason, one.error) for one in letters} == {
        (ids["dead"], DeadReason.REJECTED, "no image"),
        (ids["rejected"], DeadReason.REJECTED, "no image"),
    }


def test_a_retry_spends_an_attempt_and_says_why(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    publish(orchestrator, 2)
    consumer = make_batcher(
        lambda jobs: [Retry(reason=f"busy {job.attempt}") for job in jobs], policy=RetryPolicy(2, 0)
    )

    consumer.consume_until_empty()

    for letter in orchestrator.dead_letters("points"):
        assert (letter.reason, letter.attempt) == (DeadReason.ATTEMPTS, 2)
        assert [attempt.error for attempt in letter.attempts] == ["busy 1", "busy 2"]


def test_a_retry_before_now_is_refused() -> None:
    with pytest.raises(InvalidInput, match="delay_s -1"):
        Retry(-1)


def test_an_exception_fails_every_job_by_its_own_attempts(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    """A job that has failed before may be dead by that, where another is tried again."""
    older = orchestrator.publish("points", {"x": 0})
    make_batcher(raising(ValueError("no")), policy=RetryPolicy(2, 0)).consume(1)
    younger = orchestrator.publish("points", {"x": 1})

    consumer = make_batcher(raising(ValueError("never")), policy=RetryPolicy(2, 0))
    consumer.consume(2)

    assert (consumer.stats.dead, consumer.stats.retried) == (1, 1)
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.error, letter.attempt) == (older, "ValueError: never", 2)
    assert letter.traceback is not None
    assert "raising" not in letter.reason
    job = orchestrator.receive_message("points")
    assert job is not None
    assert (job.id, job.attempt) == (younger, 2)


def test_an_exception_returned_for_every_job_stays_as_it_was(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    """Each job that raised it anew would add a frame to it, and log all of them."""
    error = Reject("no such camera")
    publish(orchestrator, 50)
    make_batcher(lambda jobs: [error] * len(jobs), to=orchestrator, batch_size=50).consume(50)

    assert error.__traceback__ is None
    assert {letter.error for letter in orchestrator.dead_letters("points")} == {"no such camera"}


def test_an_exception_of_a_batch_is_logged_once(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, caplog: pytest.LogCaptureFixture
) -> None:
    ids = publish(orchestrator, 3)

    make_batcher(raising(ValueError("no"))).consume(3)

    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert told.getMessage() == f"a batch of 3 jobs failed: {', '.join(ids)}"
    assert told.exc_info


def test_what_steers_a_job_steers_all_of_the_batch_if_it_is_raised(
    far: Orchestrator, make_batcher: MakeBatcher
) -> None:
    publish(far, 4)
    make_batcher(raising(RetryLater(60, "later")), to=far, batch_size=2).consume(2)
    make_batcher(raising(Reject("no")), to=far, batch_size=2).consume(2)

    assert far.counts("points").delayed == 2
    assert [letter.error for letter in far.dead_letters("points")] == ["no", "no"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([None], "returned 1 outcomes for 2 jobs: return one for each, in order"),
        ([None] * 3, "returned 3 outcomes for 2 jobs: return one for each, in order"),
        (None, "returned None: return a list with one outcome for each job"),
        (
            {"total": 1},
            "returned a dict of 1 key, of which 0 are ids of its 2 jobs: return a list with one outcome for "
            "each job, or a dict with the id of each job",
        ),
        ("ab", "returned str: return a list with one outcome for each job"),
        ({1, 2}, "returned set: return a list with one outcome for each job"),
        (iter([1, 2]), "returned list_iterator: return a list with one outcome for each job"),
        (
            (each for each in [1, 2]),
            "returned generator: return a list with one outcome for each job; none of it has run: loop over "
            "it in run_batch",
        ),
    ],
)
def test_an_answer_that_fits_no_batch_ends_all_its_jobs_at_once(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, answer: object, error: str
) -> None:
    """It says nothing of any job, and would say the same again."""
    ids = publish(orchestrator, 2)

    make_batcher(lambda jobs: answer).consume(2)

    letters = orchestrator.dead_letters("points")
    assert {letter.id for letter in letters} == set(ids)
    assert {(letter.reason, letter.error) for letter in letters} == {
        (DeadReason.RESULT, f"run_batch {error}")
    }


def test_a_coroutine_that_nobody_awaits_is_told(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    async def late(jobs: Sequence[Job[Any]]) -> list[None]:
        return [None] * len(jobs)

    publish(orchestrator, 1)
    make_batcher(late).consume(1)

    (letter,) = orchestrator.dead_letters("points")
    assert letter.error.startswith("run_batch returned coroutine")
    assert letter.error.endswith("make it an async def, and await there")


def by_sorting(jobs: Any) -> Any:
    jobs.sort(key=lambda job: -job.payload.x)
    return [{"total": job.payload.x} for job in jobs]


def by_reversing(jobs: Any) -> Any:
    jobs.reverse()
    return [{"total": job.payload.x} for job in jobs]


def by_taking_out(jobs: Any) -> Any:
    return [{"total": jobs.pop().payload.x} for _ in range(len(jobs))]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("handler", [by_sorting, by_reversing, by_taking_out])
def test_a_handler_that_reorders_its_jobs_gives_none_the_result_of_another(
    orchestrator: Orchestrator, handler: Handler, is_async: bool
) -> None:
    """It can't change what it was given, so the batch has failed."""

    class Plain(BatchConsumer):
        retry = RetryPolicy(max_attempts=1)

        def run_batch(self, jobs: Sequence[Job[Any]]) -> Any:
            return handler(jobs)

    class Async(Plain):
        async def run_batch(self, jobs: Sequence[Job[Any]]) -> Any:
            return handler(jobs)

    ids = publish(orchestrator, 3)
    with (Async if is_async else Plain)("points") as consumer:
        consumer.connect(orchestrator, batch_size=3)
        consumer.consume(3)

    letters = orchestrator.dead_letters("points")
    assert {letter.id for letter in letters} == set(ids)
    assert {letter.error.partition(" has no attribute")[0] for letter in letters} == {
        "AttributeError: 'tuple' object"
    }


def test_outcomes_by_the_ids_of_the_jobs_may_have_any_order(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    ids = publish(orchestrator, 4)

    def handler(jobs: Sequence[Job[Any]]) -> dict[str, Any]:
        largest_first = sorted(jobs, key=lambda job: -job.payload.x)
        return {
            job.id: Reject("no") if job.payload.x == 3 else {"total": job.payload.x} for job in largest_first
        }

    make_batcher(handler).consume(4)

    assert [orchestrator.result("points", id_).total for id_ in ids[:3]] == [0, 1, 2]
    assert [letter.id for letter in orchestrator.dead_letters("points")] == [ids[3]]


@pytest.mark.parametrize("wrong", ["one too few", "one too many"])
def test_outcomes_by_id_must_be_of_all_jobs_and_no_others(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, wrong: str
) -> None:
    ids = publish(orchestrator, 2)

    def handler(jobs: Sequence[Job[Any]]) -> dict[str, Any]:
        answer: dict[str, Any] = {job.id: None for job in jobs}
        if wrong == "one too many":
            return answer | {"another": None}
        del answer[ids[0]]
        return answer

    make_batcher(handler).consume(2)
    assert {letter.id for letter in orchestrator.dead_letters("points")} == set(ids)


@pytest.mark.parametrize(
    "returned", [ValueError, Reject, RetryLater, Retry, Dead, Done], ids=lambda of: of.__name__
)
def test_a_class_in_the_place_of_an_outcome_is_no_result(
    client: LocalClient, make_batcher: MakeBatcher, returned: type
) -> None:
    """Though the schema has no output, so that other results are dropped."""
    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("points", Number))
    publish(orchestrator, 1)

    make_batcher(lambda jobs: [returned], to=orchestrator).consume(1)

    (letter,) = orchestrator.dead_letters("points")
    assert letter.reason is DeadReason.RESULT
    assert f"return an instance, as in {returned.__name__}(…)" in letter.error


def test_one_invalid_result_hurts_its_job_alone(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    good, bad, good_too = publish(orchestrator, 3)
    policy = RetryPolicy(max_attempts=1)

    make_batcher(lambda jobs: [{"total": 1}, {"total": "one"}, {"total": 3}], policy=policy).consume(3)

    assert orchestrator.result("points", good).total == 1
    assert orchestrator.result("points", good_too).total == 3
    (letter,) = orchestrator.dead_letters("points")
    assert letter.id == bad
    assert letter.error.startswith("InvalidPayload: result: doesn't fit Total")


def test_what_a_signal_handler_raises_after_a_batch_is_no_failure_of_a_job(client: LocalClient) -> None:
    """It may be a timeout of the program's; the jobs run again, and no attempt is spent (SET-4)."""
    is_armed, attempts = True, []

    class Looked(JobOutput):
        x: int

        @field_validator("x")
        @classmethod
        def look_up(cls, x: int) -> int:
            if is_armed:
                signal.raise_signal(signal.SIGUSR1)
            return x

    class Batcher(BatchConsumer):
        schema = JobSchema("looked", Number, Looked)

        def run_batch(self, jobs: Sequence[Job[Any]]) -> list[dict[str, int]]:
            attempts.append([job.attempt for job in jobs])
            return [{"x": 1}] * len(jobs)

    def on_signal(*_: object) -> None:
        nonlocal is_armed
        is_armed = False
        raise TimeoutError

    orchestrator = Orchestrator(client)
    orchestrator.register(Batcher.schema)
    orchestrator.publish_batch("looked", [{"x": 1}] * 3)
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with Batcher() as consumer:
            consumer.connect(orchestrator, batch_size=3, batch_wait_s=0.0)
            with pytest.raises(TimeoutError):
                consumer.consume(3)
            consumer.consume_until_empty()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert attempts == [[1, 1, 1], [1, 1, 1]]


def test_what_cannot_be_decoded_is_dead_by_itself(
    orchestrator: Orchestrator, client: LocalClient, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    orchestrator.publish("points", {"x": 0})
    client.publish("points", [Message("bad", b"no job")])
    orchestrator.publish("points", {"x": 2})

    make_batcher().consume(3)

    assert batches == [[0, 2]]
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.reason) == ("bad", DeadReason.MALFORMED)


def test_a_batch_of_which_nothing_can_be_decoded_calls_no_handler(
    client: LocalClient, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    client.publish("points", [Message("a", b"no job"), Message("b", b"{}")])

    assert make_batcher().consume(2) == 2
    assert batches == []


def test_errors_that_end_programs_are_failures_of_the_batch(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    publish(orchestrator, 2)

    consumer = make_batcher(raising(SystemExit(3)))
    consumer.consume(2)

    assert consumer.stats.retried == 2


# -- jobs that may kill their worker --------------------------------------------------------------


class WorkerDied(SecondSignal):
    """Ends a consumer in the midst of a batch, as a crash does."""


def test_a_job_that_kills_its_worker_is_charged_for_it_and_no_other_more_than_once(
    far: Orchestrator,
    clock: ManualClock,
    line: Any,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
) -> None:
    """Those that were in two batches with it run alone from then on (RTY-3)."""
    ids = publish(far, 10)
    bad, done, crashes = ids[5], list[str](), dict[str, int]()

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        if any(job.id == bad for job in jobs):
            line.breaks["settle"] = 1_000_000  # nothing is released: the worker is dead
            raise WorkerDied
        done.extend(job.id for job in jobs)
        return [None] * len(jobs)

    def work() -> None:
        consumer = make_batcher(handler, to=far)
        inner = consumer.consumer_backend.inner  # type: ignore[attr-defined]
        for method in ("receive", "settle"):
            note(inner, method)
        consumer.consume_until_empty()

    def note(inner: Any, method: str) -> None:
        call = getattr(inner, method)

        def noted(*args: Any, **options: Any) -> Any:
            answer = call(*args, **options)
            for one in answer if method == "receive" else answer.deliveries:
                crashes[one.id] = max(one.crashes, crashes.get(one.id, 0))
            return answer

        setattr(inner, method, noted)

    for _ in range(RetryPolicy().max_crashes):
        with pytest.raises(WorkerDied):
            work()
        line.breaks.clear()
        clock.advance(60)
    work()

    assert sorted(done) == sorted(set(ids) - {bad})
    (letter,) = far.dead_letters("points")
    assert (letter.id, letter.reason) == (bad, DeadReason.CRASHES)
    assert crashes.pop(bad) == RetryPolicy().max_crashes
    assert sorted(crashes.values()) == [0] * 6 + [2] * 3
    assert [len(batch) for batch in batches if 5 in batch] == [4, 4, 1, 1, 1]
    assert batches[-1] == [8, 9], "jobs that were with no dead worker are batched again"


def test_a_suspect_isnt_held_while_a_batch_runs(
    clock: ManualClock, background: Any, eventually: Any, client: LocalClient
) -> None:
    """A crash of the batch would be charged to it, too; and another worker can have it."""
    with LocalClient(clock=clock) as local:
        orchestrator = Orchestrator(local)
        orchestrator.register(JobSchema("urgent", JobInput), queue_type="priority")
        suspect = orchestrator.publish("urgent", {})
        dead = local.open_consumer("urgent", lease_s=1.0)
        for _ in range(2):
            assert dead.receive(1, 0)
            clock.advance(1)
        urgent = [orchestrator.publish("urgent", {}, priority=9) for _ in range(2)]
        seen: list[tuple[list[str], int, int | None]] = []

        class Batcher(BatchConsumer):
            def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
                counts = orchestrator.counts("urgent")
                seen.append(([job.id for job in jobs], counts.ready, counts.in_flight))
                return [None] * len(jobs)

        with Batcher("urgent") as consumer:
            consumer.connect(orchestrator, batch_wait_s=FOREVER_S)
            consumer.consume(3)
    assert seen == [(urgent, 1, 2), ([suspect], 0, 1)]


# -- memory ---------------------------------------------------------------------------------------


def test_a_batch_that_runs_out_of_memory_is_run_in_halves_and_no_attempt_is_spent(
    orchestrator: Orchestrator,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At once, and the smaller size is remembered."""
    publish(orchestrator, 12)
    attempts: set[int] = set()

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        attempts.update(job.attempt for job in jobs)
        if len(jobs) > 3:
            raise MemoryError
        return [None] * len(jobs)

    consumer = make_batcher(handler, batch_size=8)
    consumer.consume(12)

    assert list(map(len, batches)) == [8, 4, 2, 2, 2, 2, 2, 2]
    assert list(itertools.chain(*batches[2:])) == list(range(12))
    assert attempts == {1}
    assert (consumer.stats.done, consumer.stats.retried) == (12, 0)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "memory ran out with 8 jobs at once: trying up to 4 from now on: MemoryError",
        "memory ran out with 4 jobs at once: trying up to 2 from now on: MemoryError",
    ]


def test_a_single_job_that_runs_out_of_memory_has_failed(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    """The others of its batch are done."""
    ids = publish(orchestrator, 4)

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        if any(job.payload.x == 2 for job in jobs):
            raise MemoryError("two")
        return [None] * len(jobs)

    consumer = make_batcher(handler, policy=RetryPolicy(max_attempts=1))
    consumer.consume(4)

    assert batches == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.error) == (ids[2], "MemoryError: two")
    assert consumer.stats.done == 3


# -- leases ---------------------------------------------------------------------------------------


def test_leases_are_kept_while_a_batch_is_collected_and_while_it_runs(
    far: Orchestrator,
    clock: ManualClock,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
    background: Any,
    eventually: Any,
    heartbeat: Any,
) -> None:
    """However long either takes (LSE-3)."""

    def outlast() -> None:
        for _ in range(4):
            clock.advance(LEASE_S / 2)
            heartbeat()
            assert far.counts("points").ready == 0

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        outlast()
        return [None] * len(jobs)

    consumer = make_batcher(handler, to=far, batch_size=2, batch_wait_s=FOREVER_S, lease_s=LEASE_S)
    consuming = background(consumer.consume, 2)
    far.publish("points", {"x": 0})
    eventually(lambda: far.counts("points").in_flight == 1)
    outlast()
    assert batches == []
    far.publish("points", {"x": 1})

    assert consuming.result() == 2
    assert batches == [[0, 1]]
    assert (consumer.stats.done, consumer.stats.lost) == (2, 0)


def test_a_handler_can_see_which_jobs_were_lost(
    far: Orchestrator,
    make_batcher: MakeBatcher,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``lease_lost`` tells of any of the batch, ``is_lost`` of one (LSE-4); on other threads, too."""
    publish(far, 2)
    told: list[bool] = []

    def lose_first(receipts: Sequence[str]) -> list[SettleOutcome]:
        return [SettleOutcome.LOST, *[SettleOutcome.OK] * (len(receipts) - 1)]

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        told.append(consumer.lease_lost)
        monkeypatch.setattr(consumer.consumer_backend, "extend", lose_first)
        eventually(lambda: consumer.lease_lost)
        asking = threading.Thread(target=lambda: told.extend(map(consumer.is_lost, jobs)))
        asking.start()
        asking.join()
        told.extend(map(consumer.is_lost, jobs))
        return [None] * len(jobs)

    consumer = make_batcher(handler, to=far, lease_s=LEASE_S)
    consumer.consume(2)

    assert told == [False, True, False, True, False]


# -- stopping, and a broker that is away ----------------------------------------------------------


def test_a_stop_releases_what_was_collected(
    orchestrator: Orchestrator,
    make_batcher: MakeBatcher,
    batches: list[list[float]],
    background: Any,
    eventually: Any,
) -> None:
    publish(orchestrator, 2)
    consumer = make_batcher(batch_wait_s=FOREVER_S)
    consuming = background(consumer.consume)
    eventually(lambda: orchestrator.counts("points").in_flight == 2)

    consumer.stop()

    assert consuming.result() == 0
    assert batches == []
    assert orchestrator.counts("points").ready == 2
    assert consumer.stats.released == 2


def test_a_stop_lets_the_running_batch_end(
    orchestrator: Orchestrator, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    publish(orchestrator, 6)

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        consumer.stop()
        return [None] * len(jobs)

    consumer = make_batcher(handler)
    assert consumer.consume() == 4
    assert (consumer.stats.done, orchestrator.counts("points").ready) == (4, 2)


def test_a_handler_that_closes_its_consumer_has_its_batch_settled(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    """Also from a thread that has the context of the batch."""
    publish(orchestrator, 2)

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        asyncio.run(asyncio.to_thread(consumer.close))  # type: ignore[arg-type]
        return [None] * len(jobs)

    consumer = make_batcher(handler)
    assert consumer.consume() == 2
    assert orchestrator.counts("points").in_flight == 0
    assert orchestrator.counts("points").ready == 0


def test_what_was_collected_runs_though_the_broker_goes_away(
    far: Orchestrator, line: Any, make_batcher: MakeBatcher, batches: list[list[float]]
) -> None:
    """A batch doesn't wait for others that can't come (CON-1)."""
    publish(far, 2)
    consumer = make_batcher(to=far, batch_wait_s=FOREVER_S, poll_timeout_s=0.01)

    def fail_the_second() -> None:
        line.breaks["receive"] = int(line.calls["receive"] == 1)

    line.before["receive"] = fail_the_second
    assert consumer.consume(3) == 2
    assert batches == [[0, 1]]


# -- what a handler knows -------------------------------------------------------------------------


def test_each_job_of_a_batch_reports_its_progress(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    ids = publish(orchestrator, 2)
    seen: list[dict[str, str]] = []
    left: list[Job[Any]] = []

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        for number, job in enumerate(jobs, 1):
            job.progress(number, 4)
        seen.append({id_: str(one) for id_, one in orchestrator.progress("points").items()})
        left.extend(jobs)
        return [None] * len(jobs)

    make_batcher(handler).consume(2)
    left[0].progress(1)

    assert seen == [{ids[0]: "1/4 (25%)", ids[1]: "2/4 (50%)"}]


def test_no_job_is_the_current_one_and_every_job_has_the_orchestrator(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    publish(orchestrator, 2)

    def handler(jobs: Sequence[Job[Any]]) -> list[None]:
        assert current_job() is None
        for job in jobs:
            assert job.orchestrator is orchestrator
        in_thread = asyncio.run(asyncio.to_thread(lambda: jobs[0].orchestrator))  # type: ignore[arg-type]
        assert in_thread is orchestrator
        return [None] * len(jobs)

    consumer = make_batcher(handler)
    consumer.consume(2)
    assert consumer.stats.done == 2


def test_observers_hear_of_each_job(client: LocalClient, schema: Any, make_batcher: MakeBatcher) -> None:
    told: list[tuple[str, str]] = []

    class Listener(Observer):
        def started(self, queue: str, job: Job[Any]) -> None:
            told.append(("started", job.id))

        def ended(self, attempt: Attempt) -> None:
            told.append((attempt.outcome.value, attempt.job_id))

    orchestrator = Orchestrator(client, observers=[Listener()])
    orchestrator.register(schema)
    client.publish("points", [Message("bad", b"no job")])
    a, b = publish(orchestrator, 2)

    make_batcher(lambda jobs: [None, Retry()], to=orchestrator).consume(3)

    assert told == [("dead", "bad"), ("started", a), ("started", b), ("retried", b), ("done", a)]


def test_a_line_of_log_names_the_queue_of_the_batch_and_the_job_that_it_is_about(
    orchestrator: Orchestrator, make_batcher: MakeBatcher
) -> None:
    ids = publish(orchestrator, 2)
    told: list[tuple[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.job_queue, record.job_id))  # type: ignore[attr-defined]

    keep = Keep()
    keep.addFilter(JobContextFilter())
    log = logging.getLogger("batches")
    log.addHandler(keep)
    try:

        def handler(jobs: Sequence[Job[Any]]) -> list[Any]:
            log.warning("all")
            return [None, ValueError("one")]

        consumer = make_batcher(handler)
        consumer.logger.addHandler(keep)
        consumer.consume(2)
    finally:
        log.removeHandler(keep)
        consumer.logger.removeHandler(keep)

    assert told == [("points", "-"), ("points", ids[1])]


# -- functions, and what is refused ---------------------------------------------------------------


def test_a_function_can_run_batches(orchestrator: Orchestrator, schema: Any) -> None:
    seen: list[int] = []

    @batch_handler(schema, batch_size=3, batch_wait_s=0)
    def add(jobs: Sequence[Job[Any]]) -> list[Any]:
        """Add both numbers."""
        seen.append(len(jobs))
        return [{"total": job.payload.x + job.payload.y} for job in jobs]

    ids = publish(orchestrator, 4)
    with add.consumer() as consumer:
        consumer.connect(orchestrator)
        consumer.consume_until_empty()

    assert seen == [3, 1]
    assert [orchestrator.result(add.schema, id_).total for id_ in ids] == [0, 1, 2, 3]
    assert add([job_from_schema(schema, {"x": 1, "y": 2})]) == [{"total": 3}]
    assert add.__doc__ == "Add both numbers."
    assert type(consumer).__name__ == "add"


def test_a_handler_of_batches_is_refused_what_isnt_one(schema: Any) -> None:
    with pytest.raises(InvalidInput, match="pass the JobSchema, as in @batch_handler"):
        batch_handler("points")  # type: ignore[arg-type]
    with pytest.raises(HandlerMissing, match="@batch_handler: 3 is no function"):
        batch_handler(schema)(3)  # type: ignore[arg-type]


def test_a_class_without_a_usable_handler_is_refused() -> None:
    class Nothing(BatchConsumer):
        pass

    class Single(BatchConsumer):
        def run(self, job: Job[Any]) -> None:  # type: ignore[misc]
            pass

        def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
            return []

    class Generator(BatchConsumer):
        def run_batch(self, jobs: Sequence[Job[Any]]) -> Any:
            yield from jobs

    for cls, words in (
        (Nothing, r"Nothing has no handler: define run_batch\(self, jobs\)"),
        (Single, r"Single runs batches: define run_batch\(self, jobs\) in place of run"),
        (Generator, "Generator.run_batch is a generator: return a list, without yield"),
    ):
        with pytest.raises(HandlerMissing, match=words):
            cls("points")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"concurrency": 2}, "runs one batch at a time"),
        ({"batch_size": 0}, "batch_size 0: must be an integer from 1 to 10000"),
        ({"batch_size": 2.5}, "batch_size 2.5"),
        ({"batch_wait_s": -1}, "batch_wait_s -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make_batcher: MakeBatcher, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        make_batcher(**settings)


def test_settings_come_from_the_class_unless_connect_is_told_otherwise(
    orchestrator: Orchestrator, batches: list[list[float]]
) -> None:
    class Batcher(BatchConsumer):
        batch_size = 2
        batch_wait_s = FOREVER_S

        def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
            batches.append([job.payload.x for job in jobs])
            return [None] * len(jobs)

    publish(orchestrator, 5)
    with Batcher("points") as consumer:
        consumer.connect(orchestrator, prefetch=1)
        consumer.consume(2)
    with Batcher("points") as consumer:
        consumer.connect(orchestrator, batch_size=8, batch_wait_s=0)
        consumer.consume_until_empty()

    assert batches == [[0, 1], [2, 3, 4]]


def test_a_single_job_is_refused_in_words(make_batcher: MakeBatcher, schema: Any) -> None:
    with pytest.raises(UsageError, match=r"call run_batch\(\[job\]\)"):
        make_batcher().run(job_from_schema(schema, {}))


def test_a_handler_that_takes_no_list_is_refused() -> None:
    """When it is made, and not as each of its batches fails."""
    schema = JobSchema("images", JobInput)

    class Mistaken(BatchConsumer):
        def run_batch(self) -> list[None]:  # type: ignore[override]
            return []

    with pytest.raises(HandlerMissing, match=r"run_batch\(self\) can't be called with a tuple of jobs"):
        Mistaken("images")
    with pytest.raises(HandlerMissing, match=r"define forgot\(jobs\)"):

        @batch_handler(schema)  # type: ignore[arg-type]
        def forgot() -> list[None]:
            return []
