"""What ships: the wheel, built by way of the sdist and installed where this tree is out of reach."""

import json
import subprocess
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from .virtual_environments import ROOT, make_environment, run

pytestmark = pytest.mark.timeout(1800)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# Where each folder's files belong in the wheel, subfolders and all, so that a package which pyproject.toml
# forgets to list is missed.
SHIPPED = {
    "src/mindtrace/jobs": "mindtrace/jobs",
    "domain": "mindtrace/jobs/domain",
    "ports": "mindtrace/jobs/ports",
    "application": "mindtrace/jobs/application",
    "adapters": "mindtrace/jobs/adapters",
    "cli": "mindtrace/jobs/cli",
    "contract_tests/suite": "mindtrace/jobs/contract",
}

REPORT = """
import json, sys
from importlib.metadata import entry_points, version

import mindtrace.jobs

(memory,) = entry_points(group="mindtrace.jobs.adapters", name="memory")
memory.load()
print(json.dumps({
    "file": mindtrace.jobs.__file__,
    "version": version("mindtrace-jobs"),
    "optional": sorted(
        {"redis", "pika", "hypothesis", "pytest", "click", "rich", "pydantic_settings"} & sys.modules.keys()
    ),
}))
"""


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment with the wheel in it, and none of its extras."""
    home = tmp_path_factory.mktemp("clean")
    return make_environment(home, wheel)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in SHIPPED.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed"
    }
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}

    assert names - metadata == expected
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_the_wheel_works_alone_and_imports_no_optional_library(installed: Path, tmp_path: Path) -> None:
    report = json.loads(run(installed, "-I", "-c", REPORT, cwd=tmp_path))

    assert Path(report["file"]).is_relative_to(installed.parents[1])
    assert report["version"] == PYPROJECT["project"]["version"]
    assert report["optional"] == []


def test_the_command_comes_with_it_and_says_what_a_backend_lacks(installed: Path, tmp_path: Path) -> None:
    """Nothing else was installed: the message is the command that mends it."""
    command = installed.with_name("mindtrace-jobs")
    answer = subprocess.run(
        [command, "queues", "--backend", "redis://:swordfish@localhost"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )

    assert run(command, "--version", cwd=tmp_path).endswith(f"version {PYPROJECT['project']['version']}\n")
    assert answer.returncode == 5
    assert answer.stderr == "error: redis:// needs redis: pip install 'mindtrace-jobs[redis]'\n"
