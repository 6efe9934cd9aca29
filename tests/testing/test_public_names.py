"""What the kit offers, and what it needs."""

import subprocess
import sys

import pytest

import mindtrace.jobs.testing
from conditions import LIMIT_S


def test_the_public_names_are_there() -> None:
    names = mindtrace.jobs.testing.__all__
    assert names == ["HistoryEvent", "JobKit", "assert_readable", "run_job", "save_snapshot"]
    for name in names:
        assert callable(getattr(mindtrace.jobs.testing, name))
        assert callable(getattr(mindtrace.jobs.testing, name)), "a module of this name hides it"
    with pytest.raises(AttributeError, match="has no attribute 'fuzzy'"):
        _ = mindtrace.jobs.testing.fuzzy


def test_it_needs_no_extra() -> None:
    """It loads none of their libraries: no pytest either, as a test of unittest uses it, too."""
    libraries = "{'pytest', 'hypothesis', 'redis', 'pika', 'psycopg'}"
    program = f"import sys, mindtrace.jobs.testing; print({libraries} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout == "set()\n", done.stderr


def test_the_plugin_loads_no_kit_before_a_test_asks_for_it() -> None:
    program = "import sys, mindtrace.jobs.testing.plugin; print('mindtrace.jobs.application' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout == "False\n", done.stderr
