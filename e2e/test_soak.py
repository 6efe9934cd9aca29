"""The soak, for some seconds, where no server has to be started: it runs, and finds nothing."""

import os
import subprocess
import sys

import pytest

from conditions import LIMIT_S

from .virtual_environments import ROOT

# The limit is more than it waits itself, on whatever machine.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_some_seconds_of_kills_and_stops_cost_no_job() -> None:
    words = [sys.executable, "-m", "soak", "--minutes", "0.2", "sqlite"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "testing")}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=2 * LIMIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost" in done.stdout
