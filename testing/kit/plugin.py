"""The pytest plugin: one fixture, ``jobs``, and no option."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .job_kit import JobKit


@pytest.fixture
def jobs() -> "Iterator[JobKit]":
    """Queues in memory of mindtrace-jobs, empty for each test, on a clock that only the test moves."""
    from .job_kit import JobKit  # here: every pytest of a program that has this installed loads the plugin

    with JobKit() as kit:
        yield kit
