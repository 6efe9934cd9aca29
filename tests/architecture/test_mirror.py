"""The files that a script writes are what it writes."""

from pathlib import Path

import mirror
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("source", mirror.MIRRORED)
def test_a_mirrored_file_is_what_the_script_writes(source: str) -> None:
    """Change the file with ``async``, and call ``make format``."""
    assert ROOT.joinpath(mirror.MIRRORED[source]).read_text("utf-8") == mirror.mirror(source)
