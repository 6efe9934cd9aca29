"""Schemas with ``dead_ttl_s``: for how long dead letters are kept, by the broker's clock (DLQ-5)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from mindtrace.jobs import Capabilities, Consumer, Job, JobInput, JobSchema, LocalClient, Orchestrator, Reject
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.errors import JobNotFound, UnsupportedCapability
from mindtrace.jobs.ports import Message

TTL_S = 60.0


class Page(JobInput):
    number: int


PAGES = JobSchema("pages", Page, dead_ttl_s=TTL_S)


class Refuses(Consumer[Page]):
    schema = PAGES

    def run(self, job: Job[Page]) -> None:
        raise Reject("no good")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def jobs(clock: ManualClock) -> Iterator[Orchestrator]:
    with LocalClient(clock=clock) as client, Orchestrator(client) as jobs:
        jobs.register(PAGES)
        yield jobs


def reject(jobs: Orchestrator) -> str:
    job_id = jobs.publish(PAGES, Page(number=1))
    with Refuses() as consumer:
        consumer.connect(jobs)
        consumer.consume(1)
    return job_id


def find_malformed(jobs: Orchestrator) -> str:
    jobs.backend.publish("pages", [Message("malformed", b"?")])
    assert jobs.receive_message(PAGES) is None
    return "malformed"


@pytest.mark.parametrize("die", [reject, find_malformed])
def test_a_dead_letter_is_kept_for_the_time_of_its_schema(
    jobs: Orchestrator, clock: ManualClock, die: Callable[[Orchestrator], str]
) -> None:
    job_id = die(jobs)
    clock.advance(TTL_S - 1)
    assert [letter.id for letter in jobs.dead_letters("pages")] == [job_id]
    assert jobs.counts("pages").dead == 1
    clock.advance(1)
    assert jobs.dead_letters("pages") == []
    assert jobs.counts("pages").dead == jobs.redrive("pages") == jobs.discard("pages", [job_id]) == 0


def test_who_asks_for_the_result_is_told_what_may_have_become_of_it(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    job_id = reject(jobs)
    clock.advance(TTL_S)
    with pytest.raises(JobNotFound, match="or its dead letter was removed after dead_ttl_s, 60 s"):
        jobs.result(PAGES, job_id)


def test_letters_that_were_redriven_in_time_leave_nothing(jobs: Orchestrator) -> None:
    """However often a job dies and is redriven before its time is over (CON-2)."""
    for _ in range(300):
        reject(jobs)
        assert jobs.redrive("pages") == 1
        assert jobs.receive_message(PAGES) is not None
    client = jobs.backend
    assert isinstance(client, LocalClient)
    assert len(client._queue("pages")._dead.ends) < 150


def test_a_backend_that_removes_no_dead_letters_refuses_the_schema() -> None:
    class Older(LocalClient):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, dead_ttl=False, exact_dead_ttl=False)

    with (
        Older() as client,
        Orchestrator(client) as jobs,
        pytest.raises(UnsupportedCapability, match="leave dead_ttl_s out"),
    ):
        jobs.register(PAGES)
