"""The fault matrix: its rows, the backends on which each is tried, and why it isn't on the others."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pytest

BACKENDS = ("Local", "SQLite", "Redis", "RabbitMQ", "PostgreSQL")

NO_PROCESSES = {"Local": "its workers are threads: what kills them takes the queues along"}
NO_SERVER = dict.fromkeys(("Local", "SQLite"), "there is no server, and no network")
ONLY_REDIS = dict.fromkeys(("Local", "SQLite", "RabbitMQ", "PostgreSQL"), "it is Redis's own")
ONLY_BORROWED = dict.fromkeys(
    ("Local", "SQLite", "Redis", "PostgreSQL"), "its coordination store is the broker itself"
)
NO_CANCEL = {"RabbitMQ": "it can't take a message out of a queue by its id"}
NO_LIMIT = {"Local": "its room is the memory of its process"}
ONE_CLOCK = {"Local": "its clock is that of its only process"}


class Row(NamedTuple):
    """One row: a fault."""

    fault: str
    clauses: tuple[str, ...]
    """The clauses of the contract that must hold."""
    not_on: dict[str, str]
    """The backends on which it can't happen, and why."""


TestT = TypeVar("TestT", bound=Callable[..., Any])


def row(fault: str, *clauses: str, not_on: dict[str, str] | None = None) -> Callable[[TestT], TestT]:
    """Make a test a row of the matrix: it runs on every backend but those where the fault can't happen."""
    declared = Row(fault, clauses, not_on or {})

    def mark(test: TestT) -> TestT:
        test.row = declared  # type: ignore[attr-defined]
        backends = [backend for backend in BACKENDS if backend not in declared.not_on]
        # Brokers are started and restarted, which takes seconds each time on a busy machine.
        limited = pytest.mark.timeout(900)(pytest.mark.parametrize("target", backends, indirect=True)(test))
        return pytest.mark.long(limited)

    return mark
