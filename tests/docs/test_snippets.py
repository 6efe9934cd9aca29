"""The snippets of the documentation run, in the order in which a page shows them.

The ``python`` blocks of a page share one namespace. A block whose first line is ``# name.py`` or
``# name.toml`` is a file, written to the folder in which the page runs. Each command of a ``console`` block
must exit with 0. A ``text`` block is what the ``python`` block before it prints. A comment
``not run: reason`` leaves out the block behind it. At the end, pytest runs the files ``test_*.py``.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from conditions import LIMIT_S
from mindtrace.jobs import ConsumeStats
from mindtrace.jobs.cli.main import commands

from .blocks import PAGES, ROOT, blocks_of

# Runs the blocks of one page. Errors name the page and its line.
DRIVER = """
import contextlib, io, json, shlex, sys, textwrap
from pathlib import Path

from mindtrace.jobs.cli.main import run

page, blocks = json.load(sys.stdin)
namespace = {"__name__": "__main__"}
printed = ""
sys.path.insert(0, "")
for kind, line, text in blocks:
    where = f"{page}, line {line}"
    if kind == "file":
        name, text = text.split("\\n", 1)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, "utf-8")
    elif kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\\n" * (line - 1) + textwrap.dedent(text), page, "exec"), namespace)
        printed = out.getvalue()
    elif kind == "text":
        assert printed == text, f"{where}: printed {printed!r}"
    else:
        commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
        assert commands, f"{where}: no commands"
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == "mindtrace-jobs", f"{where}: {command}"
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
                code = run(arguments)  # in this process: starting one for each takes most of the time
            assert code == 0, f"{where}: {command}: {code}: {out.getvalue()}"
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MINDTRACE_JOBS_")
    }
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", DRIVER],
        input=json.dumps([page.name, blocks_of(page)]),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=2 * LIMIT_S,
    )
    assert done.returncode == 0, done.stdout
    if tests := list(tmp_path.glob("test_*.py")):
        run_tests(tmp_path, len(tests))


def run_tests(folder: Path, files: int) -> None:
    """Run the tests that a page shows, each file of them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml", "report.xml"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=2 * LIMIT_S,
    )
    assert done.returncode == 0, done.stdout
    passed = re.findall(r'<testcase classname="(\w+)', (folder / "report.xml").read_text("utf-8"))
    assert len(set(passed)) == files, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_names_have_the_options_that_it_names(page: Path) -> None:
    """Also in text, and in files of other tools, as lists of words."""
    text = re.sub(r"\\\n", "", page.read_text("utf-8"))
    for line in re.findall(r"\bmindtrace-jobs\b([^`\n]*)", text):
        words = re.findall(r"--?[\w-]+|[\w./:-]+", line)
        names = [word for word in words if not word.startswith("-")]
        command: click.Command = commands
        for name in names:
            if not isinstance(command, click.Group) or name not in command.commands:
                break
            command = command.commands[name]
        if command is commands:  # the word stands for the project, as in a path
            continue
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, line


NAMES_OF_0X = {
    "BackendType BatchPublishResult Consumer ConsumerFailurePolicy ExecutionStatus Job JobSchema",
    "LocalClient LocalConsumerBackend LocalPriorityQueue LocalQueue LocalStack Orchestrator",
    "RabbitMQClient RabbitMQConsumerBackend RedisClient RedisConsumerBackend job_from_schema",
    "register publish publish_batch clean_queue delete_queue count_queue_messages orchestrator_dir",
    "declare_queue receive_message store_job_result get_job_result move_to_dlq consumer_backend_args",
    "create_consumer_backend declare_exchange delete_exchange count_exchanges",
    "connection channel create_connection",
    "connect_to_orchestrator connect_to_orchestator_via_backend_args",
    "failure_policy prefetch_count poll_timeout auto_ack",
    "consume consume_until_empty stop reset close run job_dict consumer_backend",
    "name input_schema output_schema",
    "id schema_name payload status created_at started_at completed_at error entrypoint priority",
}
"""What 0.16.0 exports, the public members of its classes and the settings of its consumers."""


def test_every_public_name_of_0x_is_on_the_page_for_those_who_come_from_it() -> None:
    page = (ROOT / "docs" / "coming_from_0x.md").read_text("utf-8")
    left = {name for row in re.findall(r"^\| (.+?) \| ", page, re.M) for name in re.findall(r"\w+", row)}

    assert set(" ".join(NAMES_OF_0X).split()) - left == set()


def test_every_count_of_a_consumer_is_explained() -> None:
    page = ROOT.joinpath("docs/using.md").read_text("utf-8")
    table = page.partition("| `stats` | deliveries |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == {each.name for each in fields(ConsumeStats)}


def test_nobody_is_told_to_install_an_older_release() -> None:
    """The index has only those under the bare name: a command names the version, or a clone, or a wheel."""
    sources = [
        *PAGES,
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("examples/**/*.toml"),
    ]
    for folder in ("application", "adapters", "cli", "contract_tests/suite", "testing/kit", "src"):
        sources += ROOT.glob(f"{folder}/**/*.py")
    told = re.compile(
        r"(?:pip install[^`\n]*|dependencies = .*|test = .*)mindtrace-jobs(?:\[[^\]]*\])?(?P<version>..)"
    )
    bare = [
        f"{source.relative_to(ROOT)}: {found[0]}"
        for source in sources
        for found in told.finditer(source.read_text("utf-8"))
        if found["version"] != ">="
    ]
    assert bare == []


def test_every_link_to_a_file_or_heading_leads_somewhere() -> None:
    broken = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, heading = target.partition("#")
            if target.startswith(("http://", "https://")):
                continue
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (heading and heading not in headings_of(there)):
                broken.append(f"{page.name}: {target}")
    assert not broken


def headings_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
