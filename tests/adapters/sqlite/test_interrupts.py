"""Ctrl-C at any line of a transaction: the file isn't left locked for others."""

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

from interrupts import interrupt_at
from mindtrace.jobs import Queue, SQLiteClient
from mindtrace.jobs.ports import Message


def test_a_call_that_was_interrupted_anywhere_leaves_the_file_to_others(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with (
        SQLiteClient(path) as client,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
    ):
        client.declare(Queue("points"))
        for point in itertools.count(1):
            was_interrupted = interrupt_at(
                point,
                "sqlite/session.py",
                lambda: client.publish("points", [Message(f"job-{point}", b"{}")]),  # noqa: B023
            )
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            if not was_interrupted:
                return
