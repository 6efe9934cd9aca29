"""The mistakes of a newcomer: each raises a typed error that says what to do instead.

Every row makes its mistake for real. The remedy is the part of the message that helps.
"""

import asyncio
import dataclasses
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, RootModel, create_model

from mindtrace.jobs import (
    AnyJSON,
    Consumer,
    DeadJob,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Limit,
    LocalClient,
    Observer,
    Orchestrator,
    OrchestratorBackend,
    RabbitMQClient,
    Rate,
    RedisClient,
    RedisResultStore,
    RetryLater,
    RetryPolicy,
    Scheduler,
    Snooze,
    SQLiteClient,
    Then,
    Unique,
    errors,
    job_from_schema,
    job_handler,
)
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.loading import load_maker, load_schema
from mindtrace.jobs.domain.bounds import MAX_BODY_BYTES

NOBODYS_PORT = 1
"""Nothing listens there."""
UNKNOWN_HOST = "no-such-host.invalid"
"""A name that is never registered (RFC 2606)."""


class Image(JobInput):
    path: str


class Report(JobOutput):
    defects: int = 0


class Bag(JobInput):
    item: Any = None


class Small(JobInput):
    n: int = Field(ge=0)


SCHEMA = JobSchema("inspect", Image, Report)
OTHER = JobSchema("other", Image, Report)


class Inspector(Consumer):
    schema = SCHEMA

    def run(self, job: Job[Image]) -> Report:
        return Report()


class Nameless(Consumer):
    def run(self, job: Job[Any]) -> None: ...


class Named(Nameless):
    """Its schema is a name."""

    schema = "inspect"  # type: ignore[assignment]


class Hasty(Inspector):
    timeout_s = -1


class AsyncInspector(Inspector):
    async def run(self, job: Job[Image]) -> Report:  # type: ignore[override]
        return Report()


async def alert(dead: DeadJob[Image]) -> Then:
    """Names the next job of a death, in a way that nobody would await."""
    return Then(JobSchema("alert", Image), Image(path=dead.id))


@job_handler(SCHEMA)
def handle(job: Job[Image]) -> Report:
    return Report()


class AsyncOpener(Inspector):
    async def on_start(self) -> None: ...


class NoRun(Consumer):
    schema = SCHEMA


class Yielding(Inspector):
    def run(self, job: Job[Image]) -> Any:
        yield Report()


class Swapped(Consumer[Report, Image]):  # type: ignore[type-var]
    schema = SCHEMA

    def run(self, job: Job[Any]) -> Any: ...


class OnUrgent(Inspector):
    queue_name = "urgent"  # type: ignore[assignment]


class OwnInit(Inspector):
    def __init__(self) -> None:
        self.model = "resnet"


class ScheduledByText(Inspector):
    schedule = "0 3 * * *"  # type: ignore[assignment]


class OddPolicy(Inspector):
    retry = 5  # type: ignore[assignment]


@dataclasses.dataclass
class Dataclass:
    path: str


class Typed(TypedDict):
    path: str


class Paths(RootModel[list[str]]):
    pass


class Renamed(JobInput):
    path: str = Field(validation_alias="p", serialization_alias="q")


class Hidden(JobInput):
    path: str = Field(exclude=True)


@dataclasses.dataclass
class World:
    """What a mistake is made in."""

    jobs: Orchestrator
    """It has the queues ``inspect``, ``other`` and ``bags``, without jobs."""
    folder: Path
    stranger: int
    """The port of a server that speaks another protocol."""

    def publish(self, job: Any, **settings: Any) -> Any:
        return self.jobs.publish("inspect", job, **settings)

    def connected(self, consumer: Consumer) -> Consumer:
        consumer.connect(self.jobs, poll_timeout_s=0.0)
        return consumer


