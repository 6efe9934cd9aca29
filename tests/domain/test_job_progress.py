"""How far a job has come: what its handler may say, and who hears it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

import pytest

from mindtrace.jobs import Job, JobInput, JobsError, Progress, progress
from mindtrace.jobs.domain.job_context import ConsumerContext, running

JOB = Job(schema_name="points", payload=JobInput())


@contextmanager
def heard_in(heard: list[Progress]) -> Iterator[None]:
    """The context of a job whose progress is heard."""
    consumer = ConsumerContext("points", None, lambda job, receipt, progress: heard.append(progress))
    token = running.set((JOB, "receipt", consumer))
    try:
        yield
    finally:
        running.reset(token)


def test_it_goes_nowhere_outside_a_worker() -> None:
    """A handler can be called in a test as it is."""
    progress(1, 2)
    JOB.progress(1, 2)


def test_the_consumer_of_the_context_hears_it() -> None:
    """From the job and from the function alike, until the context ends."""
    heard: list[Progress] = []
    with heard_in(heard):
        progress(1)
        JOB.progress(2, 4)
    progress(3)

    assert heard == [Progress(1), Progress(2, 4)]


def test_a_thread_of_the_handler_is_heard_if_it_runs_in_its_context() -> None:
    heard: list[Progress] = []
    with heard_in(heard):
        for context in (copy_context(), None):
            run = progress if context is None else lambda done, context=context: context.run(progress, done)
            thread = threading.Thread(target=run, args=(1,))
            thread.start()
            thread.join()

    assert heard == [Progress(1)]


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), "1"])
def test_only_amounts_are_progress(number: object) -> None:
    with pytest.raises(JobsError, match="must be a number, 0 or more"):
        progress(number)  # type: ignore[arg-type]
    with pytest.raises(JobsError, match="must be a number, 0 or more"):
        progress(1, number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("3", Progress(3)),
        ("1/4 (25%)", Progress(1, 4)),
        ("5/4 (100%)", Progress(5, 4)),
        ("0", Progress(0, 0)),
    ],
)
def test_it_is_shown_as_a_share_where_the_total_is_known(shown: str, told: Progress) -> None:
    assert str(told) == shown
