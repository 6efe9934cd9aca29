"""The keys of jobs: those of values that were seen before are remembered, and stay what they are."""

from collections.abc import Iterator
from typing import Any

import pytest

from mindtrace.jobs import JobInput, JobSchema, Limit, LocalClient, Orchestrator
from mindtrace.jobs.application.limits import keys as module
from mindtrace.jobs.application.limits.keys import Keys
from mindtrace.jobs.ports import Delivery


class Frame(JobInput):
    by: Any
    other: int = 0


SCHEMA = JobSchema("frames", Frame, concurrency_limit=Limit(4, by="by"))


@pytest.fixture
def jobs() -> Iterator[Orchestrator]:
    with Orchestrator(LocalClient()) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator


def deliveries(jobs: Orchestrator, values: list[Any]) -> list[Delivery]:
    jobs.publish_batch(SCHEMA.name, [Frame(by=value, other=number) for number, value in enumerate(values)])
    with jobs.backend.open_consumer(SCHEMA.name) as consumer:
        return consumer.receive(len(values), 0.0)


def keys_of(values: list[Any]) -> list[str]:
    """Return the keys of values as a limit makes them, unremembered."""
    limit = SCHEMA.concurrency_limit
    assert limit is not None
    return [f"limits/frames/by/{limit.key_of(Frame(by=value))}" for value in values]


VALUES = [
    1,
    1.0,
    True,
    "1",
    0,
    0.0,
    -0.0,
    False,
    "",
    None,
    "a" * 160,
    "b" * 161,
    "b" * 5000,
    [1],
    {"a": 1},
    1.5,
    -1,
]


@pytest.mark.parametrize("values", [VALUES, VALUES[::-1]], ids=["forwards", "backwards"])
def test_a_key_is_the_same_whether_its_value_was_seen_or_not(jobs: Orchestrator, values: list[Any]) -> None:
    """Also where values are equal and have keys of their own, such as 1, 1.0 and True."""
    keys = Keys("limits/frames/by/", SCHEMA, Limit(4, by="by"), max_body_bytes=100_000)
    came = deliveries(jobs, values)

    assert keys.of(came) == keys.of(came) == keys_of(values)


def test_zero_has_one_key_whatever_its_sign() -> None:
    assert len({*keys_of([0.0, -0.0])}) == len({*keys_of([[0.0], [-0.0]])}) == 1


def test_only_so_many_values_are_remembered_and_no_long_ones(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    keys = Keys("limits/frames/by/", SCHEMA, Limit(4, by="by"), max_body_bytes=100_000)
    values = ["x" * 1000, *map(str, range(30)), *range(30)]
    came = deliveries(jobs, values)

    assert keys.of(came) == keys.of(came) == keys_of(values)
    assert {kind: list(known) for kind, known in keys._remembered.items()} == {
        str: [*map(str, range(10))],
        int: [*range(10)],
        float: [],
    }
