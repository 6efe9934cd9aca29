"""How CPU-bound handlers scale with ``mindtrace-jobs worker --processes``.

Each round publishes the same jobs, each a sum in pure Python, and times how long a worker of one process and
one of two take to drain them, in turn. The processes are up before the clock starts. What the machine
itself gives is measured in the same round, by the bare sums in one process and in two. Run:

    .venv/bin/python benchmarks/scenarios/processes.py [--jobs 200] [--rounds 5]

It starts a Redis of its own. On a machine that others use, each timing waits for a quiet moment; "cores" is
how much of the machine the processes got while the clock ran, and says how far the moment stayed quiet.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "testing"))

from brokers.redis_server import PrivateRedis  # noqa: E402
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator  # noqa: E402

COMMAND = str(Path(sysconfig.get_path("scripts"), "mindtrace-jobs"))
BARE = "import sys; sys.path.insert(0, {folder!r}); import processes; processes.wait_and_spin({jobs})"
QUIET = 0.9
LIMIT_S = 60.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Spins(JobInput):
    rounds: int = 200_000


class Spinner(Consumer):
    schema = JobSchema(name="spins", input=Spins)

    def run(self, job: Job[Spins]) -> None:
        spin(job.payload.rounds)


class Timing(NamedTuple):
    seconds: float
    cores: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s on {self.cores:.2f} cores"


def spin(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def wait_and_spin(jobs: int) -> None:
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(jobs):
        spin(Spins().rounds)
    print("done", flush=True)
    sys.stdin.readline()


def time_bare(processes: int, jobs: int) -> Timing:
    """Time ``jobs`` sums, shared between so many processes, without any queue."""
    code = BARE.format(folder=str(Path(__file__).parent), jobs=jobs // processes)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(processes)]
    for process in running:
        process.stdout.readline()

    def work() -> None:
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in running:
            process.stdout.readline()

    timing = timed(work, [process.pid for process in running])
    for process in running:
        process.communicate("\n")
    return timing


def time_worker(server: PrivateRedis, processes: int, jobs: int) -> Timing:
    """Time from the first publish until ``jobs`` jobs are done by a worker of so many processes."""
    words = ("worker", "processes:Spinner", "-p", str(processes), "--app-dir", str(Path(__file__).parent))
    with tempfile.NamedTemporaryFile("w+") as log, Orchestrator(server.url) as orchestrator:
        orchestrator.register(Spinner.schema)
        line = [COMMAND, *words, "--backend", server.url]
        worker = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=log)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")

        def work() -> None:
            orchestrator.publish_batch("spins", [Spins()] * jobs)
            wait_until(lambda: not any(live(orchestrator)))

        try:
            wait_until(lambda: Path(log.name).read_text("utf-8").count("working on") == processes)
            return timed(work, [int(pid) for pid in children.read_text("ascii").split()])
        finally:
            worker.terminate()
            worker.wait()


def timed(work: Callable[[], None], pids: list[int]) -> Timing:
    wait_for_quiet()
    cpu_s, began = sum(map(cpu_of, pids)), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return Timing(seconds, (sum(map(cpu_of, pids)) - cpu_s) / seconds)


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def wait_for_quiet() -> None:
    """Wait until the machine has been idle for a second, at most for the limit."""
    give_up = time.monotonic() + LIMIT_S
    idle, total = machine()
    while time.monotonic() < give_up:
        time.sleep(1)
        now_idle, now_total = machine()
        if (now_idle - idle) / max(1, now_total - total) >= QUIET:
            return
        idle, total = now_idle, now_total


def machine() -> tuple[int, int]:
    words = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
    ticks = [int(word) for word in words]
    return ticks[3] + ticks[4], sum(ticks)


def live(orchestrator: Orchestrator) -> tuple[int, int]:
    counts = orchestrator.counts("spins")
    return counts.waiting, counts.in_flight or 0


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 300
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit("it never came")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    speedups: dict[str, list[float]] = {"worker": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        server = PrivateRedis(Path(folder)).start()
        try:
            for number in range(1, options.rounds + 1):
                for what, measure in (
                    ("worker", lambda count: time_worker(server, count, options.jobs)),
                    ("bare", lambda count: time_bare(count, options.jobs)),
                ):
                    one, two = measure(1), measure(2)
                    speedups[what].append(one.seconds / two.seconds)
                    print(f"round {number}, {what}: {one}; {two}; {speedups[what][-1]:.2f} times", flush=True)
        finally:
            server.kill()
    for what, values in speedups.items():
        print(f"{what}: two processes are {median(values):.2f} times one (median), best {max(values):.2f}")


if __name__ == "__main__":
    main()
