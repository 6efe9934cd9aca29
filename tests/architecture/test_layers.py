"""The layers hold, and an import against them is caught under its contract's name."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import grimp
import pytest

from conditions import LIMIT_S

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
PACKAGE_DIRS = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["setuptools"]["package-dir"]

INWARD = "The layers point inward"
NO_APPLICATION = "An adapter never imports the application"
NO_SIBLING = "An adapter never imports a sibling"
NO_FACADE = "No layer imports the façade"
BY_APPLICATION = "The command line reaches brokers through the application"
ONLY_CLI = "Nothing but the command line imports its libraries"
NO_LIBRARY = "The core needs no library but pydantic"
ONLY_BASE = "Only the base classes import mindtrace-core"
ONLY_SCHEDULE = "Only one module imports cronsim"
NO_FOLDER = "Nothing is imported by its folder's name"

WRONG = [
    ("domain", "mindtrace.jobs.ports", INWARD),
    ("ports", "mindtrace.jobs.application", INWARD),
    ("application", "mindtrace.jobs.adapters.local", INWARD),
    ("contract", "mindtrace.jobs.adapters.local", INWARD),
    ("adapters.local", "mindtrace.jobs.contract", INWARD),
    ("adapters.local", "mindtrace.jobs.application", NO_APPLICATION),
    ("adapters.local", "mindtrace.jobs.adapters.sibling", NO_SIBLING),
    ("domain", "mindtrace.jobs", NO_FACADE),
    ("adapters.local", "mindtrace.jobs", NO_FACADE),
    ("cli", "mindtrace.jobs", NO_FACADE),
    ("application", "mindtrace.jobs.cli", INWARD),
    ("adapters.local", "mindtrace.jobs.cli", INWARD),
    ("contract", "mindtrace.jobs.cli", INWARD),
    ("contract", "mindtrace.jobs.testing", INWARD),
    ("adapters.local", "mindtrace.jobs.testing", INWARD),
    ("application", "mindtrace.jobs.testing", INWARD),
    ("cli", "mindtrace.jobs.testing", INWARD),
    ("testing", "mindtrace.jobs.cli", INWARD),
    ("testing", "mindtrace.jobs", NO_FACADE),
    ("cli", "mindtrace.jobs.adapters.local", BY_APPLICATION),
    ("application", "click", ONLY_CLI),
    ("adapters.local", "rich", ONLY_CLI),
    ("ports", "pydantic_settings", ONLY_CLI),
    ("domain", "redis", NO_LIBRARY),
    ("application", "prometheus_client", NO_LIBRARY),
    ("application", "pika", NO_LIBRARY),
    ("application", "mindtrace.core", ONLY_BASE),
    ("application", "cronsim", ONLY_SCHEDULE),
    ("domain", "cronsim", ONLY_SCHEDULE),
    ("adapters.local", "domain", NO_FOLDER),
]
"""The importer, what it imports, and the contract that this breaks."""


def lint_imports(*, path: Path | None = None) -> str:
    """Return import-linter's report on the installed package, or on the one found first under `path`."""
    env = os.environ | {"COLUMNS": "200", "PYTHONUTF8": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    command = Path(sysconfig.get_path("scripts"), "lint-imports")
    result = subprocess.run(
        [command, "--no-cache", "--no-logo", PYPROJECT],
        cwd=path or ROOT,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )
    assert (result.returncode == 0) == (" 0 broken" in result.stdout), result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, laid out as it is installed."""
    root = tmp_path_factory.mktemp("tree")
    for package, folder in PACKAGE_DIRS.items():
        target = root.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for source in (ROOT / folder).glob("*.py"):
            shutil.copy(source, target)
    return root


@pytest.fixture(scope="module")
def report(tree: Path) -> str:
    """The report on a copy with all wrong imports, each in a module of its own: a report takes seconds."""
    spoilt = tree.with_name("spoilt")
    shutil.copytree(tree, spoilt)
    layer = spoilt / "mindtrace" / "jobs"
    layer.joinpath("adapters", "sibling.py").touch()
    for number, (importer, imported, _) in enumerate(WRONG):
        planted = layer.joinpath(*importer.split("."), f"planted_{number}.py")
        planted.write_text(f"import {imported}\n", "utf-8")
    return lint_imports(path=spoilt)


def test_every_contract_is_kept() -> None:
    assert " 0 broken" in lint_imports()


def test_the_copy_that_the_next_tests_spoil_is_clean(tree: Path) -> None:
    assert " 0 broken" in lint_imports(path=tree)


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda n: f"{WRONG[n][0]}-{WRONG[n][1]}")
def test_a_wrong_import_is_caught(report: str, number: int) -> None:
    importer, imported, contract = WRONG[number]
    _, *sections = re.split(r"^(.+)\n-+\n", report, flags=re.MULTILINE)
    broken = dict(zip(sections[::2], sections[1::2], strict=True))

    assert f"{contract} BROKEN" in report
    assert f"mindtrace.jobs.{importer}.planted_{number} -> {imported} (l.1)" in broken[contract]


@pytest.mark.parametrize("layer", ["domain", "ports", "application"])
def test_the_core_imports_only_the_standard_library_and_pydantic(layer: str) -> None:
    """And the domain what reads cron expressions, in one module (ADR 67)."""
    graph = grimp.build_graph("mindtrace.jobs", include_external_packages=True, cache_dir=None)

    imported = graph.find_modules_directly_imported_by(f"mindtrace.jobs.{layer}", as_package=True)
    outside = {name for name in imported if not name.startswith("mindtrace.")}

    allowed = {"pydantic", "pydantic_core", "typing_extensions"}
    allowed |= {"cronsim"} if layer == "domain" else set()
    assert outside - sys.stdlib_module_names <= allowed
