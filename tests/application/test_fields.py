"""What a publisher puts into a field is what the handler finds, and what that returns comes back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import Field, SecretStr, create_model, field_serializer

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, LocalClient, Orchestrator
from mindtrace.jobs.domain.errors import InvalidPayload


class Colour(Enum):
    RED = "red"


class Part(JobInput):
    raw: bytes
    at: datetime | None = None


class NumpyBool:
    """As ``numpy.bool_(True)`` looks to one who doesn't import it."""

    shape = ()
    dtype = "bool"

    def item(self) -> bool:
        return True


VALUES: list[tuple[Any, Any]] = [
    (bytes, bytes(range(256))),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, UTC)),
    (UUID, UUID(int=7)),
    (Colour, Colour.RED),
    (Decimal, Decimal("1.10")),
    (Path, Path("a/b.png")),
    (timedelta, timedelta(seconds=1.5)),
    (Part, Part(raw=b"\xff")),
    (list[Part], [Part(raw=b"\xff", at=datetime(2026, 1, 2, tzinfo=UTC))]),
    (dict[str, bytes | None], {"a": b"\xff", "b": None}),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=[str(annotation) for annotation, _ in VALUES])
@pytest.mark.parametrize("as_dict", [False, True])
def test_a_value_comes_to_the_handler_and_back(annotation: Any, value: Any, as_dict: bool) -> None:
    """Given in a model or in a dict (RES-1)."""
    models = [
        create_model(name, __base__=base, value=(annotation, ...))
        for name, base in (("Question", JobInput), ("Answer", JobOutput))
    ]
    schema: JobSchema[Any, Any] = JobSchema("fields", *models)
    seen = []

    class Echo(Consumer):
        def run(self, job: Job[Any]) -> Any:
            seen.append(job.payload.value)
            made = {"value": job.payload.value}
            return made if as_dict else schema.output(**made)

    with Orchestrator("memory://") as orchestrator, Echo("fields") as consumer:
        orchestrator.register(schema)
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        given = {"value": value}
        job_id = orchestrator.publish("fields", given if as_dict else schema.input(**given))
        consumer.consume_until_empty()
        result = orchestrator.result("fields", job_id)

    assert seen == [value]
    assert type(seen[0]) is type(value)
    assert result == schema.output(value=value)


def test_scalars_of_numpy_come_to_the_handler_and_back(orchestrator: Orchestrator) -> None:
    class Score(JobInput):
        passed: bool
        note: Any = None

    class Verdict(JobOutput):
        passed: bool

    orchestrator.register(JobSchema("scores", Score, Verdict))
    ids = [
        orchestrator.publish("scores", Score(passed=NumpyBool(), note=NumpyBool())),
        orchestrator.publish("scores", {"passed": NumpyBool(), "note": [NumpyBool()]}),
    ]
    notes = []

    class Judge(Consumer):
        def run(self, job: Job[Any]) -> Any:
            notes.append(job.payload.note)
            return {"passed": NumpyBool()} if job.payload.note is True else Verdict(passed=NumpyBool())

    with Judge("scores") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        consumer.consume_until_empty()

    assert notes == [True, [True]]
    assert [orchestrator.result("scores", id_) for id_ in ids] == [Verdict(passed=True)] * 2


def test_a_secret_that_is_written_in_clear_reaches_the_handler(orchestrator: Orchestrator) -> None:
    """As the documentation says it is to be declared."""

    class Upload(JobInput):
        token: SecretStr

        @field_serializer("token")
        def write_in_clear(self, token: SecretStr) -> str:
            return token.get_secret_value()

    orchestrator.register(JobSchema("uploads", Upload))
    orchestrator.publish("uploads", {"token": "hunter2"})

    received = orchestrator.receive_message("uploads")

    assert received is not None
    assert received.payload.token.get_secret_value() == "hunter2"


