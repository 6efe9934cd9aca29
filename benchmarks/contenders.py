"""The contenders, and how each is run: one process that publishes, and one worker."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .job import Record
from .process_usage import cpu_s, memory_mib
from .results import Subject

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "build" / "bench"
LIMIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A library on a broker, and how many jobs keep it busy for about a second."""

    broker: str
    peer: str
    environment: str | None
    singles: int
    batch: int
    drained: int
    others: int = 300
    """How many jobs of a millisecond, and how many of a millisecond of a processor."""
    queue_type: str = ""
    """The kind of queue, where that is to be chosen."""
    concurrency: int = 1
    """How many of our own jobs run at once; the peers choose that themselves."""

    @property
    def name(self) -> str:
        at_once = f"{self.concurrency}-at-once" if self.concurrency > 1 else ""
        return " ".join(filter(None, (self.broker, self.peer, self.queue_type, at_once)))

    @property
    def python(self) -> str:
        return python_of(self.environment)

    @property
    def installed(self) -> bool:
        return Path(self.python).exists()


CONTENDERS = (
    Contender("memory", "ours", None, 3_000, 20_000, 20_000),
    Contender("memory", "ours", None, 3_000, 20_000, 20_000, 4_000, concurrency=100),
    Contender("memory", "incumbent", "incumbent", 100, 100, 200, 30),
    Contender("sqlite", "ours", None, 1_000, 10_000, 10_000),
    Contender("sqlite", "ours", None, 1_000, 10_000, 10_000, 4_000, concurrency=100),
    Contender("sqlite", "huey", "huey", 1_000, 0, 2_000),
    Contender("redis", "ours", None, 2_000, 20_000, 20_000),
    Contender("redis", "ours", None, 2_000, 20_000, 20_000, 4_000, concurrency=100),
    Contender("redis", "bare_redis", None, 2_000, 20_000, 20_000),
    Contender("redis", "incumbent", "incumbent", 2_000, 5_000, 10_000),
    Contender("redis", "rq", "rq", 500, 1_000, 1_000),
    Contender("redis", "huey", "huey", 2_000, 0, 4_000),
    Contender("redis", "dramatiq", "dramatiq", 1_500, 0, 2_000),
    Contender("redis", "celery", "celery", 1_000, 0, 1_500),
    Contender("redis", "arq", "arq", 1_000, 0, 2_000, 4_000),
    Contender("redis", "saq", "saq", 1_500, 0, 2_000, 4_000),
    Contender("redis", "taskiq", "taskiq", 1_500, 0, 4_000, 4_000),
    Contender("redis", "streaq", "streaq", 1_500, 5_000, 5_000, 4_000),
    Contender("rabbitmq", "ours", None, 1_000, 20_000, 20_000),
    Contender("rabbitmq", "ours", None, 1_000, 20_000, 20_000, queue_type="priority"),
    Contender("rabbitmq", "ours", None, 1_000, 20_000, 20_000, 4_000, concurrency=100),
    Contender("rabbitmq", "bare_rabbitmq", None, 1_000, 20_000, 20_000),
    Contender("rabbitmq", "incumbent", "incumbent", 200, 300, 2_000),
    Contender("rabbitmq", "dramatiq", "dramatiq", 1_000, 0, 4_000),
    Contender("rabbitmq", "dramatiq", "dramatiq", 1_000, 0, 4_000, queue_type="quorum"),
    Contender("rabbitmq", "celery", "celery", 1_000, 0, 3_000),
    Contender("rabbitmq", "taskiq", "taskiq", 1_000, 0, 4_000, 4_000),
    Contender("postgresql", "ours", None, 1_000, 20_000, 20_000),
    Contender("postgresql", "ours", None, 1_000, 20_000, 20_000, 4_000, concurrency=100),
    Contender("postgresql", "procrastinate", "procrastinate", 500, 2_000, 1_000),
    Contender("postgresql", "pgqueuer", "pgqueuer", 1_000, 10_000, 10_000, 4_000),
    Contender("postgresql", "saq", "saq", 500, 0, 1_000, 1_000),
    Contender("postgresql", "oban", "oban", 500, 5_000, 5_000, 4_000),
)


