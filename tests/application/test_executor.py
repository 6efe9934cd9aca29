"""One delivery, one straight pipe: decode, validate, run, validate the output, settle."""

import logging
import signal
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import field_validator

from mindtrace.jobs import (
    JobInput,
    JobOutput,
    JobSchema,
    Reject,
    RetryLater,
    RetryPolicy,
    Then,
    job_from_schema,
)
from mindtrace.jobs.application.consuming.executor import Executor
from mindtrace.jobs.application.process.graceful_stop import SecondSignal, stopping_on_signals
from mindtrace.jobs.domain import batch_outcomes
from mindtrace.jobs.domain.envelope import encode
from mindtrace.jobs.domain.errors import InvalidJob, InvalidPayload
from mindtrace.jobs.domain.failure import decode_failure
from mindtrace.jobs.ports import Ack, Dead, Delivery, Retry, Settlement

Execute = Callable[..., Settlement]


def raising(error: BaseException) -> Callable[[Any], None]:
    def handler(job: Any) -> None:
        raise error

    return handler


@pytest.fixture
def execute(schema: JobSchema[Any, Any]) -> Execute:
    """Execute one delivery of a good job, but for what a test changes about it.

    Of a failure, the error alone is left; ``test_failures.py`` has the rest.
    """

    def execute(
        handler: Callable[[Any], Any] = lambda job: None,
        *,
        policy: RetryPolicy = schema.retry,
        keep_results: bool = True,
        max_attempts: int | None = None,
        **changes: Any,
    ) -> Settlement:
        job = job_from_schema(schema, {"x": 1.5, "y": 2}, id="a", max_attempts=max_attempts)
        delivery = Delivery("a", encode(job, schema), "receipt", 1, 1, 0, None)._replace(**changes)
        logger = logging.Logger("silent", logging.CRITICAL)  # what is raised can be in no report of xdist
        settlement = Executor(schema, handler, policy, keep_results, 1024, logger).execute(delivery)
        if isinstance(settlement, Retry | Dead):
            assert settlement.error.encode()  # any broker can store it
            return settlement._replace(error=decode_failure(settlement.error).error)
        return settlement

    return execute


class Sized(JobOutput):
    size: int


# -- what the handler gets and gives --------------------------------------------------------------


def test_the_handler_gets_the_job_validated(execute: Execute, schema: JobSchema[Any, Any]) -> None:
    """Its payload is the schema's input model, its attempt the delivery's (SET-2)."""
    seen = []

    execute(seen.append, attempt=2)

    (job,) = seen
    assert (job.id, job.payload, job.attempt) == ("a", schema.input(x=1.5, y=2), 2)


@pytest.mark.parametrize(
    ("output", "body"),
    [
        (lambda schema: None, None),
        (lambda schema: {"total": 3}, b'{"total":3.0}'),
        (lambda schema: {}, b'{"total":0.0}'),
        (lambda schema: schema.output(total=3), b'{"total":3.0}'),
    ],
    ids=["none", "a dict", "an empty dict", "an instance"],
)
def test_what_the_handler_returns_is_the_result(
    execute: Execute, schema: JobSchema[Any, Any], output: Callable[..., Any], body: bytes | None
) -> None:
    """Validated, encoded, and sent with the ack (RES-1, RES-2)."""
    assert execute(lambda job: output(schema)) == Ack("receipt", body, schema.result_ttl_s)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (
            {"total": "three"},
            "InvalidPayload: result: doesn't fit Total (total: Input should be a valid number",
        ),
        (3.5, "InvalidPayload: result: expected Total or a dict, got float"),
        (JobOutput(), "InvalidPayload: result: expected Total or a dict, got JobOutput"),
        (iter([]), "InvalidPayload: result: expected Total or a dict, got list_iterator"),
        (
            {"total": float("nan")},
            "InvalidPayload: result: doesn't fit Total (total: Input should be a finite",
        ),
        ({"totl": 3}, "InvalidPayload: result: unknown key 'totl' (did you mean 'total'?)"),
        (
            {"total": [], "x": 1},
            "InvalidPayload: result: doesn't fit Total (total: Input should be a valid number); unknown key "
            "'x' (Total has total)",
        ),
    ],
)
def test_a_wrong_result_is_dead_at_once(execute: Execute, output: object, error: str) -> None:
    """The output is held against its model, and another run would return the same (RES-1)."""
    settlement = execute(lambda job: output)

    assert isinstance(settlement, Dead)
    assert settlement.reason == "invalid result"
    assert settlement.error.startswith(error)


