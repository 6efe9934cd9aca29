"""Adapters from outside, distributions of their own: under the contract suite, and found by their URLs."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from .virtual_environments import ROOT, make_environment, run

pytestmark = [pytest.mark.long, pytest.mark.begins_first, pytest.mark.timeout(1800)]

EXAMPLES = ROOT / "examples"
GUIDE = ROOT / "docs" / "adding_a_backend.md"

SUMS = """
import sys
from mindtrace.jobs import Consumer, JobInput, JobOutput, JobSchema, Orchestrator

class Numbers(JobInput):
    x: float
    y: float

class Total(JobOutput):
    total: float

class Adder(Consumer):
    def run(self, job):
        print(job.id, job.payload.x + job.payload.y)
        return Total(total=job.payload.x + job.payload.y)

orchestrator = Orchestrator(sys.argv[1])
orchestrator.register(JobSchema(name="sums", input=Numbers, output=Total))
"""

PUBLISH = """
print(orchestrator.publish("sums", Numbers(x=1, y=2)))
"""

CONSUME = """
with Adder("sums") as consumer:
    consumer.connect(orchestrator)
    consumer.consume(num_messages=1)
print(type(consumer).__name__, orchestrator.count_queue_messages("sums"))
"""


class Adapter(NamedTuple):
    folder: str
    backend: str
    """Its name in reports."""
    url: str
    off: set[str]
    """The capabilities that it declares off."""
    refused: set[str]
    """The clauses that it refuses in whole or in part."""


_NEITHER_HAS = {
    *(
        "transactional_publish",
        "coordination",
        "freed_places",
        "guarded_publish",
        "then",
        "atomic_then",
        "cancel",
        "first_ready",
        "dead_ttl",
        "exact_dead_ttl",
    ),
}
_NEITHER_KEEPS = {
    *("CNT-2", "DLQ-5", "CON-1", "CON-2", "PUB-3", "PUB-7", "RCV-2"),
    *("CRD-1", "CRD-2", "CRD-3", "CRD-4", "CRD-5", "CRD-6", "CRD-7", "CRD-8"),
    *("THEN-1", "THEN-2", "THEN-3", "THEN-4", "CAN-1", "CAN-2", "CAN-3", "CAN-4"),
    *(
        "ADM-3",
        "DLY-1",
        "DLY-2",
        "I4",
        "LSE-2",
        "LSE-3",
        "LSE-4",
        "ORD-3",
        "PUB-5",
        "RES-1",
        "RES-2",
        "SET-1",
        "SET-3",
        "SET-4",
    ),
}
ADAPTERS = [
    Adapter(
        "custom_adapter",
        "Spool",
        "spool://{}/spool",
        off={"stack", "priority", "dedupe", "results", *_NEITHER_HAS},
        refused={"DLY-3", "ORD-2", "ORD-3", "ORD-4", *_NEITHER_KEEPS},
    ),
    Adapter(
        "sql_adapter",
        "Table",
        "table://{}/jobs.db",
        off=_NEITHER_HAS,
        refused=_NEITHER_KEEPS,
    ),
]


@pytest.fixture(scope="module", params=ADAPTERS, ids=lambda adapter: adapter.backend)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture(scope="module")
def example(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder, where nothing of this tree is near."""
    unwanted = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*")
    target = tmp_path_factory.mktemp("example") / adapter.folder
    return shutil.copytree(EXAMPLES / adapter.folder, target, ignore=unwanted)


@pytest.fixture(scope="module")
def python(wheel: Path, example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment with the wheel, what the suite needs, and the example."""
    return make_environment(tmp_path_factory.mktemp("adapter"), f"{wheel}[contract]", f"{example}[test]")


def test_it_passes_the_contract_suite_and_refuses_what_it_cant(
    adapter: Adapter, python: Path, example: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"

    run(python, "-m", "pytest", "-n4", "--contract-profile=quick", f"--contract-report={path}", cwd=example)

    report = json.loads(path.read_text("utf-8"))
    found = report["backends"][adapter.backend]
    assert report["profile"] == "quick"
    assert [check for check in found["checks"] if check["broken"]] == []
    assert {name for name, value in found["capabilities"].items() if value is False} == adapter.off
    refusals = [check for check in found["checks"] if check["refusal"]]
    assert {clause for check in refusals for clause in check["clauses"]} == adapter.refused


def test_its_url_works_from_one_process_to_another(adapter: Adapter, python: Path, tmp_path: Path) -> None:
    url = adapter.url.format(tmp_path)

    job_id = run(python, "-I", "-c", SUMS + PUBLISH, url, cwd=tmp_path).strip()
    consumed = run(python, "-I", "-c", SUMS + CONSUME, url, cwd=tmp_path).splitlines()

    assert consumed == [f"{job_id} 3.0", "Adder 0"]


def test_the_guide_quotes_the_examples_as_they_are() -> None:
    files = [*EXAMPLES.glob("*_adapter/src/*/*.py"), *EXAMPLES.glob("*_adapter/tests/*.py")]
    files += EXAMPLES.glob("*_adapter/pyproject.toml")
    texts = [unindented(path.read_text("utf-8")) for path in files]
    quotes = re.findall(
        r"^( *)```(?:python|toml|sql)\n(.*?)^\1```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )

    quotes = [quote for quote in quotes if not quote[1].startswith("# harness.py")]  # the page's own
    assert len(quotes) > 8
    for _, quote in quotes:
        assert any(unindented(quote) in text for text in texts), quote


def unindented(text: str) -> str:
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)