class Running:
    """A running contender on a queue of its own: its publisher, and its worker once that is started."""

    def __init__(self, contender: Contender, url: str, queue: str, folder: Path) -> None:
        self._contender = contender
        self._folder = folder
        self._path = folder / "record"
        self.record = Record(self._path)
        self._environment = variables(
            folder,
            BENCH_BROKER=contender.broker,
            BENCH_URL=url,
            BENCH_QUEUE=queue,
            BENCH_QUEUE_TYPE=contender.queue_type,
            BENCH_CONCURRENCY=str(contender.concurrency),
            BENCH_RECORD=str(self._path),
        )
        self._log = (folder / "log").open("wb")
        self._publisher = self._start(
            [contender.python, "-m", "benchmarks.publisher_process", contender.peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._worker: subprocess.Popen[bytes] | None = None
        self.traits = self._answer()
        about = self.traits["about"]
        self.subject = Subject(
            contender.broker,
            about["library"],
            about["guarantee"],
            about["settings"],
            about["versions"],
            about["python"],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._worker, self._publisher):
            if process is not None:
                end(process)
        self._log.close()

    def ask(self, step: str, **arguments: Any) -> Any:
        """Have the publisher do a step."""
        self._publisher.stdin.write(json.dumps({"do": step} | arguments).encode() + b"\n")
        self._publisher.stdin.flush()
        return self._answer()

    def start_worker(self) -> float:
        """Start the worker, and return when."""
        began = time.perf_counter()
        if self.traits["in_process"]:
            self.ask("work")
        else:
            words = self.traits["worker"]
            words = words or [self._contender.python, "-m", "benchmarks.worker_process", self._contender.peer]
            self._worker = self._start(words, stdin=subprocess.DEVNULL, stdout=self._log)
        return began

    def wait_for(self, kind: str, number: int, *, after: int = 0) -> list[float]:
        """Wait until so many jobs of a kind have begun, and return when each did but for the first ones."""
        give_up = time.monotonic() + LIMIT_S
        while not self.record.moment(kind, number):
            if time.monotonic() > give_up or self._publisher.poll() is not None:
                raise RuntimeError(f"{self.subject.library}: the last {kind} never began: {self._told()}")
            if self._worker is not None and self._worker.poll() is not None:
                raise RuntimeError(f"{self.subject.library}: its worker ended: {self._told()}")
            time.sleep(0.002)
        return self.record.moments(kind, number, after=after)

    @contextmanager
    def stopped_worker(self) -> Iterator[None]:
        """Stop the worker's processes, and let them go on."""
        os.killpg(self._worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._worker.pid, signal.SIGCONT)

    @property
    def worker_memory_mib(self) -> float:
        return memory_mib(self._worker.pid)

    def worker_cpu(self, seconds: float) -> float:
        """The share of a processor that the worker uses now."""
        before = cpu_s(self._worker.pid)
        time.sleep(seconds)
        return (cpu_s(self._worker.pid) - before) / seconds

    def _start(self, words: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=self._folder,
            env=self._environment,
            stderr=self._log,
            start_new_session=True,
            **pipes,
        )

    def _answer(self) -> Any:
        line = self._publisher.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._contender.peer} on {self._contender.broker}: {self._told()}")
        return json.loads(line)

    def _told(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")[-3000:]


@contextmanager
def running(contender: Contender, url: str, queue: str) -> Iterator[Running]:
    """Run a contender, and end it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if contender.broker in ("memory", "sqlite") and contender.peer != "ours":
            url = str(Path(folder) / "jobs.db")
        elif contender.broker == "sqlite":
            url = f"sqlite:///{folder}/jobs.db"
        with Running(contender, url, queue, Path(folder)) as one:
            yield one


def python_of(environment: str | None) -> str:
    """The interpreter of an environment, by its name or its path; None for that of this process."""
    return sys.executable if environment is None else str(ENVIRONMENTS / environment / "bin/python")


def variables(folder: Path, **place: str) -> dict[str, str]:
    """Make a folder from which a process imports the benchmark, and return its environment's variables.

    It must import nothing else of this tree, which has the incumbent's name.
    """
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    return os.environ | place | {"PYTHONPATH": str(folder)}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those of its session."""
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
