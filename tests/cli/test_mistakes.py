"""Every mistake of a newcomer: one paragraph that says the mend, an exit code, no traceback, no secret."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import click
import pytest

from conditions import LIMIT_S
from mindtrace.jobs import JobInput, JobSchema, Orchestrator
from mindtrace.jobs.application.broker import backends
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.loading import load_observer
from mindtrace.jobs.cli.main import commands, run

from .conftest import Command

MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "an unknown scheme": (
        ["queues", "-b", "rediss3://a:swordfish@b"],
        2,
        "no adapter for rediss3://",
    ),
    "no URL": (["queues", "-b", "localhost:6379"], 2, "a backend URL starts with a scheme"),
    "a URL with a password that can't be read": (
        ["queues", "-b", "redis://:sword/fish@host:x/0"],
        2,
        "a Redis URL is redis://",
    ),
    "no server": (
        ["queues", "-b", "redis://:swordfish@127.0.0.1:1/0"],
        3,
        "no Redis answers at 127.0.0.1:1",
    ),
    "queues of one process": (["queues", "-b", "memory://"], 2, "no two commands can share them"),
    "an unknown queue": (["purge", "inspekt", "--yes"], 4, "queue 'inspekt': not declared"),
    "an impossible name of a queue": (["purge", "no queue", "--yes"], 2, "use 1 to 128 characters"),
    "bad JSON": (["publish", "inspect", "--json", "{path: 1}"], 2, "not JSON: key must be a string"),
    "JSON in single quotes": (
        ["publish", "inspect", "--json", "{'path': 'a.png'}"],
        2,
        "JSON has names and texts in double quotes, and a shell takes it in single quotes, as in --json",
    ),
    "JSON that is no object": (["publish", "inspect", "--json", "[1]"], 2, "not a JSON object but an array"),
    "neither a job nor a file": (["publish", "inspect"], 2, "give either --json"),
    "a job and a file": (["publish", "q", "--json", "{}", "--file", "tasks.py"], 2, "give either --json"),
    "a moment that is none": (
        ["publish", "q", "--json", "{}", "--not-before", "tomorrow"],
        2,
        "'tomorrow' is no time such as 2027-01-31T08:00+01:00",
    ),
    "a moment without a time zone": (
        ["publish", "q", "--json", "{}", "--not-before", "2027-01-31T08:00"],
        2,
        "has no time zone: add Z for UTC, or a distance such as +01:00",
    ),
    "an id for many": (["publish", "q", "--file", "tasks.py", "--id", "1"], 2, "--id names one job"),
    "a file that isn't there": (["publish", "q", "--file", "nobody"], 2, "No such file or directory"),
    "a payload that doesn't fit": (
        ["publish", "inspect", "--json", '{"path": 7}', "--schema", "tasks:Inspector"],
        2,
        "payload: doesn't fit Image (path: Input should be a valid string)",
    ),
    "a schema of another queue": (
        ["publish", "other", "--json", "{}", "--schema", "tasks:Inspector"],
        2,
        "tasks:Inspector is the schema of queue 'inspect', not 'other'",
    ),
    "what is no schema": (
        ["publish", "q", "--json", "{}", "--schema", "tasks:number"],
        2,
        "is neither",
    ),
    "a file of the home folder": (
        ["queues", "-b", "sqlite:///~/jobs.db"],
        2,
        "write its path, as in sqlite:////home/me/jobs.db",
    ),
    "a schedule that isn't": (
        ["schedules", "pause", "nightly"],
        4,
        "schedule 'nightly': not defined; mindtrace-jobs schedules list shows those that are",
    ),
    "an id that is none": (["result", "no id"], 2, "use 1 to 128 characters"),
    "no consumers": (["worker"], 2, "no consumers: name them"),
    "an impossible number": (
        ["worker", "tasks:Inspector", "-p", "0"],
        2,
        "processes: Input should",
    ),
    "no handler at once": (["worker", "tasks:Inspector", "--jobs", "0"], 2, "jobs: Input should be greater"),
    "no range of processes": (
        ["worker", "tasks:Inspector", "--autoscale", "8"],
        2,
        "autoscale: give a range of processes such as 1:8",
    ),
    "a range from none": (["worker", "tasks:Inspector", "--autoscale", "0:8"], 2, "then a larger number"),
    "a range of one number": (["worker", "tasks:Inspector", "--autoscale", "2:2"], 2, "then a larger number"),
    "two numbers of processes": (
        ["worker", "tasks:Inspector", "--autoscale", "1:8", "--processes", "2"],
        2,
        "--processes and --autoscale: leave one out",
    ),
    "no job at all": (["worker", "tasks:Inspector", "--max-jobs", "0"], 2, "max_jobs: Input should be"),
    "memory without a unit": (
        ["worker", "tasks:Inspector", "--max-memory", "500"],
        2,
        "max_memory: give a size such as 500M or 2G, or a share such as 80%",
    ),
    "more memory than there is": (
        ["worker", "tasks:Inspector", "--max-memory", "101%"],
        2,
        "give a size such as 500M or 2G",
    ),
    "no memory": (["worker", "tasks:Inspector", "--max-memory", "0G"], 2, "max_memory: give"),
    "an unknown order": (
        ["worker", "tasks:Inspector", "--jobs", "1", "--order", "fair"],
        2,
        "'fair' is not one of 'strict', 'weighted'",
    ),
    "an order of no jobs": (
        ["worker", "tasks:Inspector", "--order", "strict"],
        2,
        "--order strict needs --jobs: without it each consumer runs its own jobs",
    ),
    "a weight of no jobs": (
        ["worker", "tasks:Inspector=2"],
        2,
        "'tasks:Inspector=2': a weight needs --jobs, which says how many jobs run at once",
    ),
    "a weight of 0": (
        ["worker", "tasks:Inspector=0", "--jobs", "1"],
        2,
        "'tasks:Inspector=0': a weight is a whole number from 1 to 10,000, as in tasks:Inspector=3",
    ),
    "a weight in a strict order": (
        ["worker", "tasks:Inspector=2", "--jobs", "1", "--order", "strict"],
        2,
        "--order strict goes by the order of the names; leave the weight out, or use --order weighted",
    ),
    "a word for a number": (["worker", "tasks:Inspector", "-p", "many"], 2, "'many' is not a valid integer"),
    "an unknown command": (["wrok"], 2, "No such command 'wrok'"),
    "an unknown option": (["queues", "--wacht"], 2, "No such option"),
    "a health file in no folder": (
        ["worker", "tasks:Inspector", "--health-file", "nowhere/health"],
        2,
        "the health file nowhere/health can't be written",
    ),
    "an unknown clause": (["contract", "tasks:number", "--clause", "LSE-99"], 2, "no clause LSE-99"),
    "what is no harness": (["contract", "tasks:Inspector"], 2, "tasks:Inspector is no Harness"),
}


PYTHON = re.compile(r"timeout_s|orchestrator\.|Path\(|register (its|the) schema")
"""Advice for who writes a program."""


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        ([], "it is waiting; --wait SECONDS waits for its result"),
        (
            ["--wait", "0.1"],
            "no result within 0.1 s: it is waiting; a higher --wait SECONDS waits for its result",
        ),
    ],
)
@pytest.mark.parametrize("queue", [[], ["--queue", "inspect"]])
def test_a_result_that_is_not_there_yet_names_the_option_that_waits(
    command: Command, orchestrator: Orchestrator, wait: list[str], queue: list[str], told: str
) -> None:
    job_id = orchestrator.publish(JobSchema("inspect", JobInput), {})
    answer = command("result", job_id, *queue, *wait)

    assert answer.code == 4
    assert f"job {job_id}: {told}" in answer.err
    assert not PYTHON.search(answer.err)


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_paragraph(command: Command, words: list[str], code: int, message: str) -> None:
    """The fixture looks for tracebacks and secrets."""
    answer = command(*words)

    assert answer.code == code
    assert message in answer.err
    assert answer.out == ""
    assert "fish" not in answer.err
    assert not PYTHON.search(answer.err), "what somebody at a terminal can't do"


EAGER = """
from mindtrace.jobs import Orchestrator
from tasks import Inspector

