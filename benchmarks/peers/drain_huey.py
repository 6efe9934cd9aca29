"""Rates, latency and idle CPU of Huey on a SQLite file, with its own settings; prints a JSON object.

Its consumer runs in this process, with one worker thread, so that both sides have one clock. Huey has no call
that publishes several tasks, and removes a task from the file before it runs it: at most once.
"""

import json
import sys
import time

from huey import SqliteHuey

huey = SqliteHuey("bench", filename=sys.argv[1])
jobs = int(sys.argv[2])
seen: list[float] = []


@huey.task()
def work(x: float, y: float) -> None:
    seen.append(time.perf_counter())


def drained(count: int) -> None:
    while len(seen) < count:
        time.sleep(0.001)


def main() -> None:
    began = time.perf_counter()
    for _ in range(jobs):
        work(1.5, 2.5)
    publish_s = time.perf_counter() - began

    consumer = huey.create_consumer(workers=1, periodic=False)
    began = time.perf_counter()
    consumer.start()
    drained(jobs)
    drain_s = time.perf_counter() - began

    latencies = []
    for number in range(200):
        time.sleep(0.01)
        sent = time.perf_counter()
        work(1.5, 2.5)
        drained(jobs + number + 1)
        latencies.append(seen[-1] - sent)
    latencies.sort()
    cpu_s = time.process_time()
    time.sleep(5)
    idle = (time.process_time() - cpu_s) / 5
    consumer.stop(graceful=True)
    print(
        json.dumps(
            {
                "publish_per_s": jobs / publish_s,
                "drain_per_s": jobs / drain_s,
                "latency_p50_ms": latencies[100] * 1000,
                "latency_p99_ms": latencies[197] * 1000,
                "idle_cpu": idle,
            }
        )
    )


main()
