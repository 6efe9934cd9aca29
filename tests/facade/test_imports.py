"""The public names: what is there, what is fetched when it is asked for, and what importing costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import mindtrace.jobs
import mindtrace.jobs.domain.errors
from conditions import LIMIT_S
from mindtrace.jobs import AdapterNotInstalled, adapters, errors

CORE = find_spec("mindtrace.core") is not None

LAZY = {
    "SQLiteClient": "sqlite",
    "SQLiteConsumerBackend": "sqlite",
    "RedisClient": "redis",
    "RedisConsumerBackend": "redis",
    "RedisCoordinationStore": "redis",
    "RedisResultStore": "redis",
    "RabbitMQClient": "rabbitmq",
    "RabbitMQConsumerBackend": "rabbitmq",
    "PostgreSQLClient": "postgresql",
    "PostgreSQLConsumerBackend": "postgresql",
    "PostgreSQLResultStore": "postgresql",
}


CORE_NAMES = "from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator"
"""What nearly every program imports."""


def fresh_import(statement: str) -> set[str]:
    """Run an import in a fresh interpreter, and return the modules that are then loaded."""
    report = f"import sys; {statement}; loaded = sorted(sys.modules); import json; print(json.dumps(loaded))"
    command = [sys.executable, "-c", report]
    done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_S)
    return set(json.loads(done.stdout))


def test_every_public_name_is_there() -> None:
    """``__all__`` is what the package offers without any extra."""
    assert [name for name in mindtrace.jobs.__all__ if not hasattr(mindtrace.jobs, name)] == []
    assert len(set(mindtrace.jobs.__all__)) == len(mindtrace.jobs.__all__)


def test_the_names_of_the_seed_are_public() -> None:
    """Whoever follows the description finds them all."""
    local = "Orchestrator LocalClient Consumer JobSchema JobInput JobOutput Job job_from_schema"

    assert {*local.split(), "LocalConsumerBackend"} <= set(mindtrace.jobs.__all__)


def test_every_public_name_is_told_to_dir_and_imported_by_a_star() -> None:
    """Those of the adapters, too: their libraries are installed here."""
    namespace: dict[str, object] = {}
    exec("from mindtrace.jobs import *", namespace)

    assert {*LAZY, "Orchestrator", "errors"} <= set(mindtrace.jobs.__all__) <= set(dir(mindtrace.jobs))
    assert set(mindtrace.jobs.__all__) <= set(namespace)


def test_a_star_leaves_out_what_needs_a_library_that_is_missing() -> None:
    """Or it would fail for those who want nothing of that."""
    hide = "import sys; sys.modules['pika'] = None; sys.modules['redis'] = None"
    names = "from mindtrace.jobs import *; names = set(dir()); assert 'SQLiteClient' in names, names"
    fresh_import(f"{hide}; {names}; assert not {{'RedisClient', 'RabbitMQClient'}} & names, names")


def test_every_error_has_one_home() -> None:
    """All are in ``mindtrace.jobs.errors``, and in ``mindtrace.jobs`` too."""
    defined = {
        name
        for name, value in vars(mindtrace.jobs.domain.errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }

    assert set(errors.__all__) == defined
    assert defined <= set(mindtrace.jobs.__all__)
    assert all(getattr(errors, name) is getattr(mindtrace.jobs, name) for name in defined)


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "mindtrace.jobs", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert done.stdout.startswith("mindtrace-jobs, ")


def test_another_name_is_no_attribute() -> None:
    """In the words that Python uses itself."""
    with pytest.raises(AttributeError, match=r"module 'mindtrace.jobs' has no attribute 'NoSuchClient'"):
        mindtrace.jobs.NoSuchClient  # noqa: B018


@pytest.fixture
def adapter_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation whose adapters are what a test puts there, and not what is there after it."""
    monkeypatch.setattr(adapters, "__path__", [str(tmp_path)])
    for adapter in set(LAZY.values()):
        monkeypatch.delitem(sys.modules, f"mindtrace.jobs.adapters.{adapter}", raising=False)
        monkeypatch.delattr(adapters, adapter, raising=False)
    yield tmp_path
    for adapter in set(LAZY.values()):
        sys.modules.pop(f"mindtrace.jobs.adapters.{adapter}", None)
        vars(adapters).pop(adapter, None)


@pytest.mark.parametrize(("name", "adapter"), LAZY.items())
def test_a_client_is_imported_when_it_is_asked_for(adapter_folder: Path, name: str, adapter: str) -> None:
    """By attribute or by ``from … import``."""
    adapter_folder.joinpath(f"{adapter}.py").write_text(f"class {name}: pass")

    assert getattr(mindtrace.jobs, name).__module__ == f"mindtrace.jobs.adapters.{adapter}"


