"""What a worker runs, by its names on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs.application.worker.worker import make_consumers
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.loading import load_maker
from mindtrace.jobs.cli.targets import Target

SHOP = """
from mindtrace.jobs import BatchConsumer, Consumer, JobInput, JobSchema, batch_handler, job_handler
from shop.other import Other, Shipping


class Base(Consumer):
    def run(self, job): ...


class High(Base):
    schema = JobSchema("high", JobInput)


class Named(Base):
    def __init__(self):
        super().__init__("named")


@job_handler(JobSchema("low", JobInput))
def low(job): ...


class Batches(BatchConsumer):
    schema = JobSchema("batches", JobInput)

    def run_batch(self, jobs): ...


@batch_handler(JobSchema("more", JobInput))
def more(jobs): ...


class _Hidden(High):
    schema = JobSchema("hidden", JobInput)


Again = High


def several():
    return [High(), low.consumer(), High(queue="higher")]
"""
OTHER = """
from mindtrace.jobs import Consumer, JobInput, JobSchema
from elsewhere import Elsewhere, Foreign


class Other(Consumer):
    schema = JobSchema("other", JobInput)

    def run(self, job): ...


Shipping = Other
__all__ = ["Other", "Foreign"]
"""
ELSEWHERE = """
from mindtrace.jobs import Consumer, JobInput, JobSchema


class Elsewhere(Consumer):
    schema = JobSchema("elsewhere", JobInput)

    def run(self, job): ...


class Foreign(Elsewhere):
    schema = JobSchema("foreign", JobInput)
"""


@pytest.fixture
def queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Make the consumers that a name stands for, and return their queues."""
    tmp_path.joinpath("shop").mkdir()
    tmp_path.joinpath("shop", "__init__.py").write_text(SHOP, "utf-8")
    tmp_path.joinpath("shop", "other.py").write_text(OTHER, "utf-8")
    tmp_path.joinpath("elsewhere.py").write_text(ELSEWHERE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: Any = __import__("sys").modules
    for name in ("shop", "shop.other", "elsewhere"):
        monkeypatch.delitem(modules, name, raising=False)
    return lambda target: [each.queue_name for each in make_consumers(load_maker(target))]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("shop:High", ["high"]),
        ("shop:low", ["low"]),
        ("shop:several", ["high", "low", "higher"]),
        ("shop", ["other", "high", "named", "low", "batches", "more"]),
        ("shop.other", ["foreign", "other"]),
        ("elsewhere", ["elsewhere", "foreign"]),
    ],
)
def test_a_name_stands_for_consumers(
    queues: Callable[[str], list[str]], target: str, expected: list[str]
) -> None:
    """In the order of their definitions; of a module those that are its own, or that it exports."""
    assert queues(target) == expected


@pytest.mark.parametrize(
    ("text", "target"),
    [("tasks", ("tasks", None)), ("tasks:High", ("tasks:High", None)), ("tasks:High=3", ("tasks:High", 3))],
)
def test_a_weight_stands_after_the_name(text: str, target: tuple[str, int | None]) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize("weight", ["0", "-1", "1.5", "high", "", "10001", "²"])
def test_an_impossible_weight_is_refused(weight: str) -> None:
    with pytest.raises(BadUsage, match="a weight is a whole number from 1 to 10,000, as in tasks:High=3"):
        Target.parse(f"tasks:High={weight}")
