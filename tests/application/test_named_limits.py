"""Limits with a name: the jobs of several queues share their places and turns."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Limit, Orchestrator, Rate, job_from_schema
from mindtrace.jobs.errors import InvalidName, SchemaConflict


class Frame(JobInput):
    camera: int = 0


class Shot(JobInput):
    source: int = 0


def schemas(limit: Limit | None = None, other: Limit | None = None) -> list[JobSchema[Any, Any]]:
    """Return the schemas of two queues."""
    return [
        JobSchema("frames", Frame, concurrency_limit=limit),
        JobSchema("shots", Shot, concurrency_limit=other or limit),
    ]


class Meeting:
    """Notes how many handlers run at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = self.done = 0

    def run(self, job: Job[Any]) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        threading.Event().wait(0.002)
        with self._lock:
            self._now -= 1
            self.done += 1


def run_all(orchestrator: Orchestrator, kinds: Sequence[JobSchema[Any, Any]], meeting: Meeting) -> None:
    """Run what is in the queues, with a consumer of four threads for each."""

    def work(schema: JobSchema[Any, Any]) -> None:
        made: Consumer = type(
            "Work", (Consumer,), {"schema": schema, "run": lambda self, job: meeting.run(job)}
        )()
        with made as consumer:
            consumer.connect(orchestrator, concurrency=4, poll_timeout_s=0.2)
            consumer.consume_until_empty()

    threads = [threading.Thread(target=work, args=(schema,)) for schema in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)


@pytest.mark.parametrize(
    ("limit", "other"),
    [
        (Limit(2, name="gpu"), Limit(2, name="gpu")),
        (Limit(2, name="gpu", by="camera"), Limit(2, name="gpu", by="source")),
    ],
    ids=["whole", "by the value of a field"],
)
def test_two_queues_share_the_places_of_a_name(
    orchestrator: Orchestrator, limit: Limit, other: Limit
) -> None:
    kinds, meeting = schemas(limit, other), Meeting()
    for schema in kinds:
        orchestrator.register(schema)
        jobs = [job_from_schema(schema, schema.input(), id=str(number)) for number in range(20)]
        orchestrator.publish_batch(schema.name, jobs)  # of both queues, those of one id count by themselves
    run_all(orchestrator, kinds, meeting)

    assert meeting.done == 40
    assert meeting.most == 2


def test_limits_without_a_name_or_with_others_are_not_shared(orchestrator: Orchestrator) -> None:
    """Not even with a queue of that name."""
    kinds = [
        JobSchema("gpu", Frame, concurrency_limit=Limit(1)),
        JobSchema("shots", Shot, concurrency_limit=Limit(1, name="gpu")),
        JobSchema("others", Shot, concurrency_limit=Limit(1, name="others")),
    ]
    waiting = threading.Barrier(3)
    for schema in kinds:
        orchestrator.register(schema)
        orchestrator.publish(schema.name, schema.input())
    meeting = Meeting()
    meeting.run = lambda job: (waiting.wait(LIMIT_S), setattr(meeting, "done", meeting.done + 1))[0]  # type: ignore[assignment,method-assign]
    run_all(orchestrator, kinds, meeting)
    assert not waiting.broken


def test_two_queues_share_the_turns_of_a_name(orchestrator: Orchestrator) -> None:
    """The first job has the only turn of this hour, and the other queue gets none."""
    rate = Rate(1, per_s=3600, name="api")
    kinds = [JobSchema("frames", Frame, rate=rate), JobSchema("shots", Shot, rate=rate)]
    ran: list[str] = []
    for schema in kinds:
        orchestrator.register(schema)
        orchestrator.publish(schema.name, schema.input())
        work: Consumer = type(
            "Work", (Consumer,), {"schema": schema, "run": lambda self, job: ran.append(self.schema.name)}
        )()
        with work as consumer:
            consumer.connect(orchestrator, poll_timeout_s=0.05)
            consumer.consume(1)
    assert ran == ["frames"]
    assert orchestrator.counts("shots").ready == 1


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Limit(2, name="gpu"), Limit(3, name="gpu"), r"Limit 'gpu' is 3 here, and 2 in queue 'frames'"),
        (Limit(2, name="gpu"), Limit(2, name="gpu", by="source"), "2 for each value of 1 field here, and 2"),
    ],
)
def test_limits_of_one_name_that_differ_are_refused(
    orchestrator: Orchestrator, one: Limit, other: Limit, message: str
) -> None:
    frames, shots = schemas(one, other)
    orchestrator.register(frames)
    with pytest.raises(SchemaConflict, match=message):
        orchestrator.register(shots)
    orchestrator.register(JobSchema("shots", Shot, concurrency_limit=Limit(9)))


def test_rates_of_one_name_that_differ_are_refused(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("frames", Frame, rate=Rate(1, per_s=2, name="api")))
    with pytest.raises(SchemaConflict, match="Rate 'api' is 1 per 3 s with a burst of 1 here, and 1 per 2 s"):
        orchestrator.register(JobSchema("shots", Shot, rate=Rate(1, per_s=3, name="api")))


def test_the_limit_of_a_queue_may_be_redefined_under_its_name(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=Limit(1, name="gpu")))
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=Limit(2, name="gpu")))


@pytest.mark.parametrize("kind", [lambda name: Limit(1, name=name), lambda name: Rate(1, per_s=1, name=name)])
def test_a_name_with_other_characters_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidName, match="name 'a/b'"):
        kind("a/b")
