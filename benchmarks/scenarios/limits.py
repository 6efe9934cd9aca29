"""What limits cost that aren't reached, and how well a rate is kept over a minute.

The throughput is that of one consumer, with a limit and beside it without, of jobs that do nothing and of
jobs that sleep for a millisecond. Their ratio is what to compare. The rate is counted over all jobs of two
consumers, on the clock of the coordination store. Without the rest of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.limits [memory|sqlite|redis|postgresql …]
"""

import sys
import tempfile
import threading
import time
from itertools import pairwise
from statistics import median

from mindtrace.jobs import Consumer, Job, JobSchema, Limit, Orchestrator, Rate

from ..brokers import BROKERS, private_brokers
from ..in_process import QUEUE, Pair, timed
from ..results import Results

KINDS = {"no-op": (20_000, 0.0), "1 ms": (2_000, 0.001)}
"""How many jobs run with each kind of limit, at scale 1, and for how long each sleeps."""
BATCH = 1_000
RATE = Rate(100, per_s=60)
MINUTE_S = 60.0
SCHEMAS = {
    "no limit": JobSchema(QUEUE, Pair),
    "concurrency limit": JobSchema(QUEUE, Pair, concurrency_limit=Limit(10_000)),
    "concurrency limit by a field": JobSchema(QUEUE, Pair, concurrency_limit=Limit(10_000, by="x")),
    "rate": JobSchema(QUEUE, Pair, rate=Rate(1_000_000, per_s=1, burst=10_000)),
}
"""By their names, limits that no consumer reaches."""


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float = 1.0) -> None:
    """Add jobs a second and the ratios of each round, and how a rate was kept."""
    for broker, url in urls.items():
        if broker == "rabbitmq":  # its limits are kept by the store of another
            continue
        with tempfile.TemporaryDirectory() as folder:
            where = f"sqlite:///{folder}/jobs.db" if broker == "sqlite" else url
            for _ in range(rounds):
                for kind, (jobs, seconds) in KINDS.items():
                    for name, value in ratios(where, int(jobs * scale), seconds).items():
                        results.add("limits", broker, "this project", f"{kind}, {name}", "of no limit", value)
            for name, value in keeping(where, MINUTE_S * scale).items():
                unit = "%" if name.endswith("error") else "turns"
                results.add("limits", broker, "this project", name, unit, value)


def ratios(url: str, jobs: int, seconds: float) -> dict[str, float]:
    """Return what part of its throughput a consumer has with each limit."""
    drained = {name: drain(url, schema, jobs, seconds) for name, schema in SCHEMAS.items()}
    plain = drained.pop("no limit")
    return {name: rate / plain for name, rate in drained.items()}


def drain(url: str, schema: JobSchema[Pair], jobs: int, seconds: float) -> float:
    """Return how many jobs a second one consumer runs that each sleep for so long."""

    class Work(Consumer[Pair]):
        def run(self, job: Job[Pair]) -> None:
            if seconds:
                time.sleep(seconds)

    Work.schema = schema
    with Orchestrator(url) as orchestrator, Work() as consumer:
        consumer.connect(orchestrator)
        for start in range(0, jobs, BATCH):
            orchestrator.publish_batch(
                QUEUE, [Pair(x=n % 10, y=0) for n in range(start, min(start + BATCH, jobs))]
            )
        return jobs / timed(consumer.consume_until_empty)


def keeping(url: str, seconds: float) -> dict[str, float]:
    """Return by how much a rate was missed, and how many turns' worth the largest burst was."""
    starts: list[float] = []
    count = max(2, round(seconds / RATE.interval_s) + 1)

    class Ticks(Consumer[Pair]):
        schema = JobSchema("ticks", Pair, rate=RATE)

        def run(self, job: Job[Pair]) -> None:
            starts.append(self.orchestrator.backend.coordination.now())

    def work(orchestrator: Orchestrator) -> None:
        with Ticks() as consumer:
            consumer.connect(orchestrator)
            consumer.consume_until_empty()

    with Orchestrator(url) as orchestrator:
        orchestrator.register(Ticks.schema)
        orchestrator.publish_batch("ticks", [Pair(x=0, y=0)] * count)
        threads = [threading.Thread(target=work, args=(orchestrator,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    starts.sort()
    wanted_s = (count - 1) * RATE.interval_s
    return {
        "rate, error": 100 * abs(starts[-1] - starts[0] - wanted_s) / wanted_s,
        "largest burst": burst(starts),
    }


def burst(starts: list[float]) -> float:
    """Return how many turns any window had more than the rate gave it."""
    largest = lead = 1.0
    for early, late in pairwise(starts):
        lead = max(1.0, lead + 1 - (late - early) / RATE.interval_s)
        largest = max(largest, lead)
    return largest


def main() -> None:
    names = tuple(sys.argv[1:]) or BROKERS
    with private_brokers(names) as urls:
        results = Results({}, 1)
        measure(results, urls, 3)
    for figure in results.figures:
        print(f"{figure.broker:10} {figure.name:36} {median(figure.values):12,.3f} {figure.unit}")


if __name__ == "__main__":
    main()
