"""Bad input is a typed error that names the value and the rule, and nothing is published or lost."""

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    Reject,
    Unique,
    job_from_schema,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain import errors
from mindtrace.jobs.domain.envelope import decode
from mindtrace.jobs.domain.errors import JobsError


class Note(JobInput):
    text: str = ""


class Idle(Consumer):
    def run(self, job: Job[Any]) -> None:
        pass


class NoHandler(Consumer):
    pass


class GeneratorHandler(Consumer):
    def run(self, job: Job[Any]) -> Any:
        yield job


class NoArgument(Consumer):
    def run(self) -> None:
        pass


class NoFunction(Consumer):
    run = None


class ForgottenInit(Consumer):
    def __init__(self) -> None:
        self.mine = 1

    def run(self, job: Job[Any]) -> None:
        pass


class OddPolicy(Idle):
    retry = 5


class OddLoop(Idle):
    loop_factory = "uvloop"


@dataclass
class World:
    """What a refusal is provoked in."""

    near: Orchestrator
    """One job waits in its queue ``points``; another, ``w``, in ``notes``, which carries strings."""
    far: Orchestrator
    """One job waits in its queue ``points``, beyond ``line``."""
    line: Any
    schema: JobSchema[Any, Any]
    consumer: Consumer
    """Connected to ``near``."""
    dead_id: str
    """A job of ``far`` that is dead."""
    cancelled_id: str
    """A job of ``far`` that was cancelled."""

    def publish(self, job: Any, **settings: Any) -> str:
        return self.near.publish("points", job, **settings)

    def lose_the_confirm(self) -> str:
        self.line.breaks["publish"] = 1
        return self.far.publish("points", job_from_schema(self.schema, {}, id="a"))

    def lose_the_line(self) -> int:
        self.line.breaks["counts"] = 1
        return self.far.count_queue_messages("points")


@pytest.fixture
def world(
    orchestrator: Orchestrator,
    far: Orchestrator,
    line: Any,
    schema: JobSchema[Any, Any],
    make_consumer: Callable[..., Consumer],
) -> World:
    orchestrator.register(JobSchema("notes", Note))
    orchestrator.publish("points", {})
    orchestrator.publish("notes", orchestrator.job("notes", {"text": ""}, id="w"))
    dead_id = far.publish("points", {})
    make_consumer(refuse, to=far).consume(1)
    cancelled_id = far.publish("points", {})
    far.cancel("points", cancelled_id)
    return World(orchestrator, far, line, schema, make_consumer(), dead_id, cancelled_id)


def refuse(job: Job[Any]) -> None:
    raise Reject("no such thing")


def replaced_result(orchestrator: Orchestrator) -> Any:
    orchestrator.register(JobSchema("newest", Note, unique=Unique(replace=True)))
    for job_id in ("early", "late"):
        orchestrator.publish("newest", orchestrator.job("newest", {"text": ""}, id=job_id))
    orchestrator.receive_message("newest")
    return orchestrator.result("newest", "early")


def expired_result() -> Any:
    clock = ManualClock()
    with LocalClient(clock=clock) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(JobSchema("frames", Note, expires_s=10))
        orchestrator.publish("frames", orchestrator.job("frames", {"text": ""}, id="old"))
        clock.advance(10)
        orchestrator.receive_message("frames")
        return orchestrator.result("frames", "old")


def closed(schema: JobSchema[Any, Any]) -> Orchestrator:
    with Orchestrator("memory://") as orchestrator:
        orchestrator.register(schema)
    return orchestrator


