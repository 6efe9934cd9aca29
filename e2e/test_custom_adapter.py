"""An adapter from outside, a distribution of its own: under the contract suite, and found by its URL."""

import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest

from .virtual_environments import ROOT, make_environment, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

EXAMPLE = ROOT / "examples" / "custom_adapter"
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


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder, where nothing of this tree is near."""
    unwanted = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*")
    return shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / EXAMPLE.name, ignore=unwanted)


@pytest.fixture(scope="module")
def python(wheel: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment with the wheel, what the suite needs, and the example."""
    return make_environment(tmp_path_factory.mktemp("adapter"), f"{wheel}[contract]", f"{adapter}[test]")


def test_it_passes_the_contract_suite_and_refuses_what_it_cant(
    python: Path, adapter: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"

    run(python, "-m", "pytest", "-n4", "--contract-profile=quick", f"--contract-report={path}", cwd=adapter)

    report = json.loads(path.read_text("utf-8"))
    spool = report["backends"]["Spool"]
    declared = {name for name, value in spool["capabilities"].items() if value is False}
    refused = {clause for check in spool["checks"] if check["refusal"] for clause in check["clauses"]}
    assert report["profile"] == "quick"
    assert [check for check in spool["checks"] if check["broken"]] == []
    assert declared == {"stack", "priority", "dedupe", "results"}
    assert refused == {"ADM-3", "ORD-2", "ORD-3", "ORD-4", "PUB-5", "RES-1", "RES-2"}


def test_its_url_works_from_one_process_to_another(python: Path, tmp_path: Path) -> None:
    url = f"spool://{tmp_path / 'spool'}"

    job_id = run(python, "-I", "-c", SUMS + PUBLISH, url, cwd=tmp_path).strip()
    consumed = run(python, "-I", "-c", SUMS + CONSUME, url, cwd=tmp_path).splitlines()

    assert consumed == [f"{job_id} 3.0", "Adder 0"]


def test_the_guide_quotes_the_example_as_it_is() -> None:
    files = [*EXAMPLE.glob("src/*/*.py"), *EXAMPLE.glob("tests/*.py"), EXAMPLE / "pyproject.toml"]
    texts = [path.read_text("utf-8") for path in files]
    quotes = re.findall(
        r"^( *)```(?:python|toml)\n(.*?)^\1```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )

    quotes = [quote for quote in quotes if not quote[1].startswith("# harness.py")]  # the page's own
    assert len(quotes) == 3
    for _, quote in quotes:
        assert any(textwrap.dedent(quote) in text for text in texts), quote
