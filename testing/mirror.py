"""Writes what blocks from what is awaited: the same text without ``async``, ``await`` and ``Async``.

``make format`` calls this. ``tests/architecture/test_mirror.py`` compares the files.
"""

import re
import subprocess
import sys
from pathlib import Path

from conditions import LIMIT_S

ROOT = Path(__file__).parents[1]
MIRRORED = {"application/api_async/async_job_queue.py": "application/api/job_queue.py"}
"""The files that are written by hand, and those that are written from them."""

_SUBSTITUTIONS = (
    (r" from coroutines| and event loops", ""),
    (r"\basync (?=def|for|with)", ""),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\basync_(?=[a-z])", ""),
    (r"``api/(\w+\.py)`` is written from this file, by", r"Generated from ``api_async/async_\1`` by"),
    (r"from \.\.api\.", "from ."),
)
_RUFF = (
    ("check", "--quiet", "--select", "I", "--fix"),
    ("format", "--quiet"),
)


def mirror(source: str) -> str:
    """Return the text that is written from the text of ``source``, a path from the root."""
    text = ROOT.joinpath(source).read_text("utf-8")
    for pattern, replacement in _SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    for command in _RUFF:
        run = [sys.executable, "-m", "ruff", *command, "--stdin-filename", MIRRORED[source], "-"]
        done = subprocess.run(
            run, input=text, cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT_S
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    for source, written in MIRRORED.items():
        ROOT.joinpath(written).write_text(mirror(source), "utf-8")