REFUSALS: dict[str, tuple[type[JobsError], str, Callable[[World], object]]] = {
    # -- the list
    "a wrong queue name": (
        errors.InvalidName,
        "queue name 'my points': use 1 to 128 characters of A-Z a-z 0-9 . _ -",
        lambda w: w.near.publish("my points", {}),
    ),
    "a queue name that is no string": (
        errors.InvalidName,
        "queue name 7: use 1 to 128 characters",
        lambda w: w.near.counts(7),
    ),
    "a queue that was never declared": (
        errors.QueueNotFound,
        "queue 'nowhere': register its schema with this orchestrator first; registered: 'notes', 'points'",
        lambda w: w.near.publish("nowhere", {}),
    ),
    "counting a queue that was never declared": (
        errors.QueueNotFound,
        "queue 'nowhere': not declared; register its schema first",
        lambda w: w.near.count_queue_messages("nowhere"),
    ),
    "a schedule that nobody defined": (
        errors.ScheduleNotFound,
        "schedule 'nightly': not defined",
        lambda w: w.near.schedules.pause("nightly"),
    ),
    "a limit that nobody declared": (
        errors.LimitNotFound,
        "limit 'gpu': not declared; declared: none",
        lambda w: w.near.change_limit("gpu", 8),
    ),
    "a consumer of an unknown schema": (
        errors.SchemaNotRegistered,
        "no schema 'nowhere' is registered: call orchestrator.register(schema) before connecting",
        lambda w: Idle("nowhere").connect(w.near),
    ),
    "a payload of the wrong shape": (
        errors.InvalidPayload,
        "payload: doesn't fit Point (x: Input should be a valid number",
        lambda w: w.publish({"x": "one"}),
    ),
    "a payload of another model": (
        errors.InvalidPayload,
        "payload: expected Point or a dict, got Note",
        lambda w: w.publish(Note()),
    ),
    "a job whose payload was never validated": (
        errors.InvalidPayload,
        "payload: doesn't fit Point (x: ",
        lambda w: w.publish(Job(schema_name="points", payload={"x": "one"})),
    ),
    "a job of another schema": (
        errors.SchemaMismatch,
        "is of schema 'other'; queue 'points' carries 'points'",
        lambda w: w.publish(job_from_schema(JobSchema("other", Note), {})),
    ),
    "a negative delay": (
        errors.InvalidJob,
        "delay_s -1: must be a number of seconds, from 0 to",
        lambda w: w.publish({}, delay_s=-1),
    ),
    "a moment in two years": (
        errors.InvalidJob,
        "must be within 366 days from now",
        lambda w: w.publish({}, not_before=datetime.now(UTC) + timedelta(days=2 * 366)),
    ),
    "a delay of two years": (
        errors.InvalidJob,
        "delay_s 63244800: must be a number of seconds, from 0 to 31,622,400 (366 days)",
        lambda w: w.publish({}, delay_s=2 * 366 * 86_400),
    ),
    "a moment in a far century": (
        errors.InvalidJob,
        "not_before ",
        lambda w: w.publish(job_from_schema(w.schema, {}, not_before=datetime(2525, 1, 1, tzinfo=UTC))),
    ),
    "priority 11": (
        errors.InvalidJob,
        "priority 11: must be an integer from 0 to 9",
        lambda w: w.publish({}, priority=11),
    ),
    "a priority that is no number": (
        errors.InvalidJob,
        "priority '': must be an integer from 0 to 9",
        lambda w: w.publish({}, priority=""),
    ),
    "a priority on a queue without": (
        errors.InvalidJob,
        "priority 5: queue 'points' is fifo; give its schema queue_type=\"priority\"",
        lambda w: w.publish({}, priority=5),
    ),
    "a consumer that isn't connected": (
        errors.NotConnected,
        "consumer of 'points': call connect(orchestrator) first",
        lambda w: Idle("points").consume(1),
    ),
    "connecting twice": (
        errors.AlreadyConnected,
        "consumer of 'points' is connected: close() it first",
        lambda w: w.consumer.connect(w.near),
    ),
    "consume(-1)": (
        errors.InvalidInput,
        "num_messages -1: must be an integer from 0",
        lambda w: w.consumer.consume(-1),
    ),
    "consume(1.5)": (
        errors.InvalidInput,
        "num_messages 1.5: must be an integer from 0",
        lambda w: w.consumer.consume(1.5),
    ),
    "a run that isn't implemented": (
        errors.HandlerMissing,
        "NoHandler has no handler: define run(self, job)",
        lambda w: NoHandler("points"),
    ),
    "a run that is a generator": (
        errors.HandlerMissing,
        "GeneratorHandler.run is a generator: return the result, without yield",
        lambda w: GeneratorHandler("points"),
    ),
    "a run that is no function": (
        errors.HandlerMissing,
        "NoFunction has no handler: define run(self, job)",
        lambda w: NoFunction("points"),
    ),
    "a run that takes no job": (
        errors.HandlerMissing,
        "NoArgument.run(self) can't be called with a job (too many positional arguments): "
        "define run(self, job)",
        lambda w: NoArgument("points"),
    ),
    "a payload with an unknown key": (
        errors.InvalidPayload,
        "payload: unknown key 'txet' (did you mean 'text'?)",
        lambda w: w.near.publish("notes", {"txet": "hello"}),
    ),
    "a body of 5 MB": (
        errors.BodyTooLarge,
        "bytes: the limit is 1,048,576 bytes",
        lambda w: w.near.publish("notes", {"text": "x" * 5_000_000}),
    ),
    # -- the rest of the tree
    "a queue type that doesn't exist": (
        errors.InvalidInput,
        "queue type 'lifo': must be one of fifo, stack, priority",
        lambda w: w.near.register(JobSchema("new", Note), "lifo"),
    ),
    "registering what is no schema": (
        errors.InvalidInput,
        "register('points'): pass a JobSchema",
        lambda w: w.near.register("points"),
    ),
    "connecting to what is no orchestrator": (
        errors.InvalidInput,
        "pass an Orchestrator",
        lambda w: Idle("points").connect(w.near.backend),
    ),
    "a lease of no length": (
        errors.InvalidInput,
        "lease_s 0: must be more than 0 seconds",
        lambda w: Idle("points").connect(w.near, lease_s=0),
    ),
    "a prefetch of nothing": (
        errors.InvalidInput,
        "prefetch 0: must be an integer from 1 to 10000",
        lambda w: Idle("points").connect(w.near, prefetch=0),
    ),
    "a negative poll": (
        errors.InvalidInput,
        "poll_timeout_s -1: must be a number of seconds",
        lambda w: Idle("points").connect(w.near, poll_timeout_s=-1),
    ),
    "a policy that is none": (
        errors.InvalidInput,
        "OddPolicy.retry 5: must be a RetryPolicy",
        lambda w: OddPolicy("points").connect(w.near),
    ),
    "a name in place of what makes event loops": (
        errors.InvalidInput,
        "OddLoop.loop_factory 'uvloop': must be a function that makes an event loop",
        lambda w: OddLoop("points").connect(w.near),
    ),
    "a consumer whose __init__ forgot its base": (
        errors.UsageError,
        'ForgottenInit.__init__ must call super().__init__("my_jobs"), with the name of its queue',
        lambda w: ForgottenInit().connect(w.near),
    ),
    "a schema without an input": (
        errors.InvalidSchema,
        "schema 'new': input is missing",
        lambda w: w.near.register(JobSchema("new")),
    ),
    "a body that is no envelope": (
        errors.MalformedBody,
        "not JSON: ",
        lambda w: decode(b"\x80\x04.", w.schema),
    ),
    "a second schema for one queue": (
        errors.SchemaConflict,
        "queue 'points' carries jobs of Point -> Total, not Note -> JobOutput",
        lambda w: w.near.register(JobSchema("points", Note)),
    ),
    "a queue declared anew as another type": (
        errors.QueueConflict,
        "queue 'points' already has the type fifo, not stack",
        lambda w: w.near.register(w.schema, "stack"),
    ),
    "a backend that is none": (
        errors.UnknownBackend,
        "int is not a backend: pass an OrchestratorBackend, such as LocalClient(), or a URL; "
        "registered: amqp://, amqps://, memory://, postgres://, postgresql://, redis+sentinel://, redis://, "
        "rediss://, sqlite://",
        lambda w: Orchestrator(7),
    ),
    "a list limit below zero": (
        errors.InvalidInput,
        "limit -1: must be an integer from 0",
        lambda w: w.near.dead_letters("points", limit=-1),
    ),
    "a list offset below zero": (
        errors.InvalidInput,
        "offset -1: must be an integer from 0",
        lambda w: w.near.dead_letters("points", offset=-1),
    ),
    "one id where a list is due": (
        errors.InvalidInput,
        "job ids 'abc': pass a list of ids",
        lambda w: w.near.discard("points", "abc"),
    ),
    "an id that could be none": (
        errors.InvalidName,
        "job id 'a b': use 1 to 128 characters",
        lambda w: w.near.redrive("points", ["a b"]),
    ),
    "a result of an id that could be none": (
        errors.InvalidName,
        "job id '': use 1 to 128 characters",
        lambda w: w.near.result("points", ""),
    ),
    "waiting a negative time": (
        errors.InvalidInput,
        "timeout_s -1: must be a number of seconds",
        lambda w: w.near.result("points", "a", timeout_s=-1),
    ),
    "the result of a job that waits": (
        errors.ResultNotReady,
        "job w: no result within 0 s: it is waiting",
        lambda w: w.near.result("notes", "w"),
    ),
    "the result of a job that isn't known": (
        errors.JobNotFound,
        "job a: not known in queue 'points'",
        lambda w: w.near.result("points", "a"),
    ),
    "a result that has expired": (
        errors.ResultExpired,
        "was made at 2025-06-15 15:06:40 UTC, and results are kept for 3600 s",
        lambda w: w.near.result("points", "01977420dc0000000000000000000000"),
    ),
    "the orchestrator of a job outside its handler": (
        errors.NotInHandler,
        "no handler runs here",
        lambda w: w.near.job("points", {}).orchestrator,
    ),
    "the result of a dead job": (
        errors.JobFailed,
        "no such thing",
        lambda w: w.far.result("points", w.dead_id),
    ),
    "the result of a job that was replaced": (
        errors.JobReplaced,
        "job early: didn't run: job late, published later, took its place",
        lambda w: replaced_result(w.near),
    ),
    "the result of a job that has expired": (
        errors.JobExpired,
        "job old: it expired at 2023-11-14 22:13:30 UTC, while it waited",
        lambda _: expired_result(),
    ),
    "the result of a cancelled job": (
        errors.JobCancelled,
        "it was cancelled",
        lambda w: w.far.result("points", w.cancelled_id),
    ),
    "changing a job": (
        errors.ImmutableJob,
        "job.id: a job can't be changed; make another, as in dataclasses.replace(job, priority=5)",
        lambda w: setattr(job_from_schema(w.schema, {}), "id", "a"),
    ),
    "a closed backend": (
        errors.Closed,
        "this LocalClient is closed",
        lambda w: closed(w.schema).publish("points", {}),
    ),
    "what a backend can't do": (
        errors.UnsupportedCapability,
        "this backend keeps no results",
        lambda w: replace(w.near.backend.capabilities, results=False).require_results(),
    ),
    "joining a transaction on a backend that can't": (
        errors.UnsupportedCapability,
        "this backend can't publish in your transaction, as PostgreSQL can: publish after the commit, "
        "without connection=",
        lambda w: w.publish({}, connection=object()),
    ),
    "a confirm that didn't come": (
        errors.PublishUnknown,
        "job a may or may not be in queue 'points': the connection broke before the confirm; "
        "publish it again under the same id: if it is in the queue, that changes nothing",
        World.lose_the_confirm,
    ),
    "a backend that is away": (
        errors.BackendUnavailable,
        "the line broke during counts",
        World.lose_the_line,
    ),
}

