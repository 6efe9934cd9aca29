"""Classes that were defined again, as by a notebook cell, stand for those before, or it is said why not."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, LocalClient, Orchestrator
from mindtrace.jobs.errors import InvalidInput, InvalidPayload, QueueConflict, SchemaConflict

CELL = """
from mindtrace.jobs import Consumer, JobInput, JobOutput, JobSchema

class Size(JobInput):
    width: int

class Image(JobInput):
    path: str
    raw: bytes = b""
    size: Size | None = None

class Report(JobOutput):
    defects: int

class Inspector(Consumer[Image, Report]):
    schema = JobSchema("inspect", Image, Report)

    def run(self, job):
        return Report(defects=len(job.payload.path))
"""


def cell(text: str = CELL) -> Any:
    """Run a notebook cell anew."""
    module = ModuleType("__main__")
    exec(text, module.__dict__)
    return module


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with LocalClient() as client:
        yield Orchestrator(client)


def run_all(orchestrator: Orchestrator, consumer: Consumer) -> int:
    with consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        return consumer.consume_until_empty()


def test_a_cell_can_be_run_again(orchestrator: Orchestrator) -> None:
    """Old and new classes publish, run and read results, in whatever order."""
    old, new = cell(), cell()
    before = orchestrator.queue(old.Inspector.schema)
    handles = [before.publish(old.Image(path="a"))]
    after = orchestrator.queue(new.Inspector.schema)
    handles += [
        after.publish(new.Image(path="ab", raw=b"\xff", size=new.Size(width=1))),
        before.publish(old.Image(path="abc", raw=b"\xff", size=old.Size(width=1))),
        after.publish(old.Image(path="abcd")),
        before.publish(new.Image(path="abcde")),
    ]
    orchestrator.publish("inspect", old.Image(path="by name"))
    orchestrator.publish("inspect", Job(schema_name="inspect", payload=old.Image(path="in a job")))

    assert run_all(orchestrator, new.Inspector()) == 7
    assert [handle.result() for handle in handles[:2]] == [old.Report(defects=1), new.Report(defects=2)]
    assert [handle.result().defects for handle in handles] == [1, 2, 3, 4, 5]


def test_the_last_definition_is_what_is_received_by_name(orchestrator: Orchestrator) -> None:
    """And a queue of the old schema receives the old class, as its types say."""
    old, new = cell(), cell()
    before, after = orchestrator.queue(old.Inspector.schema), orchestrator.queue(new.Inspector.schema)
    orchestrator.publish_batch("inspect", [{"path": "a"}] * 3)

    received = [orchestrator.receive_message("inspect"), before.receive(), after.receive()]

    assert [type(job.payload) for job in received if job] == [new.Image, old.Image, new.Image]


def test_a_consumer_that_was_connected_before_goes_on(orchestrator: Orchestrator) -> None:
    """Though the global name in its ``run`` means the new class by then."""
    old = cell()
    consumer = old.Inspector()
    consumer.connect(orchestrator, poll_timeout_s=0.0)
    new = cell()
    orchestrator.register(new.Inspector.schema)
    old.Report = new.Report

    job_id = orchestrator.publish("inspect", new.Image(path="abc"))
    with consumer:
        assert consumer.consume_until_empty() == 1

    assert orchestrator.result("inspect", job_id) == new.Report(defects=3)


def test_a_module_can_be_reloaded(
    orchestrator: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``importlib.reload`` or ``%autoreload``."""
    (tmp_path / "reloaded_tasks.py").write_text(CELL, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tasks = importlib.import_module("reloaded_tasks")
    try:
        old = tasks.Image(path="a")
        orchestrator.register(tasks.Inspector.schema)
        importlib.reload(tasks)
        orchestrator.publish("inspect", old)

        assert not isinstance(old, tasks.Image)
        assert run_all(orchestrator, tasks.Inspector()) == 1
    finally:
        del sys.modules["reloaded_tasks"]


CHANGES: dict[str, tuple[str, str, str]] = {
    "a field was added": ("path: str", "path: str\n    zoom: int = 1", "Image.zoom was added"),
    "a field was removed": ('    raw: bytes = b""\n', "", "Image.raw was removed"),
    "a type was changed": (
        "defects: int",
        "defects: float",
        "Report.defects was changed from required type: integer to required type: number",
    ),
    "a model within was changed": ("width: int", "width: int\n    height: int", "Size.height was added"),
}


@pytest.mark.parametrize(("old_text", "new_text", "said"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize(
    "use",
    [
        lambda orchestrator, new: orchestrator.register(new.Inspector.schema),
        lambda orchestrator, new: orchestrator.queue(new.Inspector.schema),
        lambda orchestrator, new: orchestrator.publish(new.Inspector.schema, {"path": "a"}),
        lambda orchestrator, new: new.Inspector().connect(orchestrator),
    ],
    ids=["register", "queue", "publish", "connect"],
)
def test_a_model_that_was_changed_is_a_conflict_that_names_the_field(
    orchestrator: Orchestrator,
    use: Callable[[Orchestrator, Any], object],
    old_text: str,
    new_text: str,
    said: str,
) -> None:
    """And says what helps; the first registration stands."""
    old, new = cell(), cell(CELL.replace(old_text, new_text))
    orchestrator.register(old.Inspector.schema)

    with pytest.raises(SchemaConflict) as raised:
        use(orchestrator, new)

    assert str(raised.value).startswith(
        f"queue 'inspect' carries jobs of Image -> Report as it was defined before: {said}. To go on with "
    )
    assert orchestrator.count_queue_messages("inspect") == 0
    orchestrator.publish(old.Inspector.schema, old.Image(path="a"))
    fresh = Orchestrator(orchestrator.backend)
    fresh.register(new.Inspector.schema)


def test_an_instance_of_a_model_that_was_changed_is_refused_in_words(orchestrator: Orchestrator) -> None:
    """It has to be made anew (PUB-6)."""
    old, new = cell(), cell(CELL.replace("path: str", "path: str\n    zoom: int = 1"))
    orchestrator.register(new.Inspector.schema)

    with pytest.raises(InvalidPayload) as raised:
        orchestrator.publish("inspect", old.Image(path="a"))

    assert str(raised.value) == (
        "payload: Image was defined again since this instance was made, and differs: Image.zoom was added. "
        "Make the instance anew"
    )


def test_an_instance_of_another_model_is_no_instance_of_this(orchestrator: Orchestrator) -> None:
    """However alike the two are."""
    defined = cell()
    orchestrator.register(defined.Inspector.schema)
    twin = type("Twin", (defined.Size,), {})

    with pytest.raises(InvalidPayload, match="payload: expected Image or a dict, got Twin"):
        orchestrator.publish("inspect", twin(width=1))


def test_a_consumer_may_be_declared_for_classes_that_were_defined_again() -> None:
    """Where the schema is in another cell than the models."""
    old, new = cell(), cell()

    class Inspector(Consumer[new.Image, new.Report]):  # type: ignore[name-defined]
        schema = old.Inspector.schema

        def run(self, job: Job[Any]) -> None: ...

    class Swapped(Consumer[new.Report, new.Image]):  # type: ignore[name-defined]
        schema = old.Inspector.schema

        def run(self, job: Job[Any]) -> None: ...

    assert Inspector().queue_name == "inspect"
    with pytest.raises(InvalidInput, match="Swapped is declared for Report, but its schema has Image"):
        Swapped()


# -- a queue that was used without its schema before ----------------------------------------------


class Note(JobInput):
    text: str


class Length(JobOutput):
    length: int


NOTES = JobSchema("notes", Note, Length)


class Measure(Consumer[Note, Length]):
    schema = NOTES
    queue_type = "priority"

    def run(self, job: Job[Note]) -> Length:
        return Length(length=len(job.payload.text))


@pytest.fixture
def attached(orchestrator: Orchestrator) -> Orchestrator:
    Orchestrator(orchestrator.backend).register(NOTES, "priority")
    orchestrator.attach("notes")
    return orchestrator


def test_a_queue_that_was_attached_can_get_its_schema(attached: Orchestrator) -> None:
    """It keeps its type, and from then on jobs are validated."""
    attached.publish("notes", {"text": "a", "any": "key"})

    queue = attached.queue(NOTES)
    handle = queue.publish(Note(text="abc"), priority=9)

    with pytest.raises(InvalidPayload, match="unknown key 'any'"):
        attached.publish("notes", {"text": "a", "any": "key"})
    assert run_all(attached, Measure()) == 2
    assert handle.result() == Length(length=3)


@pytest.mark.parametrize(
    "use",
    [
        lambda orchestrator: orchestrator.register(NOTES, "priority"),
        lambda orchestrator: Measure().connect(orchestrator),
        lambda orchestrator: orchestrator.publish(NOTES, Note(text="a")),
    ],
    ids=["register", "connect", "publish"],
)
def test_whatever_brings_the_schema_is_taken(
    attached: Orchestrator, use: Callable[[Orchestrator], object]
) -> None:
    """A schema is no conflict with none."""
    use(attached)

    with pytest.raises(InvalidPayload, match="text: Input should be a valid string"):
        attached.publish(NOTES, {"text": 7})


def test_a_queue_that_has_its_schema_can_be_attached(orchestrator: Orchestrator) -> None:
    """That changes nothing, and another type of queue is still a conflict."""
    orchestrator.register(NOTES)
    orchestrator.attach("notes")

    with pytest.raises(InvalidPayload):
        orchestrator.publish("notes", {"any": "key"})
    with pytest.raises(QueueConflict):
        orchestrator.queue(NOTES, "stack")