@pytest.mark.parametrize("output", [None, {}, JobOutput()], ids=repr)
def test_a_handler_may_return_nothing_if_its_schema_has_no_output(
    schema: JobSchema[Any, Any], output: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(without_output(schema, output), Ack)
    assert not caplog.records


@pytest.mark.parametrize("output", [5, False, "", [], {"size": 3}, Sized(size=3)], ids=repr)
def test_a_result_of_a_schema_without_output_is_dropped_with_a_warning(
    schema: JobSchema[Any, Any], output: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is done: nobody asked for a result. Once for each type, as all jobs return the same."""
    settlement = without_output(schema, output, runs=3)

    assert isinstance(settlement, Ack)
    assert settlement.result is None
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the handler returned {type(output).__name__}, and schema 'points' has no output: it isn't kept; "
        "give the schema one, as in JobSchema(…, output=…), or return None"
    )


def in_steps() -> Iterator[None]:
    """Nobody loops over it."""
    yield


async def in_async_steps() -> AsyncIterator[None]:
    yield


MISTAKES = {
    "raise Reject instead of returning it": Reject("no"),
    "raise ValueError instead of returning it": ValueError("torn"),
    "raise KeyError instead of returning it": KeyError,
    "Retry is for run_batch: raise RetryLater here": batch_outcomes.Retry(5),
    "Dead is for run_batch: raise Reject here": batch_outcomes.Dead,
    "Done is for run_batch: return its result by itself here": batch_outcomes.Done(),
    "return an instance, as in Then(schema, payload)": Then,
    "for several next jobs return Then.all": [Then(JobSchema("points", JobInput), {})],
    "loop over it in run": in_steps(),
    "none of it has run": in_async_steps(),
}


@pytest.mark.parametrize(("advice", "output"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_no_result_that_can_be_dropped(
    schema: JobSchema[Any, Any], advice: str, output: object
) -> None:
    settlement = without_output(schema, output)

    assert isinstance(settlement, Dead)
    assert settlement.reason == "invalid result"
    assert advice in settlement.error


def without_output(schema: JobSchema[Any, Any], output: object, *, runs: int = 1) -> Settlement:
    """Run a job whose schema has no output so often, and return the last settlement."""
    bare = JobSchema("points", schema.input)
    body = encode(job_from_schema(bare, {"x": 1.5, "y": 2}), bare)
    executor = Executor(bare, lambda job: output, bare.retry, True, 1024, logging.getLogger("results"))
    settlements = [executor.execute(Delivery("a", body, "receipt", 1, 1, 0, None)) for _ in range(runs)]
    return settlements[-1]


async def forgotten() -> None:
    """Nobody awaits it."""


@pytest.mark.parametrize(
    ("returned", "advice"),
    [
        (lambda: forgotten(), "got coroutine; make run an async def, and await it there"),
        (lambda: Reject("no"), "got Reject; raise Reject instead of returning it"),
        (lambda: RetryLater(5), "got RetryLater; raise RetryLater instead of returning it"),
    ],
)
def test_what_was_probably_forgotten_is_said(
    execute: Execute, returned: Callable[[], object], advice: str
) -> None:
    """And no warning of a coroutine that was never awaited is left behind."""
    settlement = execute(lambda job: returned())

    assert isinstance(settlement, Dead)
    assert settlement.error.endswith(advice)


@pytest.mark.parametrize(
    "raised",
    [ValueError("no"), TypeError("no"), RetryLater(5), KeyboardInterrupt(), Reject("no"), SystemExit()],
)
def test_whatever_a_validator_of_the_result_raises_is_permanent(raised: BaseException) -> None:
    """It isn't the handler that raised it, whatever it is; and no consumer ends by it (RES-1)."""

    class Fussy(JobOutput):
        total: float

        @field_validator("total")
        @classmethod
        def refuse(cls, total: float) -> float:
            raise raised

    schema = JobSchema("points", JobInput, Fussy)
    executor = Executor(
        schema, lambda job: {"total": 1}, schema.retry, True, 1024, logging.Logger("silent", 99)
    )

    dead = executor.execute(Delivery("a", encode(job_from_schema(schema, {}), schema), "r", 1, 1, 0, None))

    assert isinstance(dead, Dead)
    assert dead.reason == "invalid result"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), "InvalidPayload: result: can't be written as JSON: "),
        (float("nan"), "InvalidPayload: result: NaN and infinity can't be written as JSON"),
        ("x" * 2000, "BodyTooLarge: result of 2,012 bytes: the limit is 1,024 bytes"),
        ({"deep": [b"text"]}, "InvalidPayload: result: value.deep.0 is bytes in a field without a type"),
    ],
)
def test_a_result_that_cannot_be_written_is_dead_at_once(value: object, error: str) -> None:
    """Though it fits its model (RES-1)."""

    class Free(JobOutput):
        value: Any = None

    schema = JobSchema("points", JobInput, Free)
    executor = Executor(
        schema, lambda job: {"value": value}, schema.retry, True, 1024, logging.Logger("silent", 99)
    )

    dead = executor.execute(Delivery("a", encode(job_from_schema(schema, {}), schema), "r", 1, 1, 0, None))

    assert isinstance(dead, Dead)
    assert (dead.reason, decode_failure(dead.error).error[: len(error)]) == ("invalid result", error)


