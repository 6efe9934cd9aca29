"""The examples run: the project's own, and the description's word for word."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

MODELS = """
from mindtrace.jobs import JobInput, JobOutput

class MyJobInput(JobInput):
    x: float = 0.0

class MyJobOutput(JobOutput):
    total: float = 0.0
"""

EXAMPLE_1 = """
from mindtrace.jobs import Orchestrator, LocalClient, Consumer, JobSchema, JobInput

local_backend = LocalClient()
orchestrator = Orchestrator(local_backend)

schema = JobSchema(name="my_jobs", input=MyJobInput(), output=MyJobOutput())
orchestrator.register(schema)

class MyConsumer(Consumer):
    def run(self, job):
        print(f"Processing job {job.id} with LOCAL backend")

consumer = MyConsumer("my_jobs")
consumer.connect(orchestrator)
consumer.consume(num_messages=5)
"""

AND_NOW_WITH_JOBS = """
ids = [orchestrator.publish("my_jobs", MyJobInput(x=n)) for n in range(5)]
consumer.consume(num_messages=5)
print(*ids)
"""

EXAMPLE_4 = """
def test_all_backends():
    backends = [
        ("Local", LocalClient()),
    ]

    for name, backend in backends:
        try:
            orchestrator = Orchestrator(backend)
            orchestrator.register(schema)

            consumer = MyConsumer("my_jobs")
            consumer.connect(orchestrator)
            print(f"✓ {name} backend: {type(consumer.consumer_backend).__name__}")

            consumer.consume(num_messages=1)
        except Exception as e:
            print(f"✗ {name} backend failed: {e}")

test_all_backends()
"""

SCRIPTS = {
    "example 1": MODELS + EXAMPLE_1 + AND_NOW_WITH_JOBS,
    "example 4": MODELS + EXAMPLE_1.replace("consumer.consume(num_messages=5)", "") + EXAMPLE_4,
}


def start(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "utf8", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output.splitlines()


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The description's examples, at the same time: each waits out a poll of five seconds."""
    processes = {name: start("-c", script) for name, script in SCRIPTS.items()}
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


def test_the_first_example_works_word_for_word(running: dict[str, subprocess.Popen[str]]) -> None:
    """With its two models defined; nothing was published in it, so jobs follow, and each is processed."""
    *processed, ids = finish(running["example 1"])

    assert processed == [f"Processing job {job_id} with LOCAL backend" for job_id in ids.split()]
    assert len(processed) == 5


def test_the_local_part_of_the_fourth_example_works_word_for_word(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    """It names the consumer backend that was chosen."""
    assert finish(running["example 4"]) == ["✓ Local backend: LocalConsumerBackend"]


@pytest.mark.parametrize(
    "example", sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("from_0x/*.py")]), ids=lambda path: path.name
)
def test_an_example_of_the_project_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a broker, too; what isn't there is a line, not a traceback."""
    monkeypatch.chdir(tmp_path)
    output = finish(start(example))

    assert output
    assert not [line for line in output if "Traceback" in line]


WITHOUT_SERVER = """
import sys

sys.path.insert(0, sys.argv[1])
import example_new_consumer as demo
from mindtrace.jobs import RedisClient

demo.BACKENDS[2:] = [("Redis", lambda: RedisClient(port=1, retry_timeout_s=0.1))]
sys.exit(demo.main())
"""


def test_the_demo_says_how_to_get_a_server_that_is_not_there() -> None:
    """Once, and without a line of log; what needs no server did its work, so it succeeds."""
    local, sqlite, redis, how = finish(start("-c", WITHOUT_SERVER, EXAMPLES))

    assert [line[:9] for line in (local, sqlite)] == ["✓ Local: ", "✓ SQLite:"]
    assert redis.startswith("✗ Redis: not there - no Redis answers at localhost:1 (")
    assert how.startswith("  To get one: docker run ")


def test_the_demo_succeeds_on_the_local_backend() -> None:
    """In the words of the description."""
    assert (
        finish(start(EXAMPLES / "example_new_consumer.py"))[0]
        == "✓ Local: success - Created LocalConsumerBackend"
    )
