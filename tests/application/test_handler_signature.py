"""A handler that can't be called with a job is refused when its consumer is made, and not once per job."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, job_handler
from mindtrace.jobs.application.checks.handler_signature import check_takes_job
from mindtrace.jobs.errors import HandlerMissing

SCHEMA = JobSchema("points", JobInput)


def consumer_with(run: Any) -> Consumer:
    return type("Mine", (Consumer,), {"run": run})("points")


def with_extra(run: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that passes an argument more, and says that it wraps."""

    @functools.wraps(run)
    def wrapper(*args: Any) -> Any:
        return run(*args, "extra")

    return wrapper


class Callee:
    def __call__(self, job: Job[Any]) -> None: ...


FINE = {
    "plain": lambda self, job: None,
    "with a default": lambda self, job, retries=3: None,
    "any arguments": lambda *args, **kwargs: None,
    "positional only": lambda self, job, /: None,
    "under another name": lambda self, work: None,
    "static": staticmethod(lambda job: None),
    "of the class": classmethod(lambda cls, job: None),
    "decorated": with_extra(lambda self, job, extra: None),
    "partial method": functools.partialmethod(lambda self, first, job: None, 1),
    "callable object": Callee(),
    "written in C": print,
}


@pytest.mark.parametrize("run", FINE.values(), ids=FINE.keys())
def test_whatever_takes_a_job_is_a_handler(orchestrator: Orchestrator, run: Any) -> None:
    """It runs a job, and isn't only accepted."""
    orchestrator.publish("points", {})
    with consumer_with(run) as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        consumer.consume_until_empty()

        assert (consumer.stats.done, consumer.stats.retried, consumer.stats.dead) == (1, 0, 0)


WRONG = {
    "no job": (lambda self: None, r"Mine.run\(self\) can't be called with a job .*: define run\(self, job\)"),
    "no self": (lambda: None, r"Mine.run\(\) can't be called with a job .*: define run\(self, job\)"),
    "by name only": (lambda self, *, job: None, r"Mine.run\(self, \*, job\) can't be called with a job"),
    "more than a job": (
        lambda self, job, model: None,
        r"Mine.run\(self, job, model\) .* \(missing a required argument: 'model'\)",
    ),
    "static without": (staticmethod(lambda: None), r"Mine.run\(\) .*: define run\(job\)"),
    "static with self": (
        staticmethod(lambda self, job: None),
        r"Mine.run\(self, job\) .*: define run\(job\)",
    ),
}


@pytest.mark.parametrize(("run", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_take_a_job_alone_is_refused(run: Any, message: str) -> None:
    """The message shows the signature, what is wrong with it, and the right one."""
    with pytest.raises(HandlerMissing, match=message):
        consumer_with(run)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, r"<lambda>\(\) can't be called with a job"),
        (lambda job, model: None, r"<lambda>\(job, model\) can't be called with a job"),
    ],
)
def test_a_function_is_looked_at_when_it_is_decorated(function: Any, message: str) -> None:
    with pytest.raises(HandlerMissing, match=message):
        job_handler(SCHEMA)(function)


def test_an_async_handler_is_looked_at_as_well() -> None:
    async def measure() -> None: ...

    with pytest.raises(
        HandlerMissing, match=r"measure\(\) can't be called with a job .*: define measure\(job\)"
    ):
        job_handler(SCHEMA)(measure)  # type: ignore[arg-type]


def test_what_says_nothing_of_its_arguments_is_taken() -> None:
    """As some functions of extension modules."""

    class Silent(Callee):
        __signature__ = 42

    check_takes_job("run", Silent())