ELSEWHERE = {
    errors.JobsError,
    errors.BackendError,
    errors.AdapterNotInstalled,
    errors.AccessDenied,
    errors.BrokerUnsuitable,
    errors.MigrationNeeded,
    errors.StartFailed,
    errors.JobTimedOut,
}
"""Two are caught, never raised themselves. One needs a broken installation, three a broker, two a handler."""


@pytest.mark.parametrize(("error", "message", "provoke"), REFUSALS.values(), ids=REFUSALS.keys())
def test_it_is_refused_and_nothing_is_published_or_lost(
    world: World, error: type[JobsError], message: str, provoke: Callable[[World], object]
) -> None:
    """A typed error of the one tree names the value and the rule; every queue is as it was (PUB-6, PUB-3)."""
    before = [world.near.counts(queue) for queue in ("points", "notes")]

    with pytest.raises(error) as raised:
        provoke(world)

    assert type(raised.value) is error
    assert message in str(raised.value)
    assert [world.near.counts(queue) for queue in ("points", "notes")] == before
    assert world.consumer.consume(1) == 1


def test_every_error_of_the_tree_is_provoked() -> None:
    """No error is defined that nothing raises."""
    defined = {error for _, error in inspect.getmembers(errors, inspect.isclass)}

    assert {error for error, _, _ in REFUSALS.values()} | ELSEWHERE == defined


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidInput, ValueError),
        (errors.UsageError, RuntimeError),
        (errors.HandlerMissing, TypeError),
        (errors.SchemaNotRegistered, LookupError),
        (errors.UnknownBackend, TypeError),
        (errors.AdapterNotInstalled, ImportError),
        (errors.BackendUnavailable, ConnectionError),
        (errors.QueueNotFound, KeyError),
        (errors.ImmutableJob, AttributeError),
        (errors.UnsupportedCapability, NotImplementedError),
        (errors.ResultNotReady, TimeoutError),
    ],
)
def test_an_error_can_be_caught_as_the_builtin_that_it_is(
    error: type[JobsError], builtin: type[Exception]
) -> None:
    """Whoever doesn't know the tree still catches what they would expect."""
    assert issubclass(error, builtin)
    assert issubclass(error, JobsError)


def test_a_key_error_reads_as_a_sentence(orchestrator: Orchestrator) -> None:
    """Without the quotes that Python puts around the message of one; also in a traceback."""
    with pytest.raises(KeyError) as raised:
        orchestrator.publish("nowhere", {})

    assert str(raised.value) == (
        "queue 'nowhere': register its schema with this orchestrator first; registered: 'points'"
    )
    assert traceback.format_exception_only(raised.value) == [
        f"mindtrace.jobs.domain.errors.QueueNotFound: {raised.value}\n"
    ]


def test_a_handler_that_raises_costs_its_own_job_only(
    orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]
) -> None:
    """Nine of ten jobs are done though one fails every time (RTY-1)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(10)])

    def fail_on_3(job: Job[Any]) -> None:
        if job.payload.x == 3:
            raise ValueError("no threes")

    consumer = make_consumer(fail_on_3)
    consumer.consume_until_empty()

    assert (consumer.stats.done, consumer.stats.dead) == (9, 1)
    (dead,) = orchestrator.dead_letters("points")
    assert (dead.reason, dead.error) == ("attempts exhausted", "ValueError: no threes")
