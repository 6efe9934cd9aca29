"""Where settings come from, and that none that is secret is ever shown."""

import json
import logging
import sys
from pathlib import Path

import pytest

from mindtrace.jobs.application.broker.default_backend import DEFAULT_URL
from mindtrace.jobs.application.observing.job_logging import JobContextFilter
from mindtrace.jobs.cli import memory_limit
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.logs import JsonFormatter, TextFormatter
from mindtrace.jobs.cli.memory_limit import MemoryLimit
from mindtrace.jobs.cli.settings import load_settings, masked, masked_with_stores


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINDTRACE_JOBS_BACKEND", raising=False)


def write(text: str) -> None:
    Path("pyproject.toml").write_text(text, "utf-8")


def test_by_default_the_queues_are_a_file_of_the_working_folder() -> None:
    assert load_settings().backend.get_secret_value() == DEFAULT_URL == "sqlite:///mindtrace-jobs.db"


def test_options_go_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write('[tool.mindtrace-jobs]\nprocesses = 2\nconcurrency = 2\ngrace_s = 2\nconsumers = ["tasks:A"]\n')
    monkeypatch.setenv("MINDTRACE_JOBS_CONCURRENCY", "3")
    monkeypatch.setenv("MINDTRACE_JOBS_GRACE_S", "3")
    settings = load_settings(grace_s=4, lease_s=None)

    assert (settings.processes, settings.concurrency, settings.grace_s, settings.lease_s) == (2, 3, 4, 30)
    assert settings.consumers == ("tasks:A",)


def test_consumers_of_the_environment_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDTRACE_JOBS_CONSUMERS", "tasks:A, tasks:B")
    assert load_settings().consumers == ("tasks:A", "tasks:B")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.mindtrace-jobs]\nprocesess = 2\n", "unknown setting .procesess.; did you mean .processes.?"),
        ("[tool.mindtrace-jobs]\nprocesses = 0\n", "processes: Input should be greater than or equal to 1"),
        ("[tool.mindtrace-jobs\n", "pyproject.toml: "),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(text: str, message: str) -> None:
    write(text)
    with pytest.raises(BadUsage, match=message):
        load_settings()


def test_the_range_of_processes_comes_from_wherever_settings_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings(processes=3).most_processes == 3
    write('[tool.mindtrace-jobs]\nautoscale = "1:2"\n')
    assert load_settings().autoscale == (1, 2)
    monkeypatch.setenv("MINDTRACE_JOBS_AUTOSCALE", "1:4")
    assert load_settings().most_processes == 4
    assert load_settings(autoscale="2:8").autoscale == (2, 8)


