"""Snapshots of jobs, by which a test sees that a new schema reads what an old one wrote."""

from pathlib import Path

import pytest

from mindtrace.jobs import InvalidPayload, JobInput, JobSchema
from mindtrace.jobs.testing import assert_readable, save_snapshot


class Image(JobInput):
    path: str


class WithThreshold(JobInput):
    path: str
    threshold: float = 0.5


class Renamed(JobInput):
    file: str


INSPECT = JobSchema("inspect", Image)


def test_a_snapshot_is_read_by_a_schema_that_grew(tmp_path: Path) -> None:
    path = save_snapshot(INSPECT, Image(path="a.png"), tmp_path / "jobs")
    assert path.name == "inspect-1.json"

    [job] = assert_readable(JobSchema("inspect", WithThreshold), tmp_path / "jobs")
    assert job.payload == WithThreshold(path="a.png")


def test_a_snapshot_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save_snapshot(INSPECT, {"path": "a.png"}, tmp_path)
    with pytest.raises(AssertionError, match=r"can't be read any more:\n  inspect-1\.json: payload: .*file"):
        assert_readable(JobSchema("inspect", Renamed), tmp_path)


def test_a_folder_without_snapshots_is_no_proof(tmp_path: Path) -> None:
    save_snapshot(JobSchema("inspect-again", Image), Image(path="a"), tmp_path)
    with pytest.raises(AssertionError, match=r"has no snapshot of inspect: write one with save_snapshot"):
        assert_readable(INSPECT, tmp_path)


def test_the_same_job_is_written_once_and_another_beside_it(tmp_path: Path) -> None:
    first = save_snapshot(INSPECT, Image(path="a.png"), tmp_path)
    before = first.read_bytes()
    assert save_snapshot(INSPECT, Image(path="a.png"), tmp_path) == first
    assert save_snapshot(INSPECT, Image(path="b.png"), tmp_path).name == "inspect-2.json"
    assert first.read_bytes() == before
    assert len(assert_readable(INSPECT, tmp_path)) == 2


def test_a_payload_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload):
        save_snapshot(INSPECT, {"path": 1}, tmp_path)
    assert list(tmp_path.iterdir()) == []
