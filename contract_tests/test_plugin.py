"""The pytest plugin of the suite."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conditions import LIMIT_S
from mindtrace.jobs.contract.plugin import _long_first


@dataclass(frozen=True, slots=True)
class Item:
    """A test, as far as the order depends on it."""

    name: str

    def get_closest_marker(self, name: str) -> str | None:
        return name if self.name.startswith("long") else None


def in_order(names: str, workers: int) -> list[str]:
    items = [Item(name) for name in names.split()]
    return [item.name for item in _long_first(items, workers)]  # type: ignore[arg-type,attr-defined]


NAMES = "a long-1 b c d long-2 e f g long-3"


@pytest.mark.parametrize(
    ("names", "workers", "ordered"),
    [
        (NAMES, 1, NAMES),
        ("a b c", 2, "a b c"),
        (NAMES, 2, "long-1 long-3 a b c  long-2 d e f g"),
        (NAMES, 3, "long-1 a b  long-2 c d  long-3 e f g"),
        (NAMES, 4, "long-1 a  long-2 b  long-3 c d  e f g"),
        ("long-1 long-2 long-3 a", 2, "long-1 long-3  long-2 a"),
        ("long-1 long-2 long-3 a", 8, "long-1 long-2 long-3 a"),
    ],
)
def test_each_worker_begins_with_tests_that_take_long(names: str, workers: int, ordered: str) -> None:
    """A worker of pytest-xdist gets as many tests that stand together as are in each part here."""
    assert in_order(names, workers) == ordered.split()


TESTS = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(20))
def test_left_out(number): ...

@pytest.mark.parametrize("number", range(20))
def test_others(number): run()

@pytest.mark.begins_first
@pytest.mark.parametrize("number", range(2))
def test_long(number): run()

def run():
    with Path(os.environ["PYTEST_XDIST_WORKER"]).open("a") as file:
        print(os.environ["PYTEST_CURRENT_TEST"], file=file)
"""


def test_each_worker_begins_with_tests_that_take_long_where_others_are_left_out(tmp_path: Path) -> None:
    tmp_path.joinpath("test_some.py").write_text(TESTS, "utf-8")
    options = ("--numprocesses", "2", "--dist", "worksteal", "-k", "not left_out")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
    )
    assert "22 passed" in done.stdout, done.stdout + done.stderr

    firsts = [tmp_path.joinpath(worker).read_text("utf-8").splitlines()[0] for worker in ("gw0", "gw1")]
    assert sorted(firsts) == [f"test_some.py::test_long[{number}] (call)" for number in range(2)]