@pytest.mark.parametrize(
    ("text", "processes", "each"),
    [
        ("512K", 1, 512 << 10),
        ("1.5M", 4, 1536 << 10),
        ("2g", 4, 2 << 30),
        ("80%", 1, (10 << 30) * 8 // 10),
        ("80%", 4, (10 << 30) * 2 // 10),
    ],
)
def test_a_share_of_the_memory_is_that_of_all_processes_together(
    monkeypatch: pytest.MonkeyPatch, text: str, processes: int, each: int
) -> None:
    monkeypatch.setattr(memory_limit, "available_bytes", lambda: 10 << 30)
    assert MemoryLimit.parse(text).bytes_of_each(processes) == each
    assert load_settings(max_memory=text).max_memory == text


def test_a_setting_that_makes_no_sense_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[tool.mindtrace-jobs]\nbackend = ["redis://:swordfish@host"]\n')
    with pytest.raises(BadUsage) as raised:
        load_settings()
    assert "swordfish" not in str(raised.value)
    assert "swordfish" not in repr(load_settings(backend="redis://:swordfish@host"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:swordfish@host/0", "redis://***@host/0"),
        ("redis://user:sw@rd/fish@host/0", "redis://***@host/0"),
        ("redis://host/0?password=swordfish", "redis://host/0"),
        ("redis+sentinel://u:swordfish@a:1,b:2/m/0", "redis+sentinel://***@a:1,b:2/m/0"),
        ("redis://user:sw@rd/fi?sh@host/0", "redis://***"),
        ("redis://user:sword#fish@host/0", "redis://***"),
        ("redis://host/0?password=sword@fish", "redis://***"),
        ("redis://user:swordfish", "redis://***"),
        ("redis://:swordfish", "redis://***"),
        ("redis://user:swordfish%40host/0", "redis://***"),
        ("redis://user%3Aswordfish%40host/0", "redis://***"),
        ("redis://host/user:swordfish", "redis://***"),
        ("redis://host/user%3aswordfish", "redis://***"),
        ("redis://user:sword%2Ffish@[::1]:6379/0#swordfish", "redis://***@[::1]:6379/0"),
        ("redis:/user:swordfish@host", "the backend"),
        ("redis://host/0?password=swordfish&namespace=tests", "redis://host/0?namespace=tests"),
        ("postgres://u:swordfish@h/app?schema=jobs&sslmode=require", "postgres://***@h/app?schema=jobs"),
        ("redis://host/0?namespace=sword%20fish", "redis://host/0"),
        ("redis://host/0?nonamespace=swordfish", "redis://host/0"),
        ("amqp://u:swordfish@h/%2F?results=redis://u:swordfish@h/0", "amqp://***@h/%2F"),
        ("amqp://u:swordfish@h/v?results=redis%3A%2F%2Fu%3Aswordfish%40h", "amqp://***@h/v"),
        ("amqp://u:swordfish@h/v?results=redis://u:sword&fish@h/0", "amqp://***"),
        ("amqp://u:swordfish@h/v?store=redis://u:swordfish@h/0&namespace=n", "amqp://***@h/v?namespace=n"),
        ("amqp://u:swordfish@h/v?store=redis://u:sword&fish@h/0", "amqp://***"),
        ("sqlite:///jobs.db", "sqlite:///HERE/jobs.db"),
        ("sqlite:///a/../jobs.db?namespace=n", "sqlite:///HERE/jobs.db?namespace=n"),
        ("amqp://h?results=sqlite:///r.db", "amqp://h"),
        ("sqlite:////var/my jobs/a[1].db?password=swordfish", "sqlite:////var/my jobs/a[1].db"),
        ("memory://", "memory://"),
        ("swordfish", "the backend"),
        ("sword fish://x", "the backend"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert masked(url) == shown.replace("HERE", str(Path.cwd()))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0?namespace=a", "redis://h/0?namespace=a"),
        ("amqp://u:swordfish@h?store=redis://:swordfish@r/1", "amqp://***@h, store: redis://***@r/1"),
        (
            "amqp://h?results=redis%3A%2F%2Fr%3Fnamespace%3Da&store=postgresql://u:swordfish@p/d",
            "amqp://h, store: postgresql://***@p/d, results: redis://r?namespace=a",
        ),
        ("amqp://u:sword?store=redis://fish&swordfish@h", "amqp://***"),
    ],
)
def test_the_stores_of_a_url_are_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert masked_with_stores(url) == shown


def test_a_record_is_one_line_whatever_the_text_of_its_job() -> None:
    """A traceback follows, and no line of it begins as a record does."""
    try:
        raise ValueError("bad\n12:00:00 1 INFO    job forged\n\x1b]0;owned\x07")
    except ValueError:
        record = logging.LogRecord("a", logging.INFO, "f", 1, "%s", ("a\nb\x1b[31m",), sys.exc_info())
    first, *more = TextFormatter().format(record).split("\n")

    assert first.endswith(r"INFO    a\nb\x1b[31m")
    assert all(line.startswith("    ") for line in more)
    assert more[-2:] == ["    12:00:00 1 INFO    job forged", r"    \x1b]0;owned\x07"]


def test_a_structured_line_is_one_object() -> None:
    """With the fields of the job, and a traceback in one string."""
    record = logging.LogRecord("a", logging.INFO, "f", 1, "job %s\nended", ("1",), None)
    record.job = {"id": "1", "queue": "inspect"}
    line = JsonFormatter().format(record)

    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["message"], told["job"]["queue"]) == ("info", "job 1\nended", "inspect")


def test_a_structured_line_has_what_its_program_adds() -> None:
    record = logging.getLogger("a").makeRecord(
        "a", 20, "f", 1, "paid", (), None, extra={"order": 7, "by": Path("a")}
    )
    JobContextFilter().filter(record)

    told = json.loads(JsonFormatter().format(record))
    assert told["extra"] == {"order": 7, "by": "a"}
    assert "extra" not in json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "plain"})))


def test_the_time_limit_can_be_set_in_the_file() -> None:
    write("[tool.mindtrace-jobs]\ntimeout_s = 5\n")
    assert load_settings().timeout_s == 5