@pytest.fixture(scope="module")
def stranger() -> Iterator[int]:
    """A server that answers everything as a web server does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def world(tmp_path: Path, stranger: int) -> Iterator[World]:
    with LocalClient() as client:
        jobs = Orchestrator(client)
        jobs.register(SCHEMA)
        jobs.register(OTHER)
        jobs.register(JobSchema("bags", Bag))
        yield World(jobs, tmp_path, stranger)


def awaiting(call: Callable[[], Any]) -> None:
    """Await what a call returns, as an async program would."""

    async def program() -> None:
        await call()

    asyncio.run(program())


def in_a_loop(call: Callable[[], Any]) -> None:
    async def program() -> None:
        call()

    asyncio.run(program())


def not_awaited(call: Callable[[Any], Any]) -> None:
    """Call with a coroutine, which is closed then, as Python would warn of it."""

    async def publish() -> None: ...

    coroutine = publish()
    try:
        call(coroutine)
    finally:
        coroutine.close()


_getaddrinfo = socket.getaddrinfo


def resolve(host: Any, *arguments: Any, **settings: Any) -> Any:
    """Resolve a name, without asking a server for the unknown one: it may take its time."""
    if host == UNKNOWN_HOST:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(host, *arguments, **settings)


def counted(client: OrchestratorBackend) -> None:
    """Make a first call of a client that is closed afterwards."""
    with client:
        client.counts("inspect")


def registered(client: OrchestratorBackend, queue_type: str = "fifo") -> None:
    """Likewise, by an orchestrator."""
    with client:
        Orchestrator(client).register(SCHEMA, queue_type)


def away() -> RedisClient:
    """A client whose broker is down."""
    return RedisClient("127.0.0.1", NOBODYS_PORT, retry_timeout_s=0.1)


def published_after_a_failed_register() -> None:
    with away() as client:
        jobs = Orchestrator(client)
        with pytest.raises(errors.BackendUnavailable):
            jobs.register(SCHEMA)
        jobs.publish("inspect", {"path": "a.png"})


def closed() -> Orchestrator:
    with Orchestrator("memory://") as jobs:
        jobs.register(SCHEMA)
    return jobs


def module(world: World, text: str = "") -> None:
    """Write the module ``tasks_of_a_newcomer``."""
    world.folder.joinpath("tasks_of_a_newcomer.py").write_text(
        text
        or "from mindtrace.jobs import *\n"
        "class Image(JobInput):\n    path: str\n"
        "schema = JobSchema('inspect', Image)\n"
        "class Inspector(Consumer):\n    schema = schema\n    def run(self, job): ...\n"
        "inspector = Inspector()\n",
        "utf-8",
    )


def loading(name: str, load: Callable[[str], Any] = load_maker) -> Callable[[World], Any]:
    def load_it(world: World) -> Any:
        module(world)
        return load(f"tasks_of_a_newcomer:{name}")

    return load_it


Row = tuple[type[Exception], str, Callable[[World], Any]]

NAMES: dict[str, Row] = {
    "a schema as the name of a consumer": (
        errors.InvalidName,
        "pass its name, 'inspect'",
        lambda w: Nameless(SCHEMA),  # type: ignore[arg-type]
    ),
    "a schema as the name of a schema": (
        errors.InvalidName,
        "pass its name, 'inspect'",
        lambda w: JobSchema(SCHEMA, Image),  # type: ignore[arg-type]
    ),
    "a schema as an id": (
        errors.InvalidName,
        "pass its name, 'inspect'",
        lambda w: w.jobs.result("inspect", SCHEMA),  # type: ignore[call-overload]
    ),
    "a consumer class as a queue": (
        errors.InvalidName,
        "pass its schema's name, 'inspect'",
        lambda w: w.jobs.publish(Inspector, {"path": "a.png"}),  # type: ignore[call-overload]
    ),
    "a consumer as a queue": (
        errors.InvalidName,
        "pass its schema's name, 'inspect'",
        lambda w: w.jobs.counts(Inspector()),  # type: ignore[arg-type]
    ),
    "a model as a queue": (
        errors.InvalidName,
        "pass a name, not a class",
        lambda w: w.jobs.publish(Image, {"path": "a.png"}),  # type: ignore[call-overload]
    ),
    "a name with a space": (
        errors.InvalidName,
        "use 1 to 128 characters of A-Z a-z 0-9 . _ -",
        lambda w: JobSchema("my jobs", Image),
    ),
    "an empty name": (
        errors.InvalidName,
        "use 1 to 128 characters of A-Z a-z 0-9 . _ -",
        lambda w: Nameless(""),
    ),
    "a name with a slash for a queue": (
        errors.InvalidName,
        "use 1 to 128 characters of A-Z a-z 0-9 . _ -",
        lambda w: w.jobs.register(SCHEMA, queue="inspect/urgent"),
    ),
    "a payload in place of the queue": (
        errors.InvalidName,
        "pass the queue first, and then the job",
        lambda w: w.jobs.publish({"path": "a.png"}, "inspect"),  # type: ignore[call-overload]
    ),
    "a job in place of the queue": (
        errors.InvalidName,
        "pass the queue first, and then the job",
        lambda w: w.jobs.publish(w.jobs.job("inspect", {"path": "a.png"}), "inspect"),  # type: ignore[call-overload]
    ),
    "the jobs of a batch in place of the queue": (
        errors.InvalidName,
        "pass one queue first, and then the jobs",
        lambda w: w.jobs.publish_batch([Image(path="a.png")], SCHEMA),  # type: ignore[call-overload]
    ),
    "a generator of jobs in place of the queue": (
        errors.InvalidName,
        "pass one queue first, and then the jobs",
        lambda w: w.jobs.publish_batch((Image(path=path) for path in "ab"), "inspect"),  # type: ignore[call-overload]
    ),
    "a job as an id": (
        errors.InvalidName,
        "pass the job's id",
        lambda w: w.jobs.result("inspect", w.jobs.job("inspect", {"path": "a.png"})),  # type: ignore[call-overload]
    ),
    "a handle as an id": (
        errors.InvalidName,
        "pass its id",
        lambda w: w.jobs.cancel("inspect", w.jobs.queue(SCHEMA).publish({"path": "a.png"})),  # type: ignore[arg-type]
    ),
    "a UUID as an id": (
        errors.InvalidName,
        "convert it with str(…)",
        lambda w: w.jobs.job("inspect", {"path": "a.png"}, id=uuid4()),  # type: ignore[call-overload]
    ),
    "a number as an id": (
        errors.InvalidName,
        "convert it with str(…)",
        lambda w: w.jobs.job("inspect", {"path": "a.png"}, id=7),  # type: ignore[call-overload]
    ),
    "a misspelt queue": (
        errors.QueueNotFound,
        "this orchestrator first; did you mean 'inspect'? registered: 'bags', 'inspect', 'other'",
        lambda w: w.jobs.publish("inspekt", {"path": "a.png"}),
    ),
    "a misspelt queue of a consumer": (
        errors.SchemaNotRegistered,
        "orchestrator.register(schema) before connecting a consumer to it, or give its class a schema; did "
        "you mean 'inspect'? registered: 'bags', 'inspect', 'other'",
        lambda w: w.connected(Nameless("inspekt")),
    ),
    "another name than the schema's": (
        errors.InvalidInput,
        "for another queue of that schema write Inspector(queue='urgent')",
        lambda w: Inspector("urgent"),
    ),
}

SCHEMAS: dict[str, Row] = {
    "no schema": (
        errors.InvalidInput,
        "pass a JobSchema",
        lambda w: job_from_schema(None, {}),  # type: ignore[type-var, arg-type]
    ),
    "a consumer class in place of its schema": (
        errors.InvalidInput,
        "pass a JobSchema, such as Inspector.schema",
        lambda w: job_from_schema(Inspector, {}),  # type: ignore[type-var, arg-type]
    ),
    "registering a consumer class": (
        errors.InvalidInput,
        "pass a JobSchema, such as Inspector.schema",
        lambda w: w.jobs.register(Inspector),  # type: ignore[arg-type]
    ),
    "registering a name": (
        errors.InvalidInput,
        "pass a JobSchema, such as JobSchema(name=…, input=…)",
        lambda w: w.jobs.register("inspect"),  # type: ignore[arg-type]
    ),
    "a queue of a name": (
        errors.InvalidInput,
        "pass a JobSchema",
        lambda w: w.jobs.queue("inspect"),  # type: ignore[arg-type]
    ),
    "a class whose schema is a name": (
        errors.InvalidInput,
        "must be a JobSchema, such as JobSchema(name=…, input=…)",
        lambda w: Named(),
    ),
    "no input model": (
        errors.InvalidSchema,
        "pass a JobInput class, or AnyJSON for any JSON object",
        lambda w: JobSchema("new"),
    ),
    "BaseModel itself": (
        errors.InvalidSchema,
        "pass AnyJSON for any JSON object",
        lambda w: JobSchema("new", BaseModel),
    ),
    "a dataclass as a model": (
        errors.InvalidSchema,
        "write class Dataclass(JobInput) without @dataclass",
        lambda w: JobSchema("new", Dataclass),  # type: ignore[type-var]
    ),
    "a TypedDict as a model": (
        errors.InvalidSchema,
        "derive a class from JobInput",
        lambda w: JobSchema("new", Typed),  # type: ignore[type-var]
    ),
    "dict as a model": (
        errors.InvalidSchema,
        "or pass AnyJSON for any JSON object",
        lambda w: JobSchema("new", dict),  # type: ignore[type-var]
    ),
    "a dataclass as the output": (
        errors.InvalidSchema,
        "write class Dataclass(JobOutput) without @dataclass",
        lambda w: JobSchema("new", Image, Dataclass),  # type: ignore[type-var]
    ),
    "a dict of types as a model": (
        errors.InvalidSchema,
        "pass a class that derives from JobInput",
        lambda w: JobSchema("new", {"path": str}),  # type: ignore[type-var]
    ),
    "a root model": (
        errors.InvalidSchema,
        "use a model with named fields",
        lambda w: JobSchema("new", Paths),
    ),
    "two aliases of one field": (
        errors.InvalidSchema,
        "give it one alias",
        lambda w: JobSchema("new", Renamed),
    ),
    "a field that no consumer would see": (
        errors.InvalidSchema,
        "give it a default, or don't exclude it",
        lambda w: JobSchema("new", Hidden),
    ),
    "an input under both names": (
        errors.InvalidSchema,
        "pass input or input_schema, not both",
        lambda w: JobSchema("new", Image, input_schema=Image),
    ),
    "a number as the retry policy": (
        errors.InvalidSchema,
        "such as RetryPolicy(max_attempts=3)",
        lambda w: JobSchema("new", Image, retry=3),  # type: ignore[arg-type]
    ),
    "no attempts": (
        errors.InvalidInput,
        "must be an integer from 1",
        lambda w: RetryPolicy(max_attempts=0),
    ),
    "the same models defined again": (
        errors.SchemaConflict,
        "make a new Orchestrator",
        lambda w: w.jobs.register(JobSchema("inspect", type("Image", (JobInput,), {}), Report)),
    ),
    "other models under the same name": (
        errors.SchemaConflict,
        "give the other schema another name, or another queue: register(schema, queue=…)",
        lambda w: w.jobs.register(JobSchema("inspect", Bag)),
    ),
    "a queue type that isn't": (
        errors.InvalidInput,
        "must be one of fifo, stack, priority",
        lambda w: w.jobs.register(SCHEMA, "lifo"),
    ),
    "another type for a queue that exists": (
        errors.QueueConflict,
        'say the type once, in the schema that all use, as in JobSchema(…, queue_type="fifo")',
        lambda w: w.jobs.register(SCHEMA, "priority"),
    ),
    "unique by a field that isn't": (
        errors.InvalidSchema,
        "unique by 'pth', but Image has the fields path",
        lambda w: JobSchema("new", Image, unique=Unique(by=("pth",))),
    ),
    "a rate of the class": (
        errors.InvalidInput,
        "Hasty.rate: belongs to the schema, as in JobSchema(…, rate=Rate(",
        lambda w: type("Hasty", (Consumer,), {"rate": Rate(5, per_s=1), "run": lambda self, job: None})(
            "new"
        ),
    ),
    "a limit of the class by another name": (
        errors.InvalidInput,
        "Hasty.limit: belongs to the schema, as in JobSchema(…, concurrency_limit=Limit(",
        lambda w: type("Hasty", (Consumer,), {"limit": Limit(4, name="gpu"), "run": lambda self, job: None})(
            "new"
        ),
    ),
    "unique by a model's field": (
        errors.InvalidSchema,
        'pass the name of an input field, such as by="path", or a tuple of names',
        lambda w: Unique(by=Image.model_fields["path"]),  # type: ignore[arg-type]
    ),
    "unique by a set": (
        errors.InvalidSchema,
        "use a sorted list, have a @field_serializer sort it, or name other fields in by",
        lambda w: JobSchema("new", create_model("Tags", tags=(set[str], ...)), unique=Unique()),
    ),
    "a zone that each machine has": (
        errors.InvalidInput,
        "is another on each machine, and any may publish the slots: name the zone",
        lambda w: w.jobs.schedule("new", "images", cron="0 3 * * *", timezone="localtime"),
    ),
    "unique in place of how": (
        errors.InvalidSchema,
        'must be a Unique, such as Unique(by="path")',
        lambda w: JobSchema("new", Image, unique=True),  # type: ignore[arg-type]
    ),
}

JOBS: dict[str, Row] = {
    "a misspelt field of an input": (
        errors.InvalidPayload,
        "Report: unknown key 'defcts' (did you mean 'defects'?)",
        lambda w: Report(defcts=3),  # type: ignore[call-arg]
    ),
    "a misspelt field": (
        errors.InvalidPayload,
        "doesn't fit Image (path: Field required)",
        lambda w: w.publish({"pth": "a.png"}),
    ),
    "a value out of range": (
        errors.InvalidPayload,
        "n: Input should be greater than or equal to 0",
        lambda w: job_from_schema(JobSchema("new", Small), {"n": -1}),
    ),
    "a text in place of a payload": (
        errors.InvalidPayload,
        "expected Image or a dict, got str",
        lambda w: w.publish('{"path": "a.png"}'),
    ),
    "the input class in place of an instance": (
        errors.InvalidPayload,
        "expected Image or a dict, got the class Image",
        lambda w: w.publish(Image),
    ),
    "a list of payloads": (
        errors.InvalidPayload,
        "publish_batch takes many jobs",
        lambda w: w.publish([{"path": "a.png"}]),
    ),
    "a timedelta as a delay": (
        errors.InvalidJob,
        "use its total_seconds()",
        lambda w: w.publish({"path": "a.png"}, delay_s=timedelta(minutes=1)),
    ),
    "more delays than retries": (
        errors.InvalidInput,
        "pass max_attempts=4",
        lambda w: RetryPolicy(delays_s=[1, 10, 60]),
    ),
    "a delay by the attempt alone": (
        errors.InvalidInput,
        "write it as lambda attempt, error: …",
        lambda w: RetryPolicy(delays_s=lambda attempt: 10 * attempt),  # type: ignore[misc, arg-type]
    ),
    "exceptions by their names": (
        errors.InvalidInput,
        "must be a class of exceptions, such as ValueError",
        lambda w: RetryPolicy(dont_retry_on="ValueError"),  # type: ignore[arg-type]
    ),
    "a snooze for no time": (
        errors.InvalidJob,
        "a job that snoozes for no time would run again at once, for ever",
        lambda w: Snooze(0),
    ),
    "a time to expire that is over at once": (
        errors.InvalidJob,
        "expires_s 0: must be more than 0 seconds, or the job would never run",
        lambda w: w.publish({"path": "a.png"}, expires_s=0),
    ),
    "a schema whose jobs expire after a timedelta": (
        errors.InvalidSchema,
        "use its total_seconds()",
        lambda w: JobSchema("expiring", Image, expires_s=timedelta(minutes=1)),  # type: ignore[arg-type]
    ),
    "an unknown end of expired jobs": (
        errors.InvalidSchema,
        'on_expired \'drop\': must be "end" or "dead"',
        lambda w: JobSchema("expiring", Image, expires_s=1, on_expired="drop"),  # type: ignore[arg-type]
    ),
    "a schema in place of the job that is published if another is dead": (
        errors.InvalidSchema,
        "on_dead must be Then(schema, payload), or a function that returns one; got ",
        lambda w: JobSchema("fragile", Image, on_dead=JobSchema("alert", Image)),  # type: ignore[arg-type]
    ),
    "an async def that names the job that is published if another is dead": (
        errors.InvalidSchema,
        "is an async def, and nobody would await it",
        lambda w: JobSchema("fragile", Image, on_dead=alert),  # type: ignore[arg-type]
    ),
    "a function without a parameter that names the job that is published if another is dead": (
        errors.InvalidSchema,
        "can't be called with a DeadJob alone (too many positional arguments)",
        lambda w: JobSchema("fragile", Image, on_dead=lambda: None),  # type: ignore[misc, arg-type]
    ),
    "a result for a job that is dead": (
        errors.InvalidSchema,
        "on_dead has a result, and a dead job has none",
        lambda w: JobSchema("fragile", Image, on_dead=Then(JobSchema("alert", Image), {}, result={})),
    ),
    "a publish that says when by a moment without a time zone": (
        errors.InvalidJob,
        "as datetime.now(UTC) has one",
        lambda w: w.publish({"path": "a.png"}, not_before=datetime(2030, 1, 1)),
    ),
    "a publish that says twice when": (
        errors.InvalidJob,
        "delay_s and not_before: pass one of them",
        lambda w: w.publish({"path": "a.png"}, not_before=datetime.now(UTC), delay_s=60),
    ),
    "a moment that is a number": (
        errors.InvalidJob,
        "must be a datetime with a time zone",
        lambda w: w.publish({"path": "a.png"}, not_before=60),
    ),
    "a moment without a time zone": (
        errors.InvalidJob,
        "as datetime.now(UTC) has one",
        lambda w: job_from_schema(SCHEMA, {"path": "a.png"}, not_before=datetime(2030, 1, 1)),
    ),
    "one number for a list of ids": (
        errors.InvalidInput,
        "pass a list of ids",
        lambda w: w.jobs.redrive("inspect", 7),  # type: ignore[arg-type]
    ),
    "a job of another schema": (
        errors.SchemaMismatch,
        "make it with orchestrator.job('inspect', …), or publish it to its own queue",
        lambda w: w.publish(job_from_schema(OTHER, {"path": "a.png"})),
    ),
    "a payload over 1 MiB": (
        errors.BodyTooLarge,
        "store large data elsewhere, and send its path",
        lambda w: w.publish({"path": "x" * MAX_BODY_BYTES}),
    ),
    "an object in a field that is Any": (
        errors.InvalidPayload,
        "save it and publish its path, or use plain values",
        lambda w: w.jobs.publish("bags", {"item": object()}),
    ),
    "a NaN": (
        errors.InvalidPayload,
        "send None or a text in their place",
        lambda w: w.jobs.publish("bags", {"item": float("nan")}),
    ),
    "lists in lists in lists": (
        errors.MalformedBody,
        "flatten it, or send the path of a file",
        lambda w: w.jobs.publish("bags", Bag(item=nested(100))),
    ),
    "a number of a thousand digits": (
        errors.MalformedBody,
        "send it as a text",
        lambda w: w.jobs.publish("bags", Bag(item=10**1000)),
    ),
    "a priority on a queue without": (
        errors.InvalidJob,
        'give its schema queue_type="priority"',
        lambda w: w.publish({"path": "a.png"}, priority=5),
    ),
    "a time limit of 0 in a schema": (
        errors.InvalidSchema,
        "timeout_s 0: must be more than 0 seconds; for no limit leave it out",
        lambda w: JobSchema("images", Image, timeout_s=0),
    ),
    "a time limit below 0 in a schema": (
        errors.InvalidSchema,
        "timeout_s -1: must be a number of seconds, more than 0 and up to 31,622,400",
        lambda w: JobSchema("images", Image, timeout_s=-1),
    ),
    "a time limit of a schema that is no number": (
        errors.InvalidSchema,
        "timeout_s nan: must be a number of seconds",
        lambda w: JobSchema("images", Image, timeout_s=float("nan")),
    ),
    "a second time limit of a schema that is no number": (
        errors.InvalidSchema,
        "kill_after_s nan: must be a number of seconds",
        lambda w: JobSchema("images", Image, kill_after_s=float("nan")),
    ),
    "the payload of a next job before its schema": (
        errors.InvalidInput,
        "Then(Image, JobSchema): pass the schema first, as in Then(schema, payload)",
        lambda w: Then(Image(path="a"), SCHEMA),  # type: ignore[arg-type]
    ),
    "a dict of a next job before its schema": (
        errors.InvalidInput,
        "Then(dict, JobSchema): pass the schema first, as in Then(schema, payload)",
        lambda w: Then({"path": "a"}, SCHEMA),  # type: ignore[arg-type]
    ),
    "the name of the schema of a next job": (
        errors.InvalidInput,
        "Then('inspect'): pass a JobSchema, such as JobSchema(name=…, input=…)",
        lambda w: Then("inspect", Image(path="a")),  # type: ignore[arg-type]
    ),
    "the consumer of a next job": (
        errors.InvalidInput,
        "pass a JobSchema, such as Inspector.schema",
        lambda w: Then(Inspector, Image(path="a")),  # type: ignore[arg-type]
    ),
    "no payload of a next job": (
        errors.InvalidInput,
        "Then(inspect, NoneType): expected Image or a dict",
        lambda w: Then(SCHEMA, None),  # type: ignore[arg-type]
    ),
    "a class as the payload of a next job": (
        errors.InvalidInput,
        "pass an instance, as in Then(schema, Image(…)), not the class",
        lambda w: Then(SCHEMA, Image),  # type: ignore[arg-type]
    ),
    "a negative number of jobs in a coroutine": (
        errors.InvalidInput,
        "the number of jobs to run; leave it out to run until stopped",
        lambda w: asyncio.run(w.connected(AsyncInspector()).consume_async(-1)),
    ),
    "a number of jobs that is a text": (
        errors.InvalidInput,
        "num_messages '3': must be an integer from 0, the number of jobs to run",
        lambda w: w.connected(Inspector()).consume("3"),  # type: ignore[arg-type]
    ),
    "block as the first argument": (
        errors.InvalidInput,
        "did you mean block=True?",
        lambda w: w.connected(Inspector()).consume(True),
    ),
    "a time for jobs in flight that is a text": (
        errors.InvalidInput,
        "in_flight_for_s '3': must be a number of seconds",
        lambda w: w.connected(Inspector()).consume_until_empty(in_flight_for_s="3"),  # type: ignore[arg-type]
    ),
    "a time limit below 0 of a class": (
        errors.InvalidInput,
        "Hasty.timeout_s -1: must be a number of seconds",
        lambda w: w.connected(Hasty()),
    ),
    "a time limit as a timedelta": (
        errors.InvalidSchema,
        "use its total_seconds()",
        lambda w: JobSchema("images", Image, timeout_s=timedelta(minutes=1)),
    ),
    "a time limit of 0 in a publish": (
        errors.InvalidJob,
        "timeout_s 0: must be more than 0 seconds",
        lambda w: w.publish({"path": "a.png"}, timeout_s=0),
    ),
    "a time limit without end in a publish": (
        errors.InvalidJob,
        "timeout_s inf: must be a number of seconds",
        lambda w: w.publish({"path": "a.png"}, timeout_s=float("inf")),
    ),
    "a time limit of 0 in connect": (
        errors.InvalidInput,
        "timeout_s 0: must be more than 0 seconds",
        lambda w: Inspector().connect(w.jobs, timeout_s=0),
    ),
    "a time limit of 0 of a function": (
        errors.InvalidInput,
        "timeout_s 0: must be more than 0 seconds",
        lambda w: job_handler(SCHEMA, timeout_s=0),
    ),
    "a priority of 10": (
        errors.InvalidJob,
        "must be an integer from 0 to 9",
        lambda w: w.publish({"path": "a.png"}, priority=10),
    ),
    "a delay that is a text": (
        errors.InvalidJob,
        "must be a number of seconds",
        lambda w: w.publish({"path": "a.png"}, delay_s="60"),
    ),
    "a job that is changed": (
        errors.ImmutableJob,
        "make another, as in dataclasses.replace(job, priority=5)",
        lambda w: setattr(job_from_schema(SCHEMA, {"path": "a.png"}), "priority", 5),
    ),
    "a job without its field": (
        errors.ImmutableJob,
        "make another, as in dataclasses.replace",
        lambda w: delattr(job_from_schema(SCHEMA, {"path": "a.png"}), "priority"),
    ),
    "one job for a batch": (
        errors.InvalidInput,
        "pass a list of jobs, not one Image",
        lambda w: w.jobs.publish_batch("inspect", Image(path="a.png")),
    ),
    "an id for a handle": (
        errors.InvalidInput,
        "pass a list of handles",
        lambda w: w.jobs.results(["abc"]),  # type: ignore[list-item]
    ),
    "handles that aren't awaited": (
        errors.InvalidInput,
        "await it, as in handles = await jobs.publish_batch(…)",
        lambda w: not_awaited(w.jobs.results),
    ),
    "an id that isn't awaited": (
        errors.InvalidName,
        "await the call that returns it",
        lambda w: not_awaited(partial(w.jobs.result, "inspect")),
    ),
    "one id for a list": (
        errors.InvalidInput,
        "pass a list of ids",
        lambda w: w.jobs.redrive("inspect", "abc"),
    ),
    "await publish()": (
        errors.UsageError,
        "call it without await; or, as it blocks the event loop, use an AsyncOrchestrator, or a thread: ",
        lambda w: awaiting(lambda: w.publish({"path": "a.png"})),
    ),
    "await queue.publish()": (
        errors.UsageError,
        "await asyncio.to_thread",
        lambda w: awaiting(lambda: w.jobs.queue(SCHEMA).publish({"path": "a.png"})),
    ),
    "a result at once": (
        errors.ResultNotReady,
        "to wait for it, pass timeout_s",
        lambda w: w.jobs.result("inspect", w.publish({"path": "a.png"})),
    ),
    "publishing after close": (
        errors.Closed,
        "create a new one, or make the call before close()",
        lambda w: closed().publish("inspect", {"path": "a.png"}),
    ),
    "a delay that is a text in a handler": (
        errors.InvalidJob,
        "must be a number of seconds",
        lambda w: RetryLater("soon"),  # type: ignore[arg-type]
    ),
}


def nested(depth: int) -> list[Any]:
    item: list[Any] = []
    for _ in range(depth):
        item = [item]
    return item


CONSUMERS: dict[str, Row] = {
    "connecting a handler": (
        AttributeError,
        "JobHandler has no 'connect': its consumers have; make one, as in consumer = handle.consumer()",
        lambda w: handle.connect(w.jobs),  # type: ignore[attr-defined]
    ),
    "Consumer(lambda)": (
        errors.HandlerMissing,
        "write @job_handler(schema) above a function and call its consumer()",
        lambda w: Consumer(lambda job: None),  # type: ignore[abstract, arg-type]
    ),
    "the base class": (
        errors.HandlerMissing,
        "derive a class that defines run(self, job)",
        lambda w: Consumer("inspect"),  # type: ignore[abstract]
    ),
    "no run": (errors.HandlerMissing, "define run(self, job)", lambda w: NoRun()),
    "a run that yields": (errors.HandlerMissing, "return the result, without yield", lambda w: Yielding()),
    "a pool of a plain handler that is opened by an async def": (
        errors.InvalidInput,
        "no event loop runs it: make both an async def, or neither",
        lambda w: w.connected(AsyncOpener()),
    ),
    "neither a name nor a schema": (
        errors.InvalidInput,
        "pass the name of its queue, or set schema = JobSchema(…) in the class",
        lambda w: Nameless(),
    ),
    "models in the wrong order": (
        errors.InvalidInput,
        "write Consumer[Input, Output] as in JobSchema(…)",
        lambda w: Swapped(),
    ),
    "the name of a queue as an attribute of a class": (
        errors.InvalidInput,
        "OnUrgent.queue_name: an instance has its queue from the constructor; remove the attribute, and "
        "write OnUrgent(queue='urgent')",
        lambda w: OnUrgent(),
    ),
    "an __init__ that forgets its base": (
        errors.UsageError,
        "OwnInit.__init__ must call super().__init__()",
        lambda w: w.connected(OwnInit()),
    ),
    "a number as the retry policy of a class": (
        errors.InvalidInput,
        "such as RetryPolicy(max_attempts=3)",
        lambda w: w.connected(OddPolicy()),
    ),
    "consuming before connecting": (
        errors.NotConnected,
        "call connect(orchestrator) first",
        lambda w: Inspector().consume(1),
    ),
    "connecting to a backend": (
        errors.InvalidInput,
        "pass an Orchestrator, as in Orchestrator(url)",
        lambda w: Inspector().connect(w.jobs.backend),  # type: ignore[arg-type]
    ),
    "connecting to a URL": (
        errors.InvalidInput,
        "pass an Orchestrator, as in Orchestrator(url)",
        lambda w: Inspector().connect("memory://"),  # type: ignore[arg-type]
    ),
    "connecting twice": (
        errors.AlreadyConnected,
        "close() it first",
        lambda w: w.connected(w.connected(Inspector())),
    ),
    "a lease of no length": (
        errors.InvalidInput,
        "must be more than 0 seconds",
        lambda w: Inspector().connect(w.jobs, lease_s=0),
    ),
    "a number of messages below zero": (
        errors.InvalidInput,
        "must be an integer from 0",
        lambda w: w.connected(Inspector()).consume(-1),
    ),
    "a text for block": (
        errors.InvalidInput,
        "must be True, False or None",
        lambda w: w.connected(Inspector()).consume(1, block="no"),  # type: ignore[arg-type]
    ),
    "an async handler under a running loop": (
        errors.UsageError,
        "await consumer.consume_async() in place of consume()",
        lambda w: in_a_loop(w.connected(AsyncInspector()).consume),
    ),
    "a name in place of the handler's schema": (
        errors.InvalidInput,
        "pass the JobSchema, as in @job_handler(schema)",
        lambda w: job_handler("inspect"),  # type: ignore[arg-type]
    ),
    "the decorator without its schema": (
        errors.InvalidInput,
        "pass the JobSchema, as in @job_handler(schema)",
        lambda w: job_handler(lambda job: None),  # type: ignore[arg-type]
    ),
    "a class as a handler": (
        errors.HandlerMissing,
        "write it above one, or derive a class from Consumer",
        lambda w: job_handler(SCHEMA)(Inspector),  # type: ignore[arg-type]
    ),
}

BACKENDS: dict[str, Row] = {
    "the class of a client": (
        errors.UnknownBackend,
        "pass an instance, LocalClient(…)",
        lambda w: Orchestrator(LocalClient),  # type: ignore[arg-type]
    ),
    "a number as a backend": (
        errors.UnknownBackend,
        "pass an OrchestratorBackend, such as LocalClient(), or a URL",
        lambda w: Orchestrator(7),  # type: ignore[arg-type]
    ),
    "a host and a port as a backend": (
        errors.UnknownBackend,
        "starts with a scheme, such as sqlite:///jobs.db or redis://localhost:6379/0",
        lambda w: Orchestrator("localhost:6379"),
    ),
    "a misspelt scheme": (
        errors.UnknownBackend,
        "no adapter for reddis:// is installed; did you mean redis://?",
        lambda w: Orchestrator("reddis://localhost"),
    ),
    "a misspelt scheme of a store": (
        errors.UnknownBackend,
        "no coordination store for rediss3:// is installed; did you mean rediss://?",
        lambda w: Orchestrator("amqp://localhost?store=rediss3://localhost"),
    ),
    "a name as the database of Redis": (
        errors.InvalidInput,
        "where port and db are numbers",
        lambda w: Orchestrator("redis://localhost/jobs"),
    ),
    "a path as a backend": (
        errors.UnknownBackend,
        "write sqlite:///jobs.db",
        lambda w: Orchestrator("jobs.db"),
    ),
    "a Path as a backend": (
        errors.UnknownBackend,
        "for a file, pass SQLiteClient(path)",
        lambda w: Orchestrator(Path("jobs.db")),  # type: ignore[arg-type]
    ),
    "a number as a file": (
        errors.InvalidInput,
        "name a file, by a text or a Path",
        lambda w: SQLiteClient(7),  # type: ignore[arg-type]
    ),
    "a file of the home folder": (
        errors.InvalidInput,
        "as in Path(…).expanduser()",
        lambda w: SQLiteClient("~/jobs.db"),
    ),
    "a text as the largest body": (
        errors.InvalidInput,
        "must be an integer from 1",
        lambda w: Orchestrator("memory://", max_body_bytes="1 MiB"),  # type: ignore[arg-type]
    ),
    "a URL as a result store": (
        errors.InvalidInput,
        "pass a ResultStore, such as RedisResultStore(…)",
        lambda w: RabbitMQClient(results="redis://localhost"),  # type: ignore[arg-type]
    ),
    "a URL as a coordination store": (
        errors.InvalidInput,
        "pass a CoordinationStore, such as RedisCoordinationStore(…)",
        lambda w: RabbitMQClient(store="redis://localhost"),  # type: ignore[arg-type]
    ),
    "a host as a backend": (
        errors.UnknownBackend,
        "a backend URL starts with a scheme, such as sqlite:///jobs.db or redis://localhost:6379/0",
        lambda w: Orchestrator("localhost"),
    ),
    "an unknown scheme": (
        errors.UnknownBackend,
        "registered: amqp://",
        lambda w: Orchestrator("kafka://localhost"),
    ),
    "two slashes for a file": (
        errors.InvalidInput,
        "three slashes before a relative path and four before an absolute one",
        lambda w: Orchestrator("sqlite://jobs.db"),
    ),
    "a path for queues in memory": (
        errors.InvalidName,
        "use SQLiteClient('jobs.db')",
        lambda w: LocalClient("jobs.db"),
    ),
    "a file in memory": (
        errors.InvalidInput,
        "use LocalClient for queues in memory",
        lambda w: SQLiteClient(":memory:"),
    ),
    "a file in no folder": (
        errors.BackendUnavailable,
        "create it",
        lambda w: registered(SQLiteClient(w.folder / "nowhere" / "jobs.db")),
    ),
    "a folder as a file": (
        errors.BrokerUnsuitable,
        "name a file in it",
        lambda w: registered(SQLiteClient(w.folder)),
    ),
    "a file that can't be written": (
        errors.BackendUnavailable,
        "name a file in a folder that this user can write",
        lambda w: registered(SQLiteClient("/proc/jobs.db")),
    ),
    "a file below a file": (
        errors.BrokerUnsuitable,
        "name a file in one",
        lambda w: registered(SQLiteClient("/dev/null/jobs.db")),
    ),
    "a file of something else": (
        errors.BrokerUnsuitable,
        "name another file",
        lambda w: registered(SQLiteClient(text_file(w.folder))),
    ),
    "the URL of queues in memory": (
        errors.UnsupportedCapability,
        "use SQLiteClient or a broker",
        lambda w: w.jobs.backend.url,
    ),
    "a Redis that isn't there": (
        errors.BackendUnavailable,
        "is it running? Start one with: redis-server",
        lambda w: registered(away()),
    ),
    "publishing when the broker was down at the start": (
        errors.BackendUnavailable,
        "is it running? Start one with: redis-server",
        lambda w: published_after_a_failed_register(),
    ),
    "a RabbitMQ that isn't there": (
        errors.BackendUnavailable,
        "is it running? Start one with: rabbitmq-server",
        lambda w: counted(RabbitMQClient("127.0.0.1", NOBODYS_PORT, retry_timeout_s=0.1)),
    ),
    "an unknown host of Redis": (
        errors.BackendUnavailable,
        "no host of this name is known here: correct the name",
        lambda w: counted(RedisClient(UNKNOWN_HOST, retry_timeout_s=0.1)),
    ),
    "an unknown host of RabbitMQ": (
        errors.BackendUnavailable,
        "no host of this name is known here: correct the name",
        lambda w: counted(RabbitMQClient(UNKNOWN_HOST, retry_timeout_s=1.5)),
    ),
    "another server at the port of Redis": (
        errors.BackendError,
        "correct the host and the port",
        lambda w: counted(RedisClient("127.0.0.1", w.stranger, retry_timeout_s=0.1)),
    ),
    "another server at the port of RabbitMQ": (
        errors.BackendUnavailable,
        "check the host, the port, and whether it uses TLS",
        lambda w: counted(RabbitMQClient("127.0.0.1", w.stranger, retry_timeout_s=1.5)),
    ),
    "Sentinels that aren't there": (
        errors.BackendUnavailable,
        "check sentinels= and sentinel_service=",
        lambda w: counted(RedisClient(sentinels=[("127.0.0.1", NOBODYS_PORT)], retry_timeout_s=0.1)),
    ),
    "a port that is a text": (
        errors.InvalidInput,
        "must be an integer from 1 to 65535; convert the text with int(…)",
        lambda w: RedisClient("localhost", "6379"),  # type: ignore[arg-type]
    ),
    "a port of RabbitMQ that is a text": (
        errors.InvalidInput,
        "must be an integer from 1 to 65535; convert the text with int(…)",
        lambda w: RabbitMQClient("localhost", "5672"),  # type: ignore[arg-type]
    ),
    "a database that is a text": (
        errors.InvalidInput,
        "convert the text with int(…)",
        lambda w: RedisClient(db="0"),  # type: ignore[arg-type]
    ),
    "a URL as a host": (
        errors.InvalidInput,
        "pass the URL to from_url",
        lambda w: RedisClient("redis://localhost"),
    ),
    "a path as a host": (
        errors.InvalidInput,
        "give a host's name or address, and nothing else",
        lambda w: RedisClient("localhost/0"),
    ),
    "a user without a password": (
        errors.InvalidInput,
        "needs a password",
        lambda w: RedisClient(username="app"),
    ),
    "certificates without TLS": (
        errors.InvalidInput,
        "is of use only with ssl=True, or in a rediss:// URL",
        lambda w: RedisClient(ssl_ca_certs="ca.pem"),
    ),
    "a misspelt word in a URL": (
        errors.InvalidInput,
        "it takes namespace",
        lambda w: Orchestrator("redis://localhost?namspace=a"),
    ),
    "a misspelt store in a URL": (
        errors.InvalidInput,
        "in Orchestrator(url) also results and store",
        lambda w: Orchestrator("amqp://localhost?stor=redis://localhost"),
    ),
    "a stack on RabbitMQ": (
        errors.UnsupportedCapability,
        "this backend has no stack queues; it has: fifo, priority",
        lambda w: registered(RabbitMQClient("127.0.0.1", NOBODYS_PORT), "stack"),
    ),
    "results on RabbitMQ": (
        errors.UnsupportedCapability,
        "name a store for them, in the URL as in amqp://localhost?results=redis://localhost:6379/0, or as in "
        "RabbitMQClient(results=RedisResultStore(...))",
        lambda w: RabbitMQClient("127.0.0.1", NOBODYS_PORT).result("inspect", "a"),
    ),
    "coordination on RabbitMQ": (
        errors.UnsupportedCapability,
        "give RabbitMQ one by URL: amqp://host?store=redis://host",
        lambda w: RabbitMQClient("127.0.0.1", NOBODYS_PORT).coordination,
    ),
    "a result store that isn't there": (
        errors.BackendUnavailable,
        "is it running? Start one with: redis-server",
        lambda w: RedisResultStore("127.0.0.1", NOBODYS_PORT, retry_timeout_s=0.1).get("inspect", "a"),
    ),
}


def text_file(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("not a database\n" * 100, "utf-8")
    return path


COMMANDS: dict[str, Row] = {
    "a model in place of a consumer": (
        BadUsage,
        "consumers in tasks_of_a_newcomer: Inspector",
        loading("Image"),
    ),
    "a schema in place of a consumer": (
        BadUsage,
        "consumers in tasks_of_a_newcomer: Inspector",
        loading("schema"),
    ),
    "an instance in place of its class": (BadUsage, "name its class, Inspector", loading("inspector")),
    "a misspelt consumer": (BadUsage, "consumers in tasks_of_a_newcomer: Inspector", loading("Inspektor")),
    "a model in place of a schema": (
        BadUsage,
        "consumers in tasks_of_a_newcomer: Inspector",
        loading("Image", load_schema),
    ),
    "a module that isn't there": (
        BadUsage,
        "run the command in its folder, or name that folder with --app-dir",
        lambda w: load_maker("tasks_of_nobody:Inspector"),
    ),
    "a file in place of a module": (
        BadUsage,
        "'tasks.py': leave .py out, as in tasks",
        lambda w: load_maker("tasks.py"),
    ),
}


CALLS: dict[str, Row] = {
    "publishing by delay of a consumer class, as with Celery": (
        AttributeError,
        "Inspector has no 'delay': to publish a job, call orchestrator.publish(schema, payload)",
        lambda w: Inspector.delay("a.png"),  # type: ignore[attr-defined]
    ),
    "publishing by send of a function, as with Dramatiq": (
        AttributeError,
        "handle has no 'send': to publish a job, call orchestrator.publish(schema, payload)",
        lambda w: handle.send("a.png"),  # type: ignore[attr-defined]
    ),
    "publishing by kiq of a consumer, as with Taskiq": (
        AttributeError,
        "Inspector has no 'kiq': to publish a job, call orchestrator.publish(schema, payload)",
        lambda w: Inspector().kiq("a.png"),  # type: ignore[attr-defined]
    ),
    "publishing by enqueue of an orchestrator, as with RQ": (
        AttributeError,
        "Orchestrator has no 'enqueue': to publish a job, call orchestrator.publish(schema, payload)",
        lambda w: w.jobs.enqueue("inspect", {"path": "a.png"}),  # type: ignore[attr-defined]
    ),
    "publishing by apply_async of a schema": (
        AttributeError,
        "and to have it wait first, add delay_s=60",
        lambda w: SCHEMA.apply_async(countdown=60),  # type: ignore[attr-defined]
    ),
    "publishing by enqueue of a typed queue": (
        AttributeError,
        "JobQueue has no 'enqueue'",
        lambda w: w.jobs.queue(SCHEMA).enqueue({"path": "a.png"}),  # type: ignore[attr-defined]
    ),
}


def class_with(**attributes: Any) -> Callable[[World], Any]:
    return lambda w: type("Inspector", (Inspector,), attributes)


ATTRIBUTES: dict[str, Row] = {
    "a misspelt option of a class": (
        UserWarning,
        "Inspector.concurency has no effect: concurrency was probably meant. If the attribute is your own",
        class_with(concurency=8),
    ),
    "a misspelt hook of a class": (
        UserWarning,
        "Inspector.on_strat has no effect: on_start was probably meant",
        class_with(on_strat=lambda self: None),
    ),
    "a misspelt schema of a class": (UserWarning, "schema was probably meant", class_with(shema=SCHEMA)),
    "a time limit of a class": (UserWarning, "write timeout_s = …, in seconds", class_with(timeout=5)),
    "a second time limit of a class": (UserWarning, "write kill_after_s = …", class_with(hard_time_limit=5)),
    "the retries of a class": (UserWarning, "retry = RetryPolicy(max_attempts=…)", class_with(max_retries=5)),
    "the queue of a class": (UserWarning, "as in Inspector(queue=…)", class_with(queue="urgent")),
    "the lease of a class": (UserWarning, "pass it to connect(…), or to the worker", class_with(lease_s=60)),
    "batches of a class that runs one job at a time": (
        UserWarning,
        "derive the class from BatchConsumer",
        class_with(batch_size=8),
    ),
    "a handler of batches in a class that runs one job at a time": (
        errors.HandlerMissing,
        "to run batches, derive it from BatchConsumer",
        lambda w: type("Batches", (Consumer,), {"schema": SCHEMA, "run_batch": lambda self, jobs: jobs})(),
    ),
    "a class of observers": (
        errors.InvalidInput,
        "pass a list of observers, such as [PrometheusObserver(…)]",
        lambda w: Orchestrator("memory://", observers=[Observer]),  # type: ignore[list-item]
    ),
    "an observer without a list": (
        errors.InvalidInput,
        "pass a list of observers",
        lambda w: Orchestrator("memory://", observers=Observer()),  # type: ignore[arg-type]
    ),
    "no jobs for a batch": (
        errors.InvalidInput,
        "pass a list of jobs, not one NoneType",
        lambda w: w.jobs.publish_batch("inspect", None),  # type: ignore[arg-type]
    ),
    "a function of a class that names the job that is published if another is dead": (
        UserWarning,
        "Inspector.on_dead has no effect: it belongs to the schema, as in JobSchema(…, on_dead=…)",
        class_with(on_dead=lambda self, dead: None),
    ),
    "a misspelt middleware of a class": (
        UserWarning,
        "middleware was probably meant",
        class_with(middlewares=()),
    ),
    "the rate of a class as a text": (UserWarning, "rate=Rate(5, per_s=1)", class_with(rate_limit="5/s")),
}


def scheduling(**options: Any) -> Callable[[World], Any]:
    return lambda w: w.jobs.schedule("nightly", "inspect", {"path": "a"}, **options)


SCHEDULES: dict[str, Row] = {
    "a schedule that never comes": (
        errors.InvalidInput,
        "give either cron= or every=",
        scheduling(),
    ),
    "a cron expression with seconds": (
        errors.InvalidInput,
        "must have five fields, minute hour day month weekday, such as",
        scheduling(cron="0 0 3 * * *"),
    ),
    "a field of a cron expression that is out of range": (
        errors.InvalidInput,
        "Bad hour; the fields are minute hour day month weekday",
        scheduling(cron="0 24 * * *"),
    ),
    "a city in place of a time zone": (
        errors.InvalidInput,
        'use a name such as "Europe/Vienna"',
        scheduling(cron="0 3 * * *", timezone="Vienna"),
    ),
    "an interval in seconds": (
        errors.InvalidInput,
        "must be a timedelta, as timedelta(minutes=5)",
        scheduling(every=300),
    ),
    "no payload where the input needs one": (
        errors.InvalidPayload,
        "pass one: orchestrator.schedule(name, queue, payload, …)",
        lambda w: w.jobs.schedule("nightly", "inspect", cron="0 3 * * *"),
    ),
    "an unknown misfire": (
        errors.InvalidInput,
        'must be "skip", "latest" or "all"',
        scheduling(every=timedelta(hours=1), misfire="once"),
    ),
    "a schedule without the payload that its model needs": (
        errors.InvalidPayload,
        "path",
        lambda w: w.jobs.schedule("nightly", "inspect", cron="0 3 * * *"),
    ),
    "an expression as a class's schedule": (
        errors.InvalidInput,
        'must be Cron("0 3 * * *") or Every(timedelta(minutes=5))',
        lambda w: w.connected(ScheduledByText()),
    ),
    "a schedule that nobody defined": (
        errors.ScheduleNotFound,
        "schedules.list() has those that are",
        lambda w: w.jobs.schedules.pause("nightly"),
    ),
    "a URL in place of a scheduler's orchestrator": (
        errors.InvalidInput,
        "pass an Orchestrator, as in Scheduler(Orchestrator(url))",
        lambda w: Scheduler("redis://localhost"),  # type: ignore[arg-type]
    ),
}

PARTS = (NAMES, SCHEMAS, JOBS, CONSUMERS, BACKENDS, COMMANDS, SCHEDULES, CALLS, ATTRIBUTES)
TABLE = {name: row for part in PARTS for name, row in part.items()}


@pytest.mark.parametrize(("error", "remedy", "make"), TABLE.values(), ids=TABLE)
def test_a_mistake_is_answered_with_its_remedy(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    remedy: str,
    make: Callable[[World], Any],
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.syspath_prepend(str(world.folder))
    monkeypatch.delitem(__import__("sys").modules, "tasks_of_a_newcomer", raising=False)

    with pytest.raises(error, match=re.escape(remedy)) as raised:
        make(world)

    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 700, "nobody reads more"


def test_the_table_has_a_row_for_each_of_many_mistakes() -> None:
    assert len(TABLE) == sum(map(len, PARTS)) >= 60


def test_attributes_that_are_a_users_own_are_free() -> None:
    """A name that resembles no option and is none of another library; and what is private or callable."""

    class Own(Inspector):
        model = "resnet"
        http_timeout = 5
        _retries = 3
        threshold: float = 0.5

        def timeout(self) -> int:
            return 5

        @property
        def priority(self) -> int:
            return 9

    assert not hasattr(Own(), "delay")


def test_a_warning_of_an_attribute_points_to_the_class() -> None:
    with pytest.warns(UserWarning, match="no effect") as caught:

        class Slow(Inspector):
            time_limit = 5

    assert caught[0].filename == __file__


class Thumbnailer(Inspector):
    """Takes the jobs of another class."""


def test_two_classes_on_one_queue_are_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Each job would go to either of them."""
    first = world.connected(Inspector())
    world.connected(Inspector())
    assert caplog.records == []

    world.connected(Thumbnailer())
    (record,) = caplog.records
    assert record.getMessage() == (
        "Inspector and Thumbnailer both take the jobs of queue inspect: each job goes to only one of them; "
        "give each class a schema of its own, or connect one of them to another queue, as in "
        "Thumbnailer(queue=…)"
    )
    caplog.clear()
    world.connected(Thumbnailer(queue="other"))
    assert caplog.records == []
    first.close()


def test_a_class_that_takes_the_place_of_another_is_not_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with world.connected(Inspector()):
        pass
    world.connected(Thumbnailer())
    assert caplog.records == []


def test_a_payload_of_any_json_needs_no_model(world: World) -> None:
    """As the remedies say."""
    world.jobs.register(JobSchema("notes", AnyJSON))
    world.jobs.publish("notes", {"text": "a", "n": [1]})
    job = world.jobs.receive_message("notes")

    assert job is not None
    assert job.payload.model_dump() == {"text": "a", "n": [1]}
    assert job.payload.n == [1]
