"""The file that says when all was well."""

import os
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs.application.worker.health import HealthFile


def test_a_file_that_is_written_again_never_says_that_all_is_well_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who looks at that moment takes a worker that hangs for one that works."""
    file = HealthFile(tmp_path / "health")
    file.write(1000.0)
    set_times, seen = os.utime, list[float | None]()

    def watched(*arguments: Any, **options: Any) -> None:
        seen.append(file.read())
        set_times(*arguments, **options)
        seen.append(file.read())

    monkeypatch.setattr(os, "utime", watched)
    file.write(2000.0)

    assert seen == [1000.0, 2000.0]
