"""What ships: the wheel, built by way of the sdist and installed where this tree is out of reach."""

import json
import subprocess
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.version import Version

from conditions import LIMIT_S

from .virtual_environments import ROOT, make_environment, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

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
    "testing/kit": "mindtrace/jobs/testing",
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
        if path.suffix in {".py", ".lua", ".sql"} or path.name == "py.typed"
    }
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}

    assert names - metadata == expected
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)
    # Nothing that mindtrace-core or its kin install too, such as an __init__.py of the namespace.
    assert all(name.startswith("mindtrace/jobs/") for name in names - metadata)
    assert "mindtrace/jobs/py.typed" in names


def test_the_metadata_says_what_it_is_and_what_it_needs(wheel: Path) -> None:
    """A release that no installer takes for one of the old code, unless it is asked for."""
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        said = Parser().parsestr(archive.read(name).decode())
    project = PYPROJECT["project"]

    assert (said["Name"], said["Version"]) == ("mindtrace-jobs", project["version"])
    assert Version(said["Version"]).is_prerelease
    assert Version(said["Version"]) > Version("0.16.0")
    assert said["Requires-Python"] == ">=3.11"
    classifiers = said.get_all("Classifier") or []
    assert sorted(classifiers) == sorted(project["classifiers"])
    assert {"Programming Language :: Python :: 3.11", "Typing :: Typed"} <= set(classifiers)
    assert set(said.get_all("Provides-Extra") or []) == set(project["optional-dependencies"])


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
        timeout=LIMIT_S,
    )

    assert run(command, "--version", cwd=tmp_path).endswith(f"version {PYPROJECT['project']['version']}\n")
    assert answer.returncode == 5
    wanted = f"mindtrace-jobs[redis]>={PYPROJECT['project']['version']}"
    assert answer.stderr == f"error: redis:// needs redis: pip install '{wanted}'\n"
