"""Publishing: what goes in is validated, confirmed and named; a batch is answered item by item."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from inspect import signature
from typing import Any, get_overloads

import pytest

from mindtrace.jobs import (
    AsyncJobQueue,
    AsyncOrchestrator,
    Job,
    JobInput,
    JobQueue,
    JobSchema,
    LocalClient,
    Orchestrator,
    PublishStatus,
    job_from_schema,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import (
    BackendUnavailable,
    InvalidInput,
    InvalidPayload,
    PublishUnknown,
    SchemaMismatch,
)


def received(orchestrator: Orchestrator, queue: str = "points") -> list[Job[Any]]:
    return list(iter(lambda: orchestrator.receive_message(queue), None))


def test_a_model_a_dict_and_a_job_are_the_same_work(orchestrator: Orchestrator, schema: Any) -> None:
    """Each is published under an id that is returned, and read back as the schema's input model (PUB-2)."""
    model = schema.input(x=1.5)
    ids = [
        orchestrator.publish("points", work) for work in (model, {"x": 1.5}, job_from_schema(schema, model))
    ]

    jobs = received(orchestrator)

    assert [job.id for job in jobs] == ids
    assert [job.payload for job in jobs] == [model] * 3


def test_the_id_is_the_jobs_own(orchestrator: Orchestrator, schema: Any) -> None:
    """Whatever the caller named the job, that is its name everywhere (PUB-2)."""
    assert orchestrator.publish("points", job_from_schema(schema, {}, id="mine")) == "mine"
    assert received(orchestrator)[0].id == "mine"


def test_publishing_a_live_id_again_changes_nothing(orchestrator: Orchestrator, schema: Any) -> None:
    """The second call returns the id as well, and a batch says that it was a duplicate (PUB-5)."""
    job = job_from_schema(schema, {"x": 1})
    orchestrator.publish("points", job)

    assert orchestrator.publish("points", job) == job.id
    assert [handle.outcome.status for handle in orchestrator.publish_batch("points", [job, {}])] == [
        PublishStatus.DUPLICATE,
        PublishStatus.ACCEPTED,
    ]
    assert orchestrator.count_queue_messages("points") == 2


def test_everything_that_a_job_says_of_itself_travels(orchestrator: Orchestrator, schema: Any) -> None:
    """Headers, budget and the moment of its making arrive as they left."""
    job = job_from_schema(schema, {"x": 1}, max_attempts=7, headers={"trace": "übung"})
    orchestrator.publish("points", job)

    assert received(orchestrator) == [job]


def test_a_job_with_a_dict_for_a_payload_is_validated_as_well(
    orchestrator: Orchestrator, schema: Any
) -> None:
    """A hand-made ``Job`` gets no further than any other input (PUB-6)."""
    orchestrator.publish("points", Job(schema_name="points", payload={"x": "1.5"}))

    assert received(orchestrator)[0].payload == schema.input(x=1.5)


def test_a_priority_overrides_the_jobs_own(client: LocalClient, schema: Any) -> None:
    """The argument wins over the job's field, and 0 is an argument like any other (ORD-3)."""
    orchestrator = Orchestrator(client)
    orchestrator.register(schema, "priority")
    orchestrator.publish("points", job_from_schema(schema, {}, id="lowered", priority=9), priority=0)
    orchestrator.publish("points", job_from_schema(schema, {}, id="own", priority=5))
    orchestrator.publish("points", job_from_schema(schema, {}, id="raised"), priority=7)

    assert [(job.id, job.priority) for job in received(orchestrator)] == [
        ("raised", 7),
        ("own", 5),
        ("lowered", 0),
    ]


def test_a_delay_holds_a_job_back(far: Orchestrator, clock: ManualClock) -> None:
    """It is counted, but can't be received before its time by the broker's clock (DLY-1)."""
    far.publish("points", {"x": 1}, delay_s=60)
    assert (far.counts("points").delayed, far.count_queue_messages("points")) == (1, 1)

    clock.advance(59.9)
    assert received(far) == []
    clock.advance(0.1)
    assert [job.payload.x for job in received(far)] == [1]


