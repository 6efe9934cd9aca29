"""The fuzz, for a moment: strangers' messages stop no consumer."""

from pathlib import Path

import pytest

from fuzz.__main__ import fuzz


@pytest.mark.parametrize("backend", ["memory", "sqlite", "redis", "rabbitmq", "postgresql"])
def test_each_mutated_envelope_is_run_or_becomes_a_dead_letter(backend: str, tmp_path: Path) -> None:
    assert fuzz(backend, tmp_path, jobs=1000, seed=7) == []