@pytest.mark.parametrize("form", [dict, lambda fields: Job(schema_name="points", payload=fields)])
def test_an_unknown_key_is_refused_in_every_form_of_a_dict(
    orchestrator: Orchestrator, schema: Any, form: Callable[[dict[str, Any]], Any]
) -> None:
    """Nothing is published; in a batch it costs no other job (PUB-4, PUB-6)."""
    with pytest.raises(InvalidPayload, match="unknown key 'z'"):
        orchestrator.publish("points", form({"x": 1, "z": 2}))
    with pytest.raises(InvalidPayload, match="unknown key 'z'"):
        orchestrator.job("points", {"z": 2})

    handles = orchestrator.publish_batch("points", [form({"x": 1}), form({"z": 1}), form({})])
    outcomes = [handle.outcome for handle in handles]

    assert [outcome.status for outcome in outcomes] == ["accepted", "rejected", "accepted"]
    assert orchestrator.count_queue_messages("points") == 2


def test_a_queue_whose_schema_is_not_known_takes_any_key_but_no_bytes(
    client: LocalClient, schema: Any
) -> None:
    """Its consumers would read bytes as a string that isn't base64."""
    Orchestrator(client).register(schema)
    orchestrator = Orchestrator(client)
    orchestrator.attach("points")

    orchestrator.publish("points", {"x": 1, "newer": {"a": [1]}})
    with pytest.raises(InvalidPayload, match="payload: raw is bytes in a field without a type"):
        orchestrator.publish("points", {"raw": b"text"})


# -- jobs that wait while the model changes -------------------------------------------------------


def test_jobs_without_a_field_that_became_required_are_dead_at_once_and_can_be_redriven(
    client: LocalClient,
) -> None:
    """They aren't retried, their neighbours run, and after the mistake is corrected they run too (RCV-4)."""

    class Image(JobInput):
        path: str

    def newer(camera: Any) -> Any:
        return create_model("Image", __base__=Image, camera=camera)

    old = Orchestrator(client)
    old.register(JobSchema("inspect", Image))
    waiting = [old.publish("inspect", {"path": path}) for path in "ab"]

    runs: list[tuple[str, int, int]] = []

    class Inspector(Consumer):
        def run(self, job: Job[Any]) -> None:
            runs.append((job.payload.path, job.payload.camera, job.attempt))

    def consume(model: Any) -> None:
        orchestrator = Orchestrator(client)
        orchestrator.register(JobSchema("inspect", model))
        with Inspector("inspect") as consumer:
            consumer.connect(orchestrator, poll_timeout_s=0.0)
            orchestrator.publish("inspect", {"path": "new", "camera": 2})
            consumer.consume_until_empty()

    consume(newer((int, ...)))

    assert runs == [("new", 2, 1)]
    letters = old.dead_letters("inspect")
    assert [(letter.id, letter.reason, letter.attempt) for letter in letters] == [
        (id_, "malformed", 1) for id_ in waiting
    ]
    assert letters[0].error == "InvalidPayload: payload: doesn't fit Image (camera: Field required)"

    assert old.redrive("inspect") == 2
    consume(newer((int, Field(7))))
    assert sorted(runs[1:]) == [("a", 7, 1), ("b", 7, 1), ("new", 2, 1)]


def test_a_wrong_result_is_dead_at_once_and_can_be_redriven(
    orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]
) -> None:
    """With the attempts that were left, and the handler corrected (RES-1, DLQ-2)."""
    job_id = orchestrator.publish("points", {"x": 1})
    wrong = make_consumer(lambda job: {"total": "many"})
    assert wrong.consume_until_empty() == 1
    assert (wrong.stats.dead, wrong.stats.retried) == (1, 0)
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.reason, letter.attempt) == ("invalid result", 1)
    assert "total: Input should be a valid number" in letter.error

    orchestrator.redrive("points")
    make_consumer(lambda job: {"total": job.payload.x}).consume_until_empty()

    assert orchestrator.result("points", job_id).total == 1
