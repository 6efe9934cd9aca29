"""The backend that is used if none is named: for programs the same as for the command."""

import logging
import re
from pathlib import Path

import pytest

from mindtrace.jobs import JobInput, JobSchema, LocalClient, Orchestrator, SQLiteClient
from mindtrace.jobs.application.broker.default_backend import DEFAULT_URL, SETTINGS
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.settings import Settings, load_settings
from mindtrace.jobs.errors import Closed, InvalidInput


class Image(JobInput):
    path: str = ""


SCHEMA = JobSchema("inspect", Image)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINDTRACE_JOBS_BACKEND", raising=False)


def test_by_default_the_queues_are_a_file_of_the_working_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another orchestrator there finds the job; the log says which file it is."""
    with caplog.at_level(logging.INFO), Orchestrator() as jobs:
        jobs.register(SCHEMA)
        jobs.publish("inspect", {})
    with Orchestrator() as again:
        assert isinstance(again.backend, SQLiteClient)
        assert again.counts("inspect").ready == 1
    assert tmp_path.joinpath("mindtrace-jobs.db").is_file()
    assert f"using sqlite:///mindtrace-jobs.db in {tmp_path}" in caplog.text


def test_it_is_closed_with_its_orchestrator() -> None:
    """Nobody else has it."""
    with Orchestrator() as jobs:
        pass
    with pytest.raises(Closed):
        jobs.register(SCHEMA)


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        (None, None),
        ("", None),
        ("memory://a", None),
        (None, "memory://b"),
        ("memory://a", "memory://b"),
        ("", "memory://b"),
    ],
)
def test_it_is_the_one_of_the_command(
    variable: str | None, file: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever names it: the variable before the file; and no log shows a URL, which may hold a password."""
    if variable is not None:
        monkeypatch.setenv("MINDTRACE_JOBS_BACKEND", variable)
    if file is not None:
        Path("pyproject.toml").write_text(f'[tool.mindtrace-jobs]\nbackend = "{file}"\n', "utf-8")
    url = load_settings().backend.get_secret_value()

    with caplog.at_level(logging.INFO), Orchestrator() as jobs:
        if url.startswith("memory"):
            assert isinstance(jobs.backend, LocalClient)
            with Orchestrator(url) as same:
                same.register(SCHEMA)
                assert [queue.name for queue in jobs.queues()] == ["inspect"]
            assert "memory://" not in caplog.text
        else:
            assert isinstance(jobs.backend, SQLiteClient)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tool", "name the backend: Orchestrator"),
        ("tool = 1", "name the backend: Orchestrator"),
        ("[tool.mindtrace-jobs]\nbackend = 1", "must be a text, a URL"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(text: str, problem: str) -> None:
    Path("pyproject.toml").write_text(text, "utf-8")

    with pytest.raises(InvalidInput, match=f"^pyproject.toml: .*{problem}"):
        Orchestrator()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('[tool.mindtrace-jobs]\nbakend = "memory://"', "unknown setting 'bakend'; did you mean 'backend'?"),
        ('[tool.mindtrace-jobs]\nurl = "memory://"', "unknown setting 'url'; did you mean 'backend'?"),
        ("[tool.mindtrace-jobs]\nprocesess = 2", "did you mean 'processes'?"),
        ("[tool.mindtrace-jobs]\ncolour = 2", "the settings are backend, consumers, "),
        ('[tool.mindtrace_jobs]\nbackend = "memory://"', "did you mean [tool.mindtrace-jobs]?"),
        ('[tool.mindtrace-job]\nbackend = "memory://"', "did you mean [tool.mindtrace-jobs]?"),
        ('[mindtrace-jobs]\nbackend = "memory://"', "[mindtrace-jobs] isn't read; did you mean [tool."),
    ],
)
def test_a_misspelt_name_in_the_file_is_no_other_backend(text: str, remedy: str) -> None:
    """For a program and for the command."""
    Path("pyproject.toml").write_text(text, "utf-8")

    for read in (Orchestrator, load_settings):
        with pytest.raises((InvalidInput, BadUsage), match=f"^pyproject.toml: .*{re.escape(remedy)}"):
            read()


@pytest.mark.parametrize(
    "name",
    [
        "MINDTRACE_JOBS_BACKED",
        "MINDTRACE_JOBS_URL",
        "MINDTRACE_JOB_BACKEND",
        "MINDTRACEJOBS_BACKEND",
        "mindtrace_jobs_backend",
    ],
)
def test_a_misspelt_variable_is_no_other_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "redis://:swordfish@host")

    for read in (Orchestrator, load_settings):
        with pytest.raises((InvalidInput, BadUsage)) as raised:
            read()
        assert f"the variable {name} isn't read; did you mean MINDTRACE_JOBS_BACKEND?" in str(raised.value)
        assert "swordfish" not in str(raised.value)


def test_a_misspelt_variable_of_the_command_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINDTRACE_JOBS_CONCURENCY", "8")

    with pytest.raises(BadUsage, match="did you mean MINDTRACE_JOBS_CONCURRENCY"):
        load_settings()
    Orchestrator().close()


@pytest.mark.parametrize(
    "name",
    [
        "MINDTRACE_JOBS_PROCESS_NUMBER",
        "MINDTRACE_JOBS_PORT",
        "MINDTRACE_JOBS_SERVICE_HOST",
        "MINDTRACE_JOBS_METRICS_SERVICE_HOST",
        "MINDTRACE_JOBS_METRICS_SERVICE_PORT_HTTP",
        "MINDTRACE_JOBS_METRICS_PORT_9105_TCP_ADDR",
        "MINDTRACE_JOBS_CONSUMERS_PORT",
        "MINDTRACE_JOBS_MINE",
    ],
)
def test_a_variable_that_resembles_no_setting_is_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As are those that Kubernetes makes of a service with this name."""
    monkeypatch.setenv(name, "tcp://10.0.0.7:6379")

    assert load_settings().backend.get_secret_value() == DEFAULT_URL
    Orchestrator().close()


def test_a_program_knows_the_settings_of_the_command() -> None:
    assert tuple(Settings.model_fields) == SETTINGS


def test_another_project_of_the_folder_changes_nothing() -> None:
    Path("pyproject.toml").write_text('[project]\nname = "mine"\n', "utf-8")

    with Orchestrator() as jobs:
        assert isinstance(jobs.backend, SQLiteClient)
