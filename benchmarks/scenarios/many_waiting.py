"""A thousand coroutines that wait 50 ms each, in one consumer: on asyncio's own event loop, and on uvloop's.

At best they run 20,000 jobs a second. The rate is taken while the consumer is full: between the first and the
last tenth of the jobs. Without the rest of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.many_waiting [memory|sqlite|redis|rabbitmq …]
"""

import asyncio
import sys
import tempfile
import time
from typing import Any

from mindtrace.jobs import Consumer, Job, Orchestrator

from ..brokers import BROKERS, private_brokers
from ..in_process import PAIR, QUEUE, Idle, Pair, connect
from ..results import Results

CONCURRENCY = 1_000
WAIT_S = 0.05
JOBS = 60_000
"""How many jobs run, at scale 1."""
BATCH = 5_000


class Waiter(Consumer[Pair]):
    """Notes when its jobs end."""

    schema = Idle.schema
    concurrency = CONCURRENCY

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[float] = []

    async def run(self, job: Job[Pair]) -> None:
        await asyncio.sleep(WAIT_S)
        self.ended.append(time.perf_counter())

    @property
    def rate(self) -> float:
        """How many jobs ended in a second, but for the first and the last tenth."""
        first, last = len(self.ended) // 10, len(self.ended) * 9 // 10
        return (last - first) / (self.ended[last] - self.ended[first])


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float) -> None:
    """Add jobs a second, of each round and each event loop."""
    jobs = max(10 * CONCURRENCY, int(JOBS * scale))
    for broker, url in urls.items():
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                where = f"sqlite:///{folder}/jobs.db" if broker == "sqlite" else url
                for name, consumer in consumers().items():
                    rate = rate_of(consumer, where, jobs)
                    results.add("many waiting", broker, "this project", name, "jobs/s", rate)


def consumers() -> dict[str, type[Waiter]]:
    """Return a class for each event loop that is installed."""
    found: dict[str, type[Waiter]] = {"asyncio": Waiter}
    try:
        import uvloop
    except ImportError:
        return found

    class FastWaiter(Waiter):
        loop_factory = uvloop.new_event_loop

    return found | {"uvloop": FastWaiter}


def rate_of(consumer_class: type[Waiter], url: str, jobs: int) -> float:
    with connect(url) as orchestrator, consumer_class() as consumer:
        publish(orchestrator, jobs)
        consumer.connect(orchestrator)
        consumer.consume(jobs)
        return consumer.rate


def publish(orchestrator: Orchestrator, jobs: int) -> None:
    batch: list[Any] = [PAIR] * BATCH
    for _ in range(0, jobs, BATCH):
        orchestrator.publish_batch(QUEUE, batch)


def main() -> None:
    names = tuple(sys.argv[1:]) or tuple(BROKERS)
    with private_brokers(names) as urls:
        results = Results({}, 1)
        measure(results, urls, 1, 1.0)
    ideal = CONCURRENCY / WAIT_S
    for figure in results.figures:
        part = figure.median / ideal
        print(f"{figure.broker:9} {figure.name:8} {figure.median:10,.0f} jobs/s  {part:.2f} of {ideal:,.0f}")


if __name__ == "__main__":
    main()
