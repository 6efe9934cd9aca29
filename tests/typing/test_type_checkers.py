"""Both type checkers accept the right code, and refuse each line of the wrong code that says so."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import mindtrace.jobs

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"
INSTALLED = Path(mindtrace.jobs.__file__).parents[2]

Errors = dict[Path, set[int]]
"""The lines of each file in which a type checker found an error."""


def mypy(folder: Path) -> Errors:
    """mypy, as strict as it can be."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", folder / "cache", "--output", "json"]
    # Typed code is installed, so mypy must find it where it would look for any library.
    environment = os.environ | {"MYPYPATH": ""}
    result = subprocess.run(
        [*map(str, command), str(RIGHT), str(WRONG)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return errors(
        (found["file"], found["line"])
        for found in map(json.loads, result.stdout.splitlines())
        if found["severity"] == "error"
    )


def pyright(folder: Path) -> Errors:
    """Pyright, in its standard mode."""
    settings = {
        "include": [str(RIGHT), str(WRONG)],
        "typeCheckingMode": "standard",
        "extraPaths": [str(INSTALLED)],
        "pythonVersion": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    folder.joinpath("pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    command = [sys.executable, "-m", "basedpyright", "-p", str(folder), "--outputjson", "--level", "error"]
    command += ["--pythonpath", sys.executable]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    found = json.loads(result.stdout)["generalDiagnostics"]
    return errors((each["file"], each["range"]["start"]["line"] + 1) for each in found)


def errors(found: Iterable[tuple[str, int]]) -> Errors:
    lines: Errors = {RIGHT: set(), WRONG: set()}
    for file, line in found:
        lines[HERE / Path(file).name].add(line)
    return lines


@pytest.mark.parametrize("check", [mypy, pyright])
def test_right_code_is_accepted_and_each_wrong_line_refused(
    tmp_path: Path, check: Callable[[Path], Errors]
) -> None:
    wrong = {
        number for number, line in enumerate(WRONG.read_text("utf-8").splitlines(), 1) if "# wrong" in line
    }

    found = check(tmp_path)

    assert found[RIGHT] == set()
    assert found[WRONG] == wrong
