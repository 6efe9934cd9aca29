"""The doctor looks from the outside in, and raises nothing."""

from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, LocalClient, Queue, Verdict
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