consumer = Inspector()
consumer.connect(Orchestrator("memory://"))
consumer.consume()
"""
LOADING: dict[str, tuple[str, str]] = {
    "no module": ("taks:Inspector", "no module 'taks' is found from here"),
    "a file": ("tasks.py:Inspector", "leave .py out, as in tasks:Inspector"),
    "no submodule": ("tasks.sub:Inspector", "no module 'tasks.sub' is found from here"),
    "no module before the name": (
        ":Inspector",
        "':Inspector': write module:ConsumerClass, such as tasks:ConsumerClass",
    ),
    "a module without consumers": (
        "empty",
        "module 'empty' has no consumers: none is defined there or named in its __all__; name one as "
        "module:ConsumerClass, or another module",
    ),
    "a module with a consumer that can't be made": ("tasks", "tasks:Choosy() fails: "),
    "a dot for the colon": (
        "tasks.Inspector",
        "'tasks.Inspector': write module:ConsumerClass, such as tasks:Inspector",
    ),
    "no such class": (
        "tasks:Inspektor",
        "module 'tasks' has no 'Inspektor'; consumers in tasks: Inspector",
    ),
    "an instance": ("tasks:inspector", "tasks:inspector is an instance: name its class, Inspector"),
    "no consumer": ("tasks:NoConsumer", "derive NoConsumer from mindtrace.jobs.Consumer"),
    "a number": ("tasks:number", "tasks:number is of type int: name a Consumer class"),
    "no schema": ("tasks:Nameless", "Nameless: pass the name of its queue, or set schema"),
    "arguments": ("tasks:Choosy", "a worker calls it without arguments"),
    "a constructor that fails": ("tasks:Failing", "): RuntimeError: no GPU is free"),
    "a constructor with a slip": ("tasks:Slipping", "): TypeError: object of type 'int' has no len()"),
    "a function that runs jobs": (
        "tasks:handle",
        "argument: 'job'; to run jobs by it, write @job_handler(schema) above it",
    ),
    "a function that makes none": (
        "tasks:make_nothing",
        "tasks:make_nothing must return a Consumer or a list of them, not int",
    ),
    "a function that makes an empty list": ("making:none", "making:none returned no consumers"),
    "a function that makes a list of something else": (
        "making:classes",
        "making:classes must return a list of consumers: <class 'tasks.Inspector'> is none",
    ),
    "a module that fails": ("broken:A", "line 2: ZeroDivisionError"),
    "a module that lacks another": ("lacking:A", "ModuleNotFoundError: No module named 'nosuchlibrary'"),
    "a module with a slip": ("slip:A", "SyntaxError"),
    "a module that runs jobs": (
        "eager:A",
        "UsageError: Inspector runs jobs as the module 'eager' is imported, so the import would not end: "
        'write those lines under if __name__ == "__main__":',
    ),
}

OBSERVERS = {
    "a consumer": ("tasks:Inspector", "tasks:Inspector() must return an Observer, not Inspector"),
    "a number": ("tasks:number", "tasks:number is of type int: name an Observer, its class, or a function"),
    "what needs more": ("tasks:Choosy", "a worker calls it without arguments: name a function that makes"),
    "a handler": ("decorated:handle", "decorated:handle is of type JobHandler: name an Observer"),
    "nothing": ("tasks:nobody", "module 'tasks' has no 'nobody'; tasks defines: Image, Defects, Inspector, "),
    "a module": ("tasks", "'tasks': write module:make_observer, such as tasks:make_observer"),
}


@pytest.mark.parametrize(("target", "message"), OBSERVERS.values(), ids=OBSERVERS)
def test_what_is_no_observer_is_refused(command: Command, folder: Path, target: str, message: str) -> None:
    folder.joinpath("decorated.py").write_text(
        "from mindtrace.jobs import job_handler\nfrom tasks import Inspector\n"
        "@job_handler(Inspector.schema)\ndef handle(job): ...\n",
        "utf-8",
    )
    with pytest.raises(BadUsage) as refused:
        load_observer(target)
    assert message in str(refused.value)


@pytest.mark.parametrize(("target", "message"), LOADING.values(), ids=LOADING)
def test_a_consumer_that_cannot_be_loaded_is_a_finding(
    command: Command, folder: Path, target: str, message: str
) -> None:
    """Of the doctor, in the words that a worker uses."""
    folder.joinpath("broken.py").write_text("a = 0\nb = 1 / a\n", "utf-8")
    folder.joinpath("lacking.py").write_text("import nosuchlibrary\n", "utf-8")
    folder.joinpath("slip.py").write_text("def f(:\n", "utf-8")
    folder.joinpath("eager.py").write_text(EAGER, "utf-8")
    folder.joinpath("empty.py").write_text("from tasks import Inspector\n", "utf-8")
    folder.joinpath("making.py").write_text(
        "from tasks import Inspector\ndef none(): return []\ndef classes(): return [Inspector]\n", "utf-8"
    )
    answer = command("doctor", target)

    assert answer.code == 1
    assert message in answer.out.replace(f"({folder}/broken.py, line 2)", "line 2")
    assert "; a worker ends with the same message" in answer.out


def test_a_class_or_a_function_is_loaded(command: Command) -> None:
    assert command("doctor", "tasks:Inspector", "tasks:make_inspector", "tasks:Urgent").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["queues", "nobody"],
        ["pause", "nobody"],
        ["resume", "nobody"],
        ["purge", "nobody", "--yes"],
        ["delete", "nobody", "--yes"],
        ["delete", "nobody"],
        ["cancel", "nobody", "a"],
        ["dead", "list", "nobody"],
        ["dead", "redrive", "nobody", "--all"],
        ["result", "a", "--queue", "nobody"],
    ],
    ids=" ".join,
)
def test_of_a_queue_that_is_not_declared_a_command_says_which_command_declares_it(
    command: Command, orchestrator: Orchestrator, words: list[str]
) -> None:
    orchestrator.register(JobSchema("inspect", JobInput))
    answer = command(*words)

    assert answer.code == 4
    assert (
        "queue 'nobody': not declared; a worker of its consumer declares it, and so does publish --schema "
        "module:Name; declared on "
    ) in answer.err
    assert answer.err.rstrip().endswith(": inspect")


def test_an_extra_that_is_missing_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, orchestrator: Any
) -> None:
    """By the command that installs it."""
    entry = EntryPoint("lacking", "nosuchlibrary:Client [lacking]", backends.GROUP)
    monkeypatch.setattr(backends, "entry_points", lambda group: [entry])
    answer = command("queues", "-b", "lacking://host")

    assert answer.code == 5
    assert "lacking:// needs nosuchlibrary: pip install" in answer.err


@pytest.mark.parametrize(
    ("option", "library", "extra"),
    [(["--reload"], "watchfiles", "reload"), (["--metrics-port", "1"], "prometheus_client", "metrics")],
)
def test_an_extra_of_the_worker_that_is_missing_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, option: list[str], library: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    answer = command("worker", "tasks:Inspector", *option)

    assert answer.code == 5
    assert f"pip install 'mindtrace-jobs[{extra}]>={version('mindtrace-jobs')}'" in answer.err


@pytest.mark.parametrize("name", ["mindtrace.py", "mindtrace/__init__.py"])
def test_a_module_that_hides_the_package_is_named(command: Command, folder: Path, name: str) -> None:
    """Beside the user's tasks. A worker's processes would import it in place of the package, and end."""
    folder.joinpath(name).parent.mkdir(exist_ok=True)
    folder.joinpath(name).touch()
    answer = command("worker", "tasks:Inspector", "--burst")

    assert answer.code == 2
    assert (
        f"{folder / name} hides the package mindtrace, so that no worker could start: rename it" in answer.err
    )


def test_a_folder_of_the_packages_name_hides_nothing(command: Command, folder: Path) -> None:
    """It is another part of the namespace."""
    folder.joinpath("mindtrace").mkdir()

    assert command("doctor", "tasks:Inspector").code == 0


def every_command(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, *names, name)
        else:
            yield (*names, name)


@pytest.mark.parametrize("words", list(every_command(commands)), ids=" ".join)
def test_help_is_plain_text(command: Command, words: tuple[str, ...]) -> None:
    """Nothing that is meant for the library that prints it."""
    answer = command(*words, "--help")

    assert answer.code == 0
    assert answer.out.startswith(f"Usage: mindtrace-jobs {' '.join(words)}".rstrip())
    assert not re.search(r"\\|[\x00-\x09\x0b-\x1f\x7f]|``", answer.out)


def test_ctrl_c_while_the_command_is_imported_ends_it_quietly(tmp_path: Path) -> None:
    tmp_path.joinpath("click.py").write_text("raise KeyboardInterrupt\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mindtrace.jobs", "queues"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_a_module_is_imported_is_one_line(command: Command, folder: Path) -> None:
    folder.joinpath("interrupted.py").write_text("raise KeyboardInterrupt\n", "utf-8")
    answer = command("doctor", "interrupted:Consumer")

    assert (answer.code, answer.out) == (130, "")
    assert answer.err.strip() == "error: stopped before anything was done"


def test_what_was_not_foreseen_shows_itself_whole(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the traceback, and its own exit code."""
    monkeypatch.setattr("mindtrace.jobs.cli.queues.watch", lambda *_: 1 / 0)

    assert run(["queues"]) == 70
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("words", [(), ("dead",), ("schedules",)])
def test_the_list_of_commands_cuts_no_summary(command: Command, words: tuple[str, ...]) -> None:
    """The first sentence of a command's help fits beside its name."""
    listed = command(*words, "--help").out.partition("Commands:")[2]

    assert listed
    assert "..." not in listed
