"""A soak excuses a job from running once where a fault may have hit it, and nowhere else."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from job_audit import Execution
from soak import environment
from soak.environment import PREFETCH, is_write_locked
from soak.faults import Fault

RUNS = [Execution(pid, f"{pid}-{number}") for number in range(100) for pid in (1, 2)]


def test_a_fault_excuses_only_what_its_victim_began_about_then() -> None:
    hit = Fault("kill", frozenset({1}), after=100).in_flight(RUNS)
    assert {"1-49", "1-50"} <= hit
    assert not {"1-20", "1-80", "2-49", "2-50"} & hit
    assert len(hit) == 3 * PREFETCH


def test_a_fault_without_victims_excuses_nothing() -> None:
    assert not Fault("terminate", frozenset(), after=100).in_flight(RUNS)


def test_a_kill_excuses_all_that_could_not_be_settled() -> None:
    """As the server refused it, or was away."""
    hit = Fault("kill", frozenset({1}), after=100, since=20).in_flight(RUNS)
    assert {f"1-{number}" for number in range(10, 50)} <= hit
    assert not {"1-9", "2-20"} & hit


def test_a_file_is_locked_while_a_transaction_on_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_LOCKED_S", 0.0)
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        assert not is_write_locked(tmp_path / "jobs.db")
        db.execute("BEGIN IMMEDIATE")
        assert is_write_locked(tmp_path / "jobs.db")
        db.execute("ROLLBACK")
        assert not is_write_locked(tmp_path / "jobs.db")
