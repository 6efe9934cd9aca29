"""A file with one queue in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace.jobs import Queue, SQLiteClient


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, or will be."""
    return tmp_path / "jobs.db"


@pytest.fixture
def client(path: Path) -> Iterator[SQLiteClient]:
    """A client with the queue ``points`` declared."""
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        yield client
