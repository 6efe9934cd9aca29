"""Redis, side by side in one run: this project, a bare Lua script as the limit, and taskiq on streams.

Run it as ``python benchmarks/against_redis.py [a Python that has taskiq-redis] [--backlog]``. Figures of
different runs or machines are not to be compared; ratios are.
"""

import json
import os
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from redis import Redis

from measuring import PAIR, SCHEMA, drain_application, latency_ms, messages, timed
from mindtrace.jobs import (
    Orchestrator,
    RedisClient,
)
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.ports import Ack, Message

URL = os.environ.get("MINDTRACE_JOBS_TEST_REDIS", "redis://localhost:6379/0")
NAMESPACE = "bench"
ROUNDS = 5
JOBS = 20_000
BATCH = 100
SLICE = 100
DRAIN_BATCHES = (100, 250, 500)
PEER = Path(__file__).parent / "peers" / "drain_taskiq.py"

# What any such queue must do at least: end the last batch, take ids and bodies, and remember the leases.
BARE_DRAIN = """
local done = {}
for i = 3, #ARGV do done[#done + 1] = ARGV[i] end
if #done > 0 then
  redis.call('ZREM', KEYS[3], unpack(done))
  redis.call('HDEL', KEYS[2], unpack(done))
end
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {{}, {}} end
local leases = {}
for i, id in ipairs(ids) do leases[2 * i - 1] = ARGV[2]; leases[2 * i] = id end
redis.call('ZADD', KEYS[3], unpack(leases))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""
BARE_PUBLISH = """
local ids = {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
redis.call('HSET', KEYS[2], unpack(ARGV))
redis.call('RPUSH', KEYS[1], unpack(ids))
return #ids
"""


class Bare:
    """The limit: two scripts and nothing else."""

    def __init__(self, server: Redis) -> None:
        self.server = server
        self.keys = [f"{{bare}}:{name}" for name in ("ready", "body", "run")]
        self.publish_sha = server.script_load(BARE_PUBLISH)
        self.drain_sha = server.script_load(BARE_DRAIN)

    def publish(self, messages: list[Message], batch: int) -> None:
        for start in range(0, len(messages), batch):
            words = [word for message in messages[start : start + batch] for word in message[:2]]
            self.server.evalsha(self.publish_sha, 3, *self.keys, *words)

    def drain(self, batch: int) -> None:
        done: list[bytes] = []
        while True:
            ids, _ = self.server.evalsha(self.drain_sha, 3, *self.keys, batch, 1, *done)  # type: ignore[misc]
            if not ids:
                return
            done = ids

    def clear(self) -> None:
        self.server.unlink(*self.keys)


def drain_port(backend: RedisClient, batch: int) -> None:
    """Drain through the port alone: what the adapter can do, without decoding or running anything."""
    with backend.open_consumer("bench") as consumer:
        deliveries = consumer.receive(batch, 1.0)
        while deliveries:
            deliveries = consumer.settle(
                [Ack(delivery.receipt) for delivery in deliveries], take=batch
            ).deliveries


def one_round(orchestrator: Orchestrator, backend: RedisClient, bare: Bare) -> dict[str, float]:
    figures: dict[str, float] = {}
    batch_of_jobs = messages(JOBS)

    def publish_port() -> None:
        for start in range(0, JOBS, BATCH):
            backend.publish("bench", batch_of_jobs[start : start + BATCH])

    for batch in DRAIN_BATCHES:
        figures["bare publish, batches of 100"] = JOBS / timed(lambda: bare.publish(batch_of_jobs, BATCH))
        figures[f"bare drain, batches of {batch}"] = JOBS / timed(partial(bare.drain, batch))
        bare.clear()
        figures["port publish, batches of 100"] = JOBS / timed(publish_port)
        figures[f"port drain, batches of {batch}"] = JOBS / timed(partial(drain_port, backend, batch))
    inputs = [PAIR] * JOBS
    figures["publish_batch, all at once"] = JOBS / timed(lambda: orchestrator.publish_batch("bench", inputs))
    figures["consume, adaptive"] = JOBS / timed(lambda: drain_application(orchestrator, None, JOBS))
    orchestrator.publish_batch("bench", inputs)
    figures["consume, prefetch 100"] = JOBS / timed(lambda: drain_application(orchestrator, 100, JOBS))

    singles = iter(messages(2000))
    sha = bare.server.script_load("return 1")
    names = QueueKeys(NAMESPACE, "bench").for_publish("0123456789abcdef")

    def bare_singles() -> None:
        for message in islice(singles, SLICE):
            bare.server.evalsha(sha, len(names), *names, "1", 600_000, *message[:2], 0, 0)

    def port_singles() -> None:
        for message in islice(singles, SLICE):
            backend.publish("bench", [message])

    def singles_of_all() -> None:
        for _ in range(SLICE):
            orchestrator.publish("bench", PAIR)

    # In short slices by turns: how long it takes to wake a process is half of a round trip, and changes.
    slices = [
        [SLICE / timed(work) for work in (bare_singles, port_singles, singles_of_all)] for _ in range(10)
    ]
    names_of_slices = ("bare EVALSHA, one by one", "port publish, one by one", "publish, one by one")
    figures |= dict(zip(names_of_slices, map(median, zip(*slices, strict=True)), strict=True))
    orchestrator.clean_queue("bench")
    latencies = latency_ms(orchestrator)
    figures["latency p50, ms"], figures["latency p99, ms"] = latencies[100], latencies[197]
    return figures


def taskiq(python: str) -> dict[str, float]:
    done = subprocess.run([python, PEER, URL, "5000"], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {
        "taskiq drain": found["drain_per_s"],
        "taskiq publish": found["publish_per_s"],
        "taskiq latency p50, ms": found["latency_p50_ms"],
        "taskiq latency p99, ms": found["latency_p99_ms"],
    }


def backlog(
    orchestrator: Orchestrator, backend: RedisClient, sizes: tuple[int, ...]
) -> dict[int, tuple[float, float]]:
    """The rates of a worker and of the port alone at draining 10,000 jobs, by how many wait."""

    def fill(size: int) -> None:
        while (waiting := orchestrator.count_queue_messages("bench")) < size:
            backend.publish("bench", messages(min(50_000, size - waiting)))

    def drain_part() -> None:
        with backend.open_consumer("bench") as consumer:
            deliveries, taken = consumer.receive(BATCH, 1.0), BATCH
            while taken < 10_000:
                acks = [Ack(delivery.receipt) for delivery in deliveries]
                deliveries = consumer.settle(acks, take=BATCH).deliveries
                taken += len(deliveries)
            consumer.settle([Ack(delivery.receipt) for delivery in deliveries])

    rates: dict[int, tuple[float, float]] = {}
    for size in sizes:
        workers, ports = [], []
        for _ in range(ROUNDS):
            fill(size)
            workers.append(10_000 / timed(lambda: drain_application(orchestrator, None, 10_000)))
            fill(size)
            ports.append(10_000 / timed(drain_part))
        rates[size] = median(workers), median(ports)
    return rates


def memory_per_job(orchestrator: Orchestrator, backend: RedisClient, server: Redis) -> float:
    """Bytes per waiting job besides its body, by MEMORY USAGE."""
    orchestrator.clean_queue("bench")
    waiting = messages(10_000)
    backend.publish("bench", waiting)
    keys = QueueKeys(NAMESPACE, "bench")
    used = sum(server.memory_usage(key, samples=0) or 0 for key in (keys.body, keys.ready, keys.state))
    return (used - sum(len(message.body) for message in waiting)) / len(waiting)


def main() -> int:
    python = sys.argv[1] if len(sys.argv) > 1 else None
    server = Redis.from_url(URL)
    backend = RedisClient.from_url(URL + f"?namespace={NAMESPACE}")
    orchestrator = Orchestrator(backend)
    orchestrator.register(SCHEMA)
    orchestrator.clean_queue("bench")
    bare = Bare(server)
    rounds: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        figures = one_round(orchestrator, backend, bare) | (taskiq(python) if python else {})
        rounds.append(figures)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    medians = {name: median(found[name] for found in rounds) for name in rounds[0]}
    for name, value in medians.items():
        print(f"{name:32} {value:12,.2f}" if "ms" in name else f"{name:32} {value:12,.0f}/s")

    def ratio(name: str, of: str) -> None:
        print(f"{name} / {of}: {median(found[name] / found[of] for found in rounds):.2f}")

    print()
    for batch in DRAIN_BATCHES:
        ratio(f"port drain, batches of {batch}", f"bare drain, batches of {batch}")
    ratio("port publish, batches of 100", "bare publish, batches of 100")
    ratio("port publish, one by one", "bare EVALSHA, one by one")
    ratio("publish, one by one", "bare EVALSHA, one by one")
    if python:
        ratio("consume, adaptive", "taskiq drain")
        ratio("latency p50, ms", "taskiq latency p50, ms")
    print(f"memory of a waiting job: its body and {memory_per_job(orchestrator, backend, server):.0f} bytes")
    orchestrator.clean_queue("bench")
    if "--backlog" in sys.argv:
        rates = backlog(orchestrator, backend, (10_000, 1_000_000))
        for size, (worker, port) in rates.items():
            print(f"at a backlog of {size:>9,}: a worker drains {worker:,.0f}/s, the port {port:,.0f}/s")
    orchestrator.delete_queue("bench")
    backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
