"""Virtual environments, in which tests install the wheel."""

import os
import subprocess
import sys
from pathlib import Path

from conditions import LIMIT_S

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, away from this process's import path, and return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=2 * LIMIT_S
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def make_environment(home: Path, *requirements: str | Path, base: str = sys.executable) -> Path:
    """Make a clean environment of the Python ``base`` with ``requirements`` installed; return its Python."""
    run(base, "-m", "venv", home, cwd=home)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *requirements, cwd=home)
    return python
