"""The doctor looks from the outside in, and raises nothing."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import (
    AnyJSON,
    BatchConsumer,
    Consumer,
    Every,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Queue,
    Rate,
    Verdict,
)
from mindtrace.jobs.application.tools.doctor import examine
from mindtrace.jobs.application.worker.connecting import WorkerSettings
from mindtrace.jobs.domain.errors import (
    AccessDenied,
    BackendUnavailable,
    BrokerUnsuitable,
    Closed,
    JobsError,
    UnsupportedCapability,
)

URL = "memory://doctor-tests"


class Inspector(Consumer):
    schema = JobSchema(name="inspect", input=JobInput)
    queue_type = "stack"

    def run(self, job: Job[Any]) -> None: ...


def subjects(url: str, *makers: Any, **settings: Any) -> dict[str, Verdict]:
    findings = examine(url, makers, WorkerSettings(**settings))
    assert all(bool(finding.remedy) == (finding.verdict is not Verdict.GOOD) for finding in findings)
    return {finding.subject: finding.verdict for finding in findings}


def test_what_is_well_is_said_too() -> None:
    found = subjects(URL, Inspector)
    assert found == {
        "adapter": Verdict.GOOD,
        "reachable": Verdict.GOOD,
        "durability": Verdict.DOUBTFUL,
        "queue": Verdict.GOOD,
    }


def test_a_url_that_means_nothing_is_all_there_is_to_say() -> None:
    assert subjects("reddis://host", Inspector) == {"url": Verdict.WRONG}
    assert subjects("rabbit://host") == {"url": Verdict.WRONG}


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (BackendUnavailable, "reachable"),
        (AccessDenied, "access"),
        (BrokerUnsuitable, "broker"),
        (Closed, "broker"),
    ],
)
def test_a_broker_that_cannot_be_asked_is_asked_nothing_more(
    monkeypatch: pytest.MonkeyPatch, error: type[JobsError], subject: str
) -> None:
    def refuse(*_: object) -> None:
        raise error("no")

    monkeypatch.setattr(LocalClient, "counts", refuse)
    monkeypatch.setattr(LocalClient, "queues", lambda *_: pytest.fail("it was asked"))
    found = subjects(URL, Inspector)

    assert found[subject] is Verdict.WRONG
    assert "queue" not in found


def test_a_queue_of_another_type_is_wrong() -> None:
    with LocalClient("doctor-tests") as client:
        client.declare(Queue("inspect", "fifo"))  # type: ignore[arg-type]
        assert subjects(URL, Inspector)["queue"] is Verdict.WRONG
        (finding,) = [each for each in examine(URL, [Inspector], WorkerSettings()) if each.subject == "queue"]

    assert finding.remedy.endswith("then run: mindtrace-jobs delete inspect")


@pytest.mark.parametrize(
    ("error", "verdict"), [(UnsupportedCapability, Verdict.GOOD), (AccessDenied, Verdict.DOUBTFUL)]
)
def test_a_backend_that_cannot_list_its_queues_is_not_held_against_the_consumer(
    monkeypatch: pytest.MonkeyPatch, error: type[JobsError], verdict: Verdict
) -> None:
    def refuse(_: object) -> None:
        raise error("no")

    monkeypatch.setattr(LocalClient, "queues", refuse)
    assert subjects(URL, Inspector)["queue"] is verdict


def test_a_lease_that_is_short_is_doubtful() -> None:
    assert subjects(URL, lease_s=1.0)["lease"] is Verdict.DOUBTFUL


def test_a_consumer_that_cannot_be_made_is_wrong() -> None:
    def fail() -> Consumer:
        raise BrokerUnsuitable("no")

    assert subjects(URL, fail)["consumer"] is Verdict.WRONG


class Limited(Inspector):
    schema = JobSchema("limited", JobInput, rate=Rate(1, per_s=1))
    queue_type = "fifo"


class Scheduled(Inspector):
    schema = JobSchema("scheduled", JobInput)
    schedule = Every(timedelta(minutes=1))


class Lavish(Inspector):
    concurrency = 0


class Batches(BatchConsumer):
    schema = JobSchema("batches", JobInput)

    def run_batch(self, jobs: Any) -> Any: ...


class Other(Inspector):
    schema = JobSchema("inspect", AnyJSON)


class Fifo(Inspector):
    queue_type = "fifo"


class Unconnected(Inspector):
    def connect(self, *args: Any, **settings: Any) -> None:
        raise RuntimeError("no GPU is free")


@pytest.mark.parametrize(
    ("consumer", "settings", "message"),
    [
        (Limited, {}, "Limited: limits need a coordination store"),
        (Scheduled, {}, "Scheduled: schedules need a coordination store"),
        (Lavish, {}, "Lavish: concurrency 0: must be"),
        (Batches, {"concurrency": 2}, "Batches runs one batch at a time"),
        (Other, {}, "Other: queue 'inspect' carries jobs of"),
        (Fifo, {}, "Fifo: queue 'inspect' has the type stack for another consumer"),
        (Unconnected, {}, "RuntimeError: no GPU is free"),
    ],
)
def test_what_a_worker_refuses_is_wrong(
    monkeypatch: pytest.MonkeyPatch, consumer: type[Consumer], settings: dict[str, Any], message: str
) -> None:
    """In the same words, but for a conflict with a queue that another consumer has yet to declare."""
    bare = replace(LocalClient("doctor-tests").capabilities, coordination=False)
    monkeypatch.setattr(LocalClient, "capabilities", bare)
    findings = examine(URL, [Inspector, consumer], WorkerSettings(**settings))
    (found,) = [each for each in findings if each.subject == "consumer"]

    assert found.verdict is Verdict.WRONG
    assert found.what.startswith(message)


def test_a_file_is_not_made_for_a_schedule(tmp_path: Path) -> None:
    subjects(f"sqlite:///{tmp_path}/jobs.db", Scheduled)
    assert list(tmp_path.iterdir()) == []


def test_a_consumer_that_exits_is_wrong() -> None:
    class Leaves(Inspector):
        def connect(self, *args: Any, **settings: Any) -> None:
            sys.exit(0)

    assert subjects(URL, Leaves)["consumer"] is Verdict.WRONG


def test_a_consumer_is_connected_without_a_trace() -> None:
    """Neither its queue nor its schedule is there afterwards."""
    with LocalClient("doctor-tests") as client:
        assert subjects(URL, Limited, Scheduled)["queue"] is Verdict.GOOD
        assert client.queues() == []
        assert client.coordination.scan("") == {}
