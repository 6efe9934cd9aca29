"""How well a limit by a key fills its places: the jobs that run, beside those that are allowed to.

Each queue has a backlog of jobs whose keys are drawn at random, and handlers that wait. As many jobs may run
at once as there are places: the number of keys times the limit. No more can run than the consumers run at
once, and than the backend delivers without a limit, which is measured beside it. Each worker is a process; on
memory it is a thread. Without the rest of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.limits_by_key [--seconds 3] [--cells all] [memory|…]
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, MutableSequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from multiprocessing.sharedctypes import RawArray
from threading import Thread
from typing import NamedTuple
from uuid import uuid4

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Limit, Orchestrator

from ..brokers import BROKERS, private_brokers
from ..results import Results

WARM_UP_S = 0.5
LEAST_S = 0.5
"""How long to count at least: several of the longest handlers end meanwhile."""
MOST_JOBS = 60_000
BATCH = 1_000
AIM = 0.9


class Cell(NamedTuple):
    """One line of the table."""

    keys: int
    limit: int
    concurrency: int
    """How many jobs a worker runs at once."""
    handler_s: float
    workers: int = 1


ONE_WORKER = tuple(Cell(*values) for values in product((1, 8, 30), (1, 4), (8, 32, 1000), (0.05, 0.2)))
SINGLE_JOBS = tuple(Cell(*values) for values in product((1, 3, 8, 30), (1, 4), (1,), (0.2,), (4, 12, 32)))
"""Workers of one job at a time, often more of them than places."""
QUICK = (Cell(1, 4, 8, 0.2), Cell(8, 4, 32, 0.05), Cell(30, 1, 1000, 0.05), Cell(3, 4, 1, 0.2, 12))
"""Those that ``make bench`` measures."""
CELLS = {
    "all": ONE_WORKER + SINGLE_JOBS,
    "one-worker": ONE_WORKER,
    "single-jobs": SINGLE_JOBS,
    "quick": QUICK,
}


class Keyed(JobInput):
    key: int


Tally = MutableSequence[int]
"""How many jobs of each worker have ended."""


class Waiter(Consumer[Keyed]):
    """Waits in its handler, and counts which of its jobs have ended."""

    handler_s = 0.0

    def __init__(self, ended: Tally, number: int) -> None:
        super().__init__()
        self._ended, self._number = ended, number

    async def run(self, job: Job[Keyed]) -> None:
        await asyncio.sleep(self.handler_s)
        self._ended[self._number] += 1


def used(url: str, schema: JobSchema[Keyed], cell: Cell, at_once: int, seconds: float) -> float:
    """Return how many jobs run at once on average, by how many end in so many seconds.

    Args:
        url: The broker.
        schema: What the jobs are, with a limit or without.
        cell: Their keys, and how they run.
        at_once: How many are expected to run at most.
        seconds: How long to count.
    """
    kind = type("Work", (Waiter,), {"schema": schema, "concurrency": cell.concurrency})
    kind.handler_s = cell.handler_s
    ended: Tally = RawArray("Q", cell.workers)
    with Orchestrator(url) as orchestrator:
        orchestrator.register(schema)
        publish(orchestrator, schema.name, cell, at_once, seconds)
        is_memory = url == "memory://"
        at_work = in_threads(orchestrator, kind, ended) if is_memory else in_processes(url, kind, ended)
        with at_work:
            rate = counted(ended, at_once, seconds)
        orchestrator.clean_queue(schema.name)
        orchestrator.delete_queue(schema.name)
    return rate * cell.handler_s


@contextmanager
def in_threads(orchestrator: Orchestrator, kind: type[Waiter], ended: Tally) -> Iterator[None]:
    """Have a thread work for each place of the tally."""
    with ExitStack() as stack:
        consumers = [stack.enter_context(kind(ended, number)) for number in range(len(ended))]
        for consumer in consumers:
            consumer.connect(orchestrator)
        threads = [Thread(target=consumer.consume) for consumer in consumers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for consumer in consumers:
                consumer.stop()
            for thread in threads:
                thread.join()


@contextmanager
def in_processes(url: str, kind: type[Waiter], ended: Tally) -> Iterator[None]:
    """Have a process work for each place of the tally."""

    def work(number: int) -> None:
        with Orchestrator(url) as orchestrator, kind(ended, number) as consumer:
            consumer.connect(orchestrator)
            consumer.consume()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(len(ended))]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def publish(orchestrator: Orchestrator, queue: str, cell: Cell, at_once: int, seconds: float) -> None:
    draw = random.Random(7)
    count = min(MOST_JOBS, 200 + int(1.5 * at_once / cell.handler_s * (seconds + WARM_UP_S)))
    for _ in range(0, count, BATCH):
        orchestrator.publish_batch(queue, [Keyed(key=draw.randrange(cell.keys)) for _ in range(BATCH)])


def counted(ended: Tally, at_once: int, seconds: float) -> float:
    """Return how many jobs a second end, once as many have ended as may run at once."""
    while sum(ended) < at_once:
        time.sleep(0.01)
    first = time.perf_counter()
    time.sleep(WARM_UP_S)
    began, before = time.perf_counter(), sum(ended)
    time.sleep(seconds)
    after = sum(ended)
    if after == before:  # on a machine that stood still, all of them may have ended before
        began, before = first, 0
    return (after - before) / (time.perf_counter() - began)


def table(url: str, cells: tuple[Cell, ...], seconds: float) -> Iterator[tuple[Cell, float, float]]:
    """Yield each cell with how many places its jobs used, and how many they were allowed to."""
    unlimited: dict[tuple[int, float, int], float] = {}
    for cell in cells:
        most = cell.concurrency * cell.workers
        places = min(cell.keys * cell.limit, most)
        crew = cell.concurrency, cell.handler_s, cell.workers
        if crew not in unlimited:
            unlimited[crew] = used(url, JobSchema(name(), Keyed), cell, most, seconds)
        allowed = min(places, unlimited[crew])
        schema = JobSchema(name(), Keyed, concurrency_limit=Limit(cell.limit, by="key"))
        yield cell, used(url, schema, cell, places, seconds), allowed


def name() -> str:
    return f"bench-{uuid4().hex[:8]}"


def where(broker: str, urls: dict[str, str], folder: str) -> str:
    """Return the URL of a broker; the limits of RabbitMQ are kept by Redis."""
    if broker == "sqlite":
        return f"sqlite:///{folder}/jobs.db"
    return f"{urls[broker]}?store={urls['redis']}" if broker == "rabbitmq" else urls[broker]


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float) -> None:
    """Add the part of its places that a limit by a key uses, of each round."""
    for broker in urls:
        if broker == "rabbitmq" and "redis" not in urls:  # which keeps its limits
            continue
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                for cell, ran, allowed in table(
                    where(broker, urls, folder), QUICK, max(LEAST_S, 4.0 * scale)
                ):
                    title = "{} keys, Limit({}), concurrency {}, {} s".format(*cell)
                    title += f", {cell.workers} workers" if cell.workers > 1 else ""
                    results.add("limits by key", broker, "this project", title, "of allowed", ran / allowed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", nargs="*", choices=[[], *BROKERS])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to count in each cell")
    parser.add_argument("--cells", choices=CELLS, default="all", help="which of them to measure")
    options = parser.parse_args()
    is_met = True
    show = partial(print, flush=True)
    show("broker     keys limit concurrency handler workers  allowed     ran")
    names = tuple(options.brokers) or BROKERS
    with private_brokers((*names, "redis")) as urls, tempfile.TemporaryDirectory() as folder:
        for broker in names:
            url = where(broker, urls, folder)
            for cell, ran, allowed in table(url, CELLS[options.cells], options.seconds):
                missed = "" if ran >= AIM * allowed else f"  under {AIM}"
                is_met = is_met and not missed
                line = "{:10} {:4} {:5} {:11} {:5} s {:7}".format(broker, *cell)
                show(f"{line} {allowed:8.1f} {ran:7.1f}  {ran / allowed:.2f}{missed}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
