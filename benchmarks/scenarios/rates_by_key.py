"""How exactly a rate by a key is kept: how far the starts of each key are from it, over all its starts.

Each key has more jobs than may start. Its rate is counted from its first start to its last. Without the rest
of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.rates_by_key [--keys 1000] [--per-s 10] [--turns 5] [memory|…]
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from threading import Thread
from typing import NamedTuple

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, Rate

from ..brokers import BROKERS, private_brokers
from .limits_by_key import name, where

BATCH = 1_000
CONCURRENCY = 64
AIM = 0.02


class Keyed(JobInput):
    key: int


class Noter(Consumer[Keyed]):
    """Notes when the job of which key started."""

    concurrency = CONCURRENCY
    starts: dict[int, list[float]]

    async def run(self, job: Job[Keyed]) -> None:
        self.starts[job.payload.key].append(time.perf_counter())


class Errors(NamedTuple):
    """How far the rates of keys are from the one that they have, as parts of it."""

    median: float
    ninety_ninth: float
    largest: float
    early: float
    """By how much the fastest key is too fast."""


def starts_of(url: str, keys: int, per_s: float, turns: int, workers: int) -> Mapping[int, list[float]]:
    """Return when the jobs of each key started, of which one starts in ``per_s`` seconds."""
    schema = JobSchema(name(), Keyed, rate=Rate(1, per_s=per_s, by="key"))
    starts: dict[int, list[float]] = defaultdict(list)
    kind = type("Work", (Noter,), {"schema": schema, "starts": starts})
    with Orchestrator(url) as orchestrator, ExitStack() as stack:
        orchestrator.register(schema)
        jobs = [Keyed(key=number % keys) for number in range(keys * (turns + 1))]
        for first in range(0, len(jobs), BATCH):
            orchestrator.publish_batch(schema.name, jobs[first : first + BATCH])
        consumers = [stack.enter_context(kind()) for _ in range(workers)]
        for consumer in consumers:
            consumer.connect(orchestrator)
        threads = [Thread(target=consumer.consume) for consumer in consumers]
        for thread in threads:
            thread.start()
        while sum(map(len, list(starts.values()))) < len(jobs):
            time.sleep(0.1)
        for consumer in consumers:
            consumer.stop()
        for thread in threads:
            thread.join()
        orchestrator.delete_queue(schema.name)
    return starts


def errors_of(starts: Mapping[int, list[float]], per_s: float) -> Errors:
    """Compare how long all starts of each key took with how long they should take."""
    rates = [per_s * (len(each) - 1) / (max(each) - min(each)) for each in starts.values()]
    errors = sorted(abs(rate - 1) for rate in rates)
    return Errors(errors[len(errors) // 2], errors[int(len(errors) * 0.99)], errors[-1], max(rates) - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", nargs="*", choices=[[], *BROKERS])
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--per-s", type=float, default=10.0, help="in how many seconds a job of a key starts")
    parser.add_argument("--turns", type=int, default=5, help="how many jobs of a key start after its first")
    parser.add_argument("--workers", type=int, default=1, help="how many consumers share the queue")
    options = parser.parse_args()
    names, is_met = tuple(options.brokers) or BROKERS, True
    print("broker       median  99th  largest  too fast, of keys", flush=True)
    with private_brokers((*names, "redis")) as urls, tempfile.TemporaryDirectory() as folder:
        for broker in names:
            url = where(broker, urls, folder)
            starts = starts_of(url, options.keys, options.per_s, options.turns, options.workers)
            errors = errors_of(starts, options.per_s)
            is_met = is_met and errors.largest <= AIM
            print("{:10} {:8.2%} {:5.2%} {:8.2%} {:9.2%}".format(broker, *errors), flush=True)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