@pytest.mark.parametrize(
    "raised", [TypeError("run() takes 1 positional argument"), InvalidPayload("result: no")]
)
def test_an_error_of_the_handler_is_retried_whatever_it_looks_like(
    execute: Execute, raised: Exception
) -> None:
    """Only what happens after it has returned is permanent (RTY-1)."""
    assert isinstance(execute(raising(raised)), Retry)


def test_a_backend_that_keeps_no_results_is_sent_none(execute: Execute) -> None:
    """The output is validated all the same, so that handlers don't differ by backend."""
    assert execute(lambda job: {"total": 3}, keep_results=False).result is None
    assert isinstance(execute(lambda job: {"total": "three"}, keep_results=False), Dead)


# -- what the handler raises ----------------------------------------------------------------------


class Unspeakable(Exception):
    def __init__(self, why: BaseException) -> None:
        self._why = why

    def __str__(self) -> str:
        raise self._why

    __repr__ = __str__


class NoBase(Reject):
    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError("no threes"), "ValueError: no threes"),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (SystemExit(2), "SystemExit: 2"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (CancelledError(), "CancelledError"),
        (ExceptionGroup("two", [ValueError(), TypeError()]), "ExceptionGroup: two (2 sub-exceptions)"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: 'utf-8' codec"),
        (FileNotFoundError("caf\udce9.txt"), r"FileNotFoundError: caf\udce9.txt"),
        (Unspeakable(RuntimeError()), "Unspeakable: its message can't be shown"),
        (Unspeakable(SystemExit(3)), "Unspeakable: its message can't be shown"),
        (Unspeakable(KeyboardInterrupt()), "Unspeakable: its message can't be shown"),
        (NoBase(), "AttributeError: 'NoBase' object has no attribute 'reason'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises_is_a_failed_attempt(
    execute: Execute, raised: BaseException, error: str
) -> None:
    """The error is told by type and message, in text that any broker can store (RTY-1)."""
    settlement = execute(raising(raised))

    assert isinstance(settlement, Retry)
    assert settlement.error.startswith(error)


def test_an_error_whose_class_is_broken_is_a_failed_attempt(execute: Execute) -> None:
    """Even where logging its traceback and asking for its name end in SystemExit."""

    class NamelessType(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise SystemExit

    class Nameless(Exception, metaclass=NamelessType):
        pass

    assert execute(raising(Nameless())).error == "an error: its message can't be shown"


def test_a_long_error_keeps_its_end(execute: Execute) -> None:
    """The cause stands there, and a traceback can't fill a broker."""
    error = execute(raising(ValueError("x" * 10_000 + "the cause"))).error

    assert len(error) == 2048
    assert error.startswith("…")
    assert error.endswith("the cause")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(1), Unspeakable(SystemExit(3))])
def test_whatever_a_validator_raises_is_a_malformed_body(
    raised: BaseException, schema: JobSchema[Any, Any]
) -> None:
    """It is dead at once, and no consumer ends by it (RCV-4)."""

    class Fussy(JobInput):
        x: int = 0

        @field_validator("x")
        @classmethod
        def refuse(cls, x: int) -> int:
            raise raised

    fussy = JobSchema("points", Fussy)
    body = encode(job_from_schema(schema, {}, id="a"), schema)
    executor = Executor(fussy, lambda job: None, fussy.retry, True, 1024, logging.getLogger("test"))

    dead = executor.execute(Delivery("a", body, "receipt", 1, 1, 0, None))

    assert isinstance(dead, Dead)
    assert dead.reason == "malformed"


@pytest.mark.parametrize("raised", [ValueError(), SystemExit(), KeyboardInterrupt()])
def test_a_program_whose_logging_fails_ends_no_consumer(execute: Execute, raised: BaseException) -> None:
    """A filter of its own may raise anything (RTY-1)."""

    def fails(record: logging.LogRecord) -> bool:
        raise raised

    logger = logging.getLogger("test")
    logger.addFilter(fails)
    try:
        assert isinstance(execute(raising(ValueError("no"))), Retry)
        assert isinstance(execute(raising(Reject("no"))), Dead)
    finally:
        logger.removeFilter(fails)


# -- what asks the process to stop ----------------------------------------------------------------


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_second_signal_passes_through(execute: Execute, signals_as_before: None) -> None:
    """It is no failure of the job that it interrupts, but a KeyboardInterrupt for the caller."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(job: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SecondSignal), stopping_on_signals(lambda: None):
        execute(interrupted)
    assert issubclass(SecondSignal, KeyboardInterrupt)


class Program:
    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def on_signal(self, number: int, frame: object) -> None:
        raise self.raised

    def on_signal_with(self, something: int, number: int, frame: object) -> None:
        raise self.raised


@pytest.mark.parametrize("raised", [SystemExit(0), KeyboardInterrupt(), ValueError("the program's own")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_programs_own_signal_handler_raises_passes_through(
    execute: Execute, signals_as_before: None, raised: BaseException, number: int
) -> None:
    """The process was asked to stop; the job did nothing wrong."""
    program = Program(raised)
    for handler in (program.on_signal, partial(program.on_signal_with, 1)):
        signal.signal(number, handler)
        with pytest.raises(type(raised)):
            execute(lambda job: signal.raise_signal(number))


def test_with_a_signal_handler_of_the_programs_a_jobs_error_is_the_jobs(
    execute: Execute, signals_as_before: None, background: Any
) -> None:
    """Where no signal came, and in a thread, where none is handled."""
    program = Program(KeyboardInterrupt())
    signal.signal(signal.SIGTERM, program.on_signal)

    assert isinstance(execute(raising(KeyboardInterrupt())), Retry)
    by_itself = partial(execute, lambda job: program.on_signal(signal.SIGTERM, None))
    assert isinstance(background(by_itself).result(), Retry)


# -- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_retry_waits_by_the_policy(execute: Execute, attempt: int) -> None:
    """The delay is drawn from the interval that belongs to the attempt (RTY-1)."""
    policy = RetryPolicy(max_attempts=5, base_delay_s=10)

    delays = [execute(raising(ValueError()), policy=policy, attempt=attempt).delay_s for _ in range(50)]

    bound = 10 * 2 ** (attempt - 1)
    assert all(0 <= delay <= bound for delay in delays)
    assert max(delays) > bound / 2


def test_a_handler_may_choose_when_to_retry(execute: Execute) -> None:
    """``RetryLater`` replaces the policy's backoff (RTY-2)."""
    assert execute(raising(RetryLater(90, "busy"))) == Retry("receipt", 90.0, "busy")
    assert "asked to retry later" in execute(raising(RetryLater(0))).error


@pytest.mark.parametrize("delay_s", [-1, float("inf"), "5", None])
def test_a_delay_out_of_range_is_refused_where_it_is_made(execute: Execute, delay_s: Any) -> None:
    """``RetryLater(-1)`` raises in the handler, whose attempt has then failed (RTY-2)."""
    with pytest.raises(InvalidJob, match=f"delay_s {delay_s!r}: must be a number of seconds"):
        RetryLater(delay_s)

    assert execute(lambda job: RetryLater(delay_s)).error.startswith("InvalidJob: delay_s")


@pytest.mark.parametrize("reason", ["no such thing", ValueError("no such thing")])
def test_a_handler_may_reject(execute: Execute, reason: Any) -> None:
    """``Reject`` dead-letters at once, with attempts left; the reason may be an exception (RTY-2)."""
    assert execute(raising(Reject(reason))) == Dead("receipt", "rejected", "no such thing")
    assert execute(raising(RetryLater(0, reason))).error == "no such thing"


# -- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("no threes"), RetryLater(5, "ValueError: no threes")])
@pytest.mark.parametrize(("own", "policys"), [(None, 3), (3, 9), (3, 1)])
def test_the_last_attempt_that_fails_is_the_end(
    execute: Execute, raised: Exception, own: int | None, policys: int
) -> None:
    """The budget is the job's own or else the policy's, and asking to retry spends it too (RTY-1)."""
    budgets = {"max_attempts": own, "policy": RetryPolicy(max_attempts=policys)}

    assert isinstance(execute(raising(raised), attempt=2, **budgets), Retry)
    assert execute(raising(raised), attempt=3, **budgets) == Dead(
        "receipt", "attempts exhausted", "ValueError: no threes"
    )


def test_a_job_that_kills_its_worker_is_given_up(execute: Execute) -> None:
    """The crash budget is counted apart from attempts, and the handler isn't called again (RTY-3)."""
    ran = []
    policy = RetryPolicy(max_crashes=2)

    assert isinstance(execute(ran.append, crashes=1, policy=policy), Ack)
    dead = execute(ran.append, crashes=2, policy=policy)

    assert isinstance(dead, Dead)
    assert dead.reason == "crash budget exhausted"
    assert dead.error == "2 deliveries ended without a settlement: does the job kill its worker?"
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "MalformedBody: not JSON: "),
        (b"\x80\x04.", "MalformedBody: not JSON: "),
        (b'{"v":1}', "MalformedBody: envelope without 'id'"),
        (
            b'{"v":1,"id":"a","schema":"other","created_at":1,"payload":{}}',
            "MalformedBody: job of schema 'other', expected 'points'",
        ),
        (
            b'{"v":1,"id":"a","schema":"points","created_at":1,"payload":{"x":"one"}}',
            "InvalidPayload: payload: doesn't fit Point (x: ",
        ),
        (b" " * 1025, "BodyTooLarge: body of 1,025 bytes: the limit is 1,024 bytes"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_dead(execute: Execute, body: bytes, error: str) -> None:
    """At once, with its reason, and the handler never sees it (RCV-4)."""
    ran = []

    dead = execute(ran.append, body=body)

    assert isinstance(dead, Dead)
    assert dead.reason == "malformed"
    assert dead.error.startswith(error)
    assert ran == []
