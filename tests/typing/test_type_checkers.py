"""Type checkers accept right code, the examples and the snippets of the documentation, and refuse wrong code.

The examples are checked as strictly as it goes. Snippets may leave out annotations, as many users do, and a
page may define a name again. Each page is one module, with its lines where the page has them; a file that a
page shows is another. Each type checker runs once, over all.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import mindtrace.jobs
from conditions import LIMIT_S

from ..docs.blocks import PAGES, ROOT, blocks_of

RIGHT, STAR, WRONG = (Path(__file__).with_name(name) for name in ("right.py", "star.py", "wrong.py"))
EXAMPLES = ROOT / "examples"
ADAPTERS = sorted(EXAMPLES.glob("*_adapter/src"))
INSTALLED = Path(mindtrace.jobs.__file__).parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

MYPY = f"""
[mypy]
strict = true
python_version = {PYTHON}
mypy_path = {":".join(map(str, ADAPTERS))}

[mypy-uvicorn.*]
ignore_missing_imports = true

[mypy-pages.*,tasks]
allow_untyped_defs = true
allow_incomplete_defs = true
allow_untyped_calls = true
allow_redefinition = true
warn_return_any = false
disable_error_code = no-redef
"""


class Error(NamedTuple):
    """What a type checker found, and where."""

    file: str
    line: int
    what: str


def write_pages(folder: Path) -> list[Path]:
    """Write what type checkers are to read of the documentation."""
    folder = folder / "pages"
    folder.mkdir()
    folder.joinpath("__init__.py").touch()
    written = []
    for page in PAGES:
        name = page.stem.lower()
        blocks = [block for block in blocks_of(page) if block.kind in ("python", "file")]
        modules = [Path(block.text.split("\n", 1)[0]) for block in blocks if block.kind == "file"]
        imported = "|".join(module.stem for module in modules if module.suffix == ".py")

        def write(path: Path, text: str, name: str = name, imported: str = imported) -> None:
            if imported:  # pages that show a file of the same name mean another
                text = re.sub(
                    rf"^( *(?:from|import) )({imported})\b", rf"\1pages.{name}_\2", text, flags=re.M
                )
            path.write_text(text, "utf-8")
            written.append(path)

        lines: list[str] = []
        for block in blocks:
            if block.kind == "file":
                file, text = block.text.split("\n", 1)
                if file.endswith(".py"):
                    write(folder / f"{name}_{Path(file).stem}.py", text)
                continue
            lines += [""] * (block.line - 1 - len(lines)) + textwrap.dedent(block.text).splitlines()
        if lines:
            write(folder / f"{name}.py", "\n".join(lines) + "\n")
    return written


def examples() -> list[Path]:
    return [path for path in sorted(EXAMPLES.rglob("*.py")) if "build" not in path.parts]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MYPYPATH": "", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
    )


def files(folder: Path) -> list[Path]:
    """All that type checkers read."""
    return [*write_pages(folder), *examples(), RIGHT, STAR, WRONG]


def mypy(folder: Path) -> list[Error]:
    folder.joinpath("mypy.ini").write_text(MYPY, "utf-8")
    found = run(
        "mypy",
        "--config-file",
        "mypy.ini",
        "--cache-dir",
        folder / "cache",
        "--output",
        "json",
        *files(folder),
        cwd=folder,
    )
    assert found.returncode == 1, found.stdout + found.stderr  # because of the wrong code
    problems = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    return [
        Error(Path(problem["file"]).name, problem["line"], f"{problem['message']} [{problem['code']}]")
        for problem in problems
        if problem["severity"] == "error"
    ]


def pyright(folder: Path) -> list[Error]:
    """Pyright, in its standard mode."""
    settings = {
        "include": [str(path) for path in files(folder)],
        "typeCheckingMode": "standard",
        "extraPaths": [str(INSTALLED), *map(str, ADAPTERS)],
        "pythonVersion": PYTHON,
        "reportRedeclaration": False,
        "reportDeprecated": "error",
    }
    folder.joinpath("pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    found = run(
        "basedpyright",
        "-p",
        folder,
        "--outputjson",
        "--level",
        "error",
        "--pythonpath",
        sys.executable,
        cwd=folder,
    )
    assert found.returncode == 1, found.stdout + found.stderr
    return [
        Error(
            Path(problem["file"]).name,
            problem["range"]["start"]["line"] + 1,
            f"{problem['message']} [{problem.get('rule')}]",
        )
        for problem in json.loads(found.stdout)["generalDiagnostics"]
        if problem["severity"] == "error"
    ]


@pytest.mark.begins_first
@pytest.mark.parametrize("check", [mypy, pyright])
def test_wrong_lines_are_refused_and_right_code_the_examples_and_the_snippets_are_accepted(
    check: Callable[[Path], list[Error]], tmp_path: Path
) -> None:
    """Both in one test, as two processes of pytest-xdist would each run the type checker."""
    errors = check(tmp_path)
    lines = enumerate(WRONG.read_text("utf-8").splitlines(), 1)
    wrong = {number for number, line in lines if "# wrong" in line}

    unexpected = [error for error in errors if error.file != WRONG.name]
    refused = {error.line for error in errors if error.file == WRONG.name}
    assert (unexpected, refused) == ([], wrong)
