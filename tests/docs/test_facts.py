"""What pages say of numbers and defaults equals what the code and the benchmark have."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    LocalClient,
    OrchestratorBackend,
    PostgreSQLClient,
    RabbitMQClient,
    RedisClient,
    RetryPolicy,
    SQLiteClient,
)
from mindtrace.jobs.cli.settings import Settings

from .blocks import ROOT

CLIENTS: Mapping[str, type[OrchestratorBackend]] = {
    "Local": LocalClient,
    "SQLite": SQLiteClient,
    "Redis": RedisClient,
    "RabbitMQ": RabbitMQClient,
    "PostgreSQL": PostgreSQLClient,
}


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def rows(text: str, *columns: str) -> list[dict[str, str]]:
    """The rows of all tables that begin with these columns, by their columns."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        lines = [
            [cell.strip() for cell in line[1:-2].split(" |")] for line in table.splitlines(keepends=True)
        ]
        if tuple(lines[0][: len(columns)]) == columns:
            found += [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


# -- defaults -------------------------------------------------------------------------------------


def read(default: str) -> object:
    """What a default in a table stands for."""
    if found := re.match(r"([\d.]+)(?: s)?(?:;|$)", default):
        return float(found[1])
    if found := re.match(r"`([^`]+)`(?:;|$)", default):
        return True if found[1] == "True" else found[1]
    return {"none": None, "adaptive": None, "off": False}.get(default, ...)


def default_of(call: Callable[..., Any], name: str) -> object:
    default = inspect.signature(call).parameters[name].default
    return float(default) if type(default) is int else default


@pytest.mark.parametrize("backend", ["SQLite", "Redis", "RabbitMQ", "PostgreSQL"])
def test_defaults_of_a_client_are_those_that_its_page_names(backend: str) -> None:
    settings = rows(page(f"docs/{backend.lower()}.md"), "setting", "default")
    assert settings

    for row in settings:
        name = row["setting"].strip("`")
        call: Callable[..., Any] = CLIENTS[backend]
        if found := re.fullmatch(r"connect\((\w+)=\)", name):
            name, call = found[1], Consumer.connect
        assert read(row["default"]) == default_of(call, name), name


def test_defaults_of_batches_are_those_that_their_page_names() -> None:
    for row in rows(page("docs/batches.md"), "setting", "default"):
        assert read(row["default"]) == getattr(BatchConsumer, row["setting"].strip("`"))


def test_every_setting_of_the_command_is_in_its_table_with_its_default() -> None:
    table = rows(page("docs/cli.md"), "`[tool.mindtrace-jobs]`", "variable")
    named = {}
    for row in table:
        name = re.findall(r"\w+", row["`[tool.mindtrace-jobs]`"])[0]
        assert row["variable"] == f"`MINDTRACE_JOBS_{name.upper()}`"
        named[name] = read(row["default"])

    assert named.keys() == Settings.model_fields.keys()
    for name, default in named.items():
        if default is not ...:
            known = Settings.model_fields[name].default
            known = known.get_secret_value() if isinstance(known, SecretStr) else known
            assert (known or None) == (default or None), name


def test_the_retry_policy_that_a_schema_has_by_default_is_the_one_that_the_page_tells() -> None:
    policy = RetryPolicy()
    told = re.search(
        r"Without `retry`, a job has (\d+) attempts, with delays of up to (\d+) s and (\d+) s between them\."
        r" A crash of its worker uses up no attempt, but after (\d+) crashes",
        " ".join(page("docs/using.md").split()),
    )
    assert told
    delays = [policy.longest_delay_s(attempt) for attempt in range(1, policy.max_attempts)]
    assert [float(each) for each in told.groups()] == [policy.max_attempts, *delays, policy.max_crashes]


# -- capabilities ---------------------------------------------------------------------------------


def client_of(backend: str, folder: Path) -> OrchestratorBackend:
    return SQLiteClient(folder / "jobs.db") if backend == "SQLite" else CLIENTS[backend]()


@pytest.mark.parametrize("backend", CLIENTS)
def test_what_the_page_on_backends_says_of_one_is_what_it_declares(backend: str, tmp_path: Path) -> None:
    said = {row[""]: row[backend] for row in rows(page("docs/backends.md"), "", "Local", "SQLite")}
    with client_of(backend, tmp_path) as client:
        declared = client.capabilities

    assert (
        said["Greatest lateness of a delayed job, if the backend is idle"]
        == f"{declared.delay_resolution_s} s"
    )
    for words, has in (
        ('Newest-first queues (`"stack"`)', declared.stack),
        ("A publish adds no job if a job with the same id is still in the queue", declared.dedupe),
        ("Results", declared.results),
        ("Running jobs are counted, queues are listed, progress is shown", declared.counts_in_flight),
    ):
        assert (said[words] == "yes") is has, words
    [once] = [text for words, text in said.items() if words.startswith("How often the [next job]")]
    assert once == ("exactly once" if declared.atomic_then else "at least once")


# -- errors ---------------------------------------------------------------------------------------

ADAPTERS = ("local", "sqlite", "redis", "rabbitmq", "postgresql")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_errors_of_one_backend_that_its_page_names_can_be_caught(adapter: str) -> None:
    """They are in its package; all others are in mindtrace.jobs.errors."""
    package = importlib.import_module(f"mindtrace.jobs.adapters.{adapter}")
    own = {
        name
        for path in ROOT.glob(f"adapters/{adapter}/**/errors.py")
        for name in re.findall(r"^class (\w+)\(Backend", path.read_text("utf-8"), re.M)
    }
    pages = [page(f"docs/{name}.md") for name in ("using", adapter) if (ROOT / f"docs/{name}.md").exists()]
    named = {name for name in own for text in pages if re.search(rf"[`.]{name}`", text)}

    assert named <= set(vars(package)), f"{package.__name__} lacks what its page names"


# -- figures --------------------------------------------------------------------------------------

BENCHMARKS = "docs/benchmarks.md"


def section(heading: str) -> str:
    return page(BENCHMARKS).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def drains(heading: str) -> dict[str, str]:
    """Empty jobs a second, by the library."""
    return {row[""]: row["drain, no-op, jobs/s"] for row in rows(section(heading), "", "one by one, jobs/s")}


def at_least_once(heading: str) -> Iterator[str]:
    """Other libraries that run each job at least once."""
    for row in rows(section(heading), "", "a job runs"):
        if row["a job runs"] == "at least once" and not row[""].startswith("this project"):
            yield row[""]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_readme_has_the_rates_of_the_benchmark() -> None:
    text = " ".join(page("README.md").split())
    told = re.search(
        r"on Redis ran ([\d,]+) empty jobs per second.*?the fastest ran ([\d,]+) per second", text
    )
    assert told
    redis = drains("Redis")

    assert told[1] == redis["this project"]
    assert told[2] == max((redis[name] for name in at_least_once("Redis")), key=number)
    assert "it runs more jobs per second than RabbitMQ and PostgreSQL" in page("docs/backends.md")
    others = [drains(broker)["this project"] for broker in ("RabbitMQ", "PostgreSQL")]
    assert number(told[1]) > max(map(number, others))


def test_the_page_on_prefetch_has_the_rates_of_the_benchmark() -> None:
    text = " ".join(page("docs/using.md").split())
    told = re.search(
        r"ran ([\d,]+) empty jobs per second with `prefetch=1`, and ([\d,]+) with `prefetch=200`", text
    )
    assert told
    rates = {row[""]: row["jobs/s"] for row in rows(section("RabbitMQ"), "", "jobs/s")}

    assert told.groups() == (rates["application, drain 1"], rates["application, drain 200"])


def test_the_page_on_sqlite_has_the_figures_of_the_benchmark() -> None:
    measured = {row[""]: row for row in rows(section("SQLite"), "", "one by one, jobs/s")}
    columns = {
        "publish in a batch, jobs/s": "in a batch, jobs/s",
        "publish one by one, jobs/s": "one by one, jobs/s",
        "drain empty jobs with one worker, jobs/s": "drain, no-op, jobs/s",
        "publish to handler, p50": "latency p50, ms",
        "an idle worker, of a processor": "idle CPU, %",
    }
    told = {row[""]: row for row in rows(page("docs/sqlite.md"), "", "this project", "Huey")}

    assert told.keys() == columns.keys()
    for words, column in columns.items():
        for library in ("this project", "Huey"):
            figure = re.match(r"[\d.,]*\d", told[words][library])
            assert (figure[0] if figure else "") == measured[library][column], words