def test_a_job_may_say_when_it_is_due(far: Orchestrator, clock: ManualClock, schema: Any) -> None:
    """``not_before`` becomes a delay, none where it is past, and ``delay_s`` overrides it (DLY-1)."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    far.publish("points", job_from_schema(schema, {}, id="soon", not_before=soon))
    far.publish("points", job_from_schema(schema, {}, id="past", not_before=soon - timedelta(hours=2)))
    far.publish("points", job_from_schema(schema, {}, id="now", not_before=soon), delay_s=0)

    assert [(job.id, job.not_before is None) for job in received(far)] == [("past", False), ("now", True)]
    clock.advance(3600)
    assert [(job.id, job.not_before) for job in received(far)] == [("soon", soon)]


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
def test_a_publish_may_say_when_jobs_are_due(
    far: Orchestrator, clock: ManualClock, schema: Any, batch: bool
) -> None:
    """In any time zone; it overrides what the job says, and a moment that has passed is no delay (DLY-1)."""
    soon = datetime.now(timezone(timedelta(hours=5))) + timedelta(hours=1)
    job = job_from_schema(schema, {}, id="soon", not_before=soon + timedelta(days=1))
    past = job_from_schema(schema, {}, id="past")
    if batch:
        far.publish_batch("points", [job], not_before=soon)
        far.publish_batch("points", [past], not_before=soon - timedelta(hours=2))
    else:
        far.publish("points", job, not_before=soon)
        far.publish("points", past, not_before=soon - timedelta(hours=2))

    assert [job.id for job in received(far)] == ["past"]
    assert far.counts("points").delayed == 1
    clock.advance(3600)
    assert [(job.id, job.not_before) for job in received(far)] == [("soon", soon)]


@pytest.mark.parametrize("name", ["publish", "publish_batch"])
def test_every_publish_takes_the_same_options(name: str) -> None:
    """From threads and coroutines, of orchestrators and of queues, in each overload."""
    owners = (Orchestrator, AsyncOrchestrator, JobQueue, AsyncJobQueue)
    methods = [getattr(owner, name) for owner in owners]
    taken = {
        tuple(each.name for each in signature(method).parameters.values() if each.kind is each.KEYWORD_ONLY)
        for method in (*methods, *(overload for method in methods for overload in get_overloads(method)))
    }
    assert len(taken) == 1, taken


# -- batches --------------------------------------------------------------------------------------


def test_a_batch_answers_for_each_item_in_order(orchestrator: Orchestrator, schema: Any) -> None:
    """One that is refused keeps its place and its error, and costs no other (PUB-4)."""
    other = job_from_schema(JobSchema("other", schema.input), {}, id="other")

    handles = orchestrator.publish_batch("points", [{"x": 1}, {"x": "one"}, other, None, {"x": 2}])
    outcomes = [handle.outcome for handle in handles]

    assert [outcome.status.value for outcome in outcomes] == ["accepted", *["rejected"] * 3, "accepted"]
    assert [type(outcome.error) for outcome in outcomes[1:4]] == [
        InvalidPayload,
        SchemaMismatch,
        InvalidPayload,
    ]
    assert outcomes[2].id == "other"
    assert [job.id for job in received(orchestrator)] == [outcomes[0].id, outcomes[4].id]


def test_a_batch_is_validated_before_the_first_item_is_sent(orchestrator: Orchestrator) -> None:
    """Where the caller's own iterable fails half-way, nothing was published (PUB-4)."""

    def broken() -> Iterator[dict[str, float]]:
        yield {"x": 1}
        raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        orchestrator.publish_batch("points", broken())
    assert orchestrator.count_queue_messages("points") == 0


@pytest.mark.parametrize("batch", [[], [None], [{"x": "one"}] * 3])
def test_a_batch_with_nothing_to_send_is_fine(orchestrator: Orchestrator, batch: list[Any]) -> None:
    """Empty, or refused to the last item (PUB-4)."""
    handles = orchestrator.publish_batch("points", batch)
    outcomes = [handle.outcome for handle in handles]

    assert [outcome.status for outcome in outcomes] == [PublishStatus.REJECTED] * len(batch)
    assert orchestrator.count_queue_messages("points") == 0


def test_the_limit_of_a_body_is_the_orchestrators(client: LocalClient, schema: Any) -> None:
    """``max_body_bytes`` holds in each direction (PUB-6, RCV-4)."""
    small = Orchestrator(client, max_body_bytes=80)
    small.register(schema)

    outcome = small.publish_batch("points", [{"x": 1}])[0].outcome
    assert isinstance(outcome.error, InvalidInput)
    assert "the limit is 80 bytes" in str(outcome.error)

    large = Orchestrator(client)
    large.register(schema)
    large.publish("points", {"x": 1})
    assert small.receive_message("points") is None
    assert "the limit is 80 bytes" in small.dead_letters("points")[0].error


# -- a line that breaks ---------------------------------------------------------------------------


def test_a_lost_confirm_is_no_answer(far: Orchestrator, line: Any, schema: Any) -> None:
    """The error says so, and publishing again under the same id makes no second job (PUB-4, PUB-5)."""
    job = job_from_schema(schema, {})
    line.breaks["publish"] = 1

    with pytest.raises(PublishUnknown) as raised:
        far.publish("points", job)
    assert isinstance(raised.value.__cause__, BackendUnavailable)
    assert far.publish("points", job) == job.id
    assert far.count_queue_messages("points") == 1


def test_a_lost_confirm_says_whether_the_job_may_be_published_again(
    far: Orchestrator, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dedupe it may make a second job (PUB-5)."""
    line.breaks["publish"] = 2

    with pytest.raises(PublishUnknown, match="publish it again under the same id"):
        far.publish("points", {})
    without = replace(far.backend.capabilities, dedupe=False)
    monkeypatch.setattr(type(far.backend), "capabilities", without)
    with pytest.raises(PublishUnknown, match="publishing it again may make a second job"):
        far.publish("points", {})


def test_a_lost_confirm_of_a_batch_is_answered_item_by_item(far: Orchestrator, line: Any) -> None:
    """What was refused before is known, what was sent is not (PUB-4)."""
    line.breaks["publish"] = 1

    outcomes = [handle.outcome for handle in far.publish_batch("points", [{}, None, {}])]

    assert [outcome.status.value for outcome in outcomes] == ["unknown", "rejected", "unknown"]
    assert isinstance(outcomes[0].error, BackendUnavailable)


@pytest.mark.parametrize("one", [{"x": 1}, "x", JobInput(), Job(schema_name="points", payload={"x": 1})])
def test_a_batch_of_a_single_job_is_refused(orchestrator: Orchestrator, one: Any) -> None:
    """It would be taken apart into its fields or letters."""
    with pytest.raises(InvalidInput, match="publish_batch: pass a list of jobs, not one"):
        orchestrator.publish_batch("points", one)
    assert orchestrator.count_queue_messages("points") == 0