@pytest.mark.parametrize(("name", "adapter"), LAZY.items())
def test_a_library_that_is_missing_is_named_with_its_extra(
    adapter_folder: Path, name: str, adapter: str
) -> None:
    """The message is the command that mends it, and ``except ImportError`` catches it."""
    adapter_folder.joinpath(f"{adapter}.py").write_text("import nosuchlibrary")

    with pytest.raises(AdapterNotInstalled) as raised:
        getattr(mindtrace.jobs, name)

    remedy = f": pip install 'mindtrace-jobs[{adapter}]>={version('mindtrace-jobs')}'"
    if adapter == "sqlite":  # which no extra brings
        remedy = ", a part of Python that this one was built without"
    assert str(raised.value) == f"{name} needs nosuchlibrary{remedy}"
    assert (raised.value.name, isinstance(raised.value, ImportError)) == ("nosuchlibrary", True)


@pytest.mark.parametrize("name", LAZY)
def test_every_adapter_is_there(name: str) -> None:
    """With its library installed, as in this environment, each can be used."""
    assert getattr(mindtrace.jobs, name).__name__ == name


def test_importing_it_imports_no_optional_library() -> None:
    """Whether or not they are installed: an extra is paid for by those who use it."""
    optional = {"redis", "pika", "hypothesis", "pytest", "testcontainers", "mindtrace.jobs.contract"}
    optional |= {"click", "rich", "prometheus_client", "opentelemetry"}
    if not CORE:  # a part of Python that takes as long to import as half of this package
        optional |= {"asyncio"}
    if not CORE:  # which imports it for itself
        optional.add("pydantic_settings")

    assert fresh_import("import mindtrace.jobs") & optional == set()


@pytest.mark.skipif(CORE, reason="mindtrace-core brings libraries of its own")
def test_importing_it_needs_pydantic_and_nothing_else() -> None:
    """Of all that is installed, only what pydantic's models load themselves."""
    model = "import pydantic; type('Model', (pydantic.BaseModel,), {})"
    ours = fresh_import("import mindtrace.jobs") - fresh_import(model)
    roots = {name.partition(".")[0] for name in ours if not name.startswith("_")}

    assert roots - sys.stdlib_module_names - {"mindtrace", "pydantic"} == set()


def own_modules(statement: str) -> set[str]:
    """Return the modules of this project that an import loads, by their names within it."""
    prefix = "mindtrace.jobs."
    return {name.removeprefix(prefix) for name in fresh_import(statement) if name.startswith(prefix)}


def test_importing_it_imports_neither_the_application_nor_an_adapter() -> None:
    """What does the work is imported when it is asked for; a value or an error needs none of it."""
    roots = {name.partition(".")[0] for name in own_modules("import mindtrace.jobs")}

    assert roots == {"domain", "errors", "ports"}


def test_the_names_of_most_programs_import_nothing_that_few_use() -> None:
    """Batches, many jobs at once, event loops, workers and adapters are paid for by those who use them."""
    loaded = own_modules(CORE_NAMES)
    few_use = ("adapters", "application.async_", "application.batch_", "application.consuming.batch_")
    few_use += ("application.consuming.concurrent_loop", "application.consuming.handler_", "domain.batch_")
    few_use += ("application.api.job_handler", "application.tools", "application.worker")

    assert {"application.api.consumer", "application.api.orchestrator"} <= loaded
    assert [name for name in sorted(loaded) if name.startswith(few_use)] == []


@pytest.mark.skipif(CORE, reason="mindtrace-core brings libraries of its own")
def test_the_names_of_most_programs_import_no_module_that_takes_long() -> None:
    """Of what the errors of a few, the models of some and asynchronous handlers need."""
    takes_long = {"asyncio", "concurrent.futures", "difflib", "json", "multiprocessing", "sqlite3"}
    takes_long |= {"pydantic.functional_serializers", "pydantic.type_adapter"}
    user_model = "from pydantic import BaseModel; type('Model', (BaseModel,), {})"

    assert (fresh_import(CORE_NAMES) - fresh_import(user_model)) & takes_long == set()


def test_a_url_imports_the_adapter_of_its_scheme_alone() -> None:
    loaded = own_modules(f"{CORE_NAMES}; Orchestrator('memory://').close()")

    assert {name.split(".")[1] for name in loaded if name.startswith("adapters.")} == {"local", "shared"}


def test_what_is_imported_on_demand_is_what_type_checkers_are_told() -> None:
    """The table of the interpreter names the same modules as the imports under ``TYPE_CHECKING``."""
    tree = ast.parse(Path(mindtrace.jobs.__file__).read_text("utf-8"))
    blocks = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in ast.walk(next(blocks)) if isinstance(node, ast.ImportFrom)]
    told = {alias.name: node.module for node in imports for alias in node.names}

    on_demand: dict[str, str] = vars(mindtrace.jobs)["_ON_DEMAND"]
    assert told == {name: f"mindtrace.jobs.{module}" for name, module in on_demand.items()}
    assert set(told) <= set(mindtrace.jobs.__all__)
