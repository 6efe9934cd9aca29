"""How well a limit by a key fills its places: the jobs that run, beside those that are allowed to.

Each queue has a backlog of jobs whose keys are drawn at random, and handlers that wait. As many jobs may run
at once as there are places: the number of keys times the limit. No more can run than the consumers run at
once, and than the backend delivers without a limit, which is measured beside it. Without the rest of the
benchmark:

    .venv/bin/python -m benchmarks.scenarios.limits_by_key [--seconds 3] [--workers 1] [--quick] [memory|…]
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
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
    handler_s: float


CELLS = tuple(Cell(*values) for values in product((1, 8, 30), (1, 4), (8, 32, 1000), (0.05, 0.2)))
QUICK = (Cell(1, 4, 8, 0.2), Cell(8, 4, 32, 0.05), Cell(30, 1, 1000, 0.05))
"""Those that ``make bench`` measures."""


class Keyed(JobInput):
    key: int


class Waiter(Consumer[Keyed]):
    """Waits in its handler, and counts how many of its jobs run and have run."""

    handler_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0

    async def run(self, job: Job[Keyed]) -> None:
        await asyncio.sleep(self.handler_s)
        self.ended += 1


def used(url: str, schema: JobSchema[Keyed], cell: Cell, at_once: int, seconds: float, workers: int) -> float:
    """Return how many jobs run at once on average, by how many end in so many seconds.

    Args:
        url: The broker.
        schema: What the jobs are, with a limit or without.
        cell: Their keys, and how they run.
        at_once: How many are expected to run at most.
        seconds: How long to count.
        workers: How many consumers work.
    """
    kind = type("Work", (Waiter,), {"schema": schema, "concurrency": cell.concurrency})
    kind.handler_s = cell.handler_s
    with Orchestrator(url) as orchestrator, ExitStack() as stack:
        orchestrator.register(schema)
        publish(orchestrator, schema.name, cell, at_once, seconds)
        consumers = [stack.enter_context(kind()) for _ in range(workers)]
        for consumer in consumers:
            consumer.connect(orchestrator)
        threads = [Thread(target=consumer.consume) for consumer in consumers]
        for thread in threads:
            thread.start()
        try:
            rate = counted(consumers, seconds)
        finally:
            for consumer in consumers:
                consumer.stop()
            for thread in threads:
                thread.join()
            orchestrator.clean_queue(schema.name)
            orchestrator.delete_queue(schema.name)
    return rate * cell.handler_s


def publish(orchestrator: Orchestrator, queue: str, cell: Cell, at_once: int, seconds: float) -> None:
    draw = random.Random(7)
    count = min(MOST_JOBS, 200 + int(1.5 * at_once / cell.handler_s * (seconds + WARM_UP_S)))
    for _ in range(0, count, BATCH):
        orchestrator.publish_batch(queue, [Keyed(key=draw.randrange(cell.keys)) for _ in range(BATCH)])


def counted(consumers: list[Waiter], seconds: float) -> float:
    """Return how many jobs a second end, once the consumers are under way."""
    while not any(consumer.ended for consumer in consumers):
        time.sleep(0.01)
    time.sleep(WARM_UP_S)
    began, before = time.perf_counter(), sum(consumer.ended for consumer in consumers)
    time.sleep(seconds)
    return (sum(consumer.ended for consumer in consumers) - before) / (time.perf_counter() - began)


def table(
    url: str, cells: tuple[Cell, ...], seconds: float, workers: int
) -> Iterator[tuple[Cell, float, float]]:
    """Yield each cell with how many places its jobs used, and how many they were allowed to."""
    unlimited: dict[tuple[int, float], float] = {}
    for cell in cells:
        most = cell.concurrency * workers
        places = min(cell.keys * cell.limit, most)
        if (cell.concurrency, cell.handler_s) not in unlimited:
            schema = JobSchema(name(), Keyed)
            free = used(url, schema, cell, most, seconds, workers)
            unlimited[cell.concurrency, cell.handler_s] = free
        allowed = min(places, unlimited[cell.concurrency, cell.handler_s])
        schema = JobSchema(name(), Keyed, concurrency_limit=Limit(cell.limit, by="key"))
        yield cell, used(url, schema, cell, places, seconds, workers), allowed


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
                    where(broker, urls, folder), QUICK, max(LEAST_S, 4.0 * scale), 1
                ):
                    title = "{} keys, Limit({}), concurrency {}, {} s".format(*cell)
                    results.add("limits by key", broker, "this project", title, "of allowed", ran / allowed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", nargs="*", choices=[[], *BROKERS])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to count in each cell")
    parser.add_argument("--workers", type=int, default=1, help="how many consumers share each queue")
    parser.add_argument("--quick", action="store_true", help="three cells instead of 36")
    options = parser.parse_args()
    is_met = True
    show = partial(print, flush=True)
    show("broker     keys limit concurrency handler  allowed     ran")
    names = tuple(options.brokers) or BROKERS
    cells = QUICK if options.quick else CELLS
    with private_brokers((*names, "redis")) as urls, tempfile.TemporaryDirectory() as folder:
        for broker in names:
            url = where(broker, urls, folder)
            for cell, ran, allowed in table(url, cells, options.seconds, options.workers):
                missed = "" if ran >= AIM * allowed else f"  under {AIM}"
                is_met = is_met and not missed
                line = "{:10} {:4} {:5} {:11} {:5} s".format(broker, *cell)
                show(f"{line} {allowed:8.1f} {ran:7.1f}  {ran / allowed:.2f}{missed}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
