"""A SQLite file, side by side in one run: this project, and Huey's SqliteHuey.

Run it as ``python benchmarks/against_huey.py a Python that has huey [a folder]``; the files are made in the
folder, or where temporary files go. Figures of different runs or disks are not to be compared; ratios are.
"""

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from measuring import PAIR, SCHEMA, Idle, drain_application, latency_ms, timed
from mindtrace.jobs import Orchestrator, SQLiteClient
from mindtrace.jobs.domain import Queue, new_job_id
from mindtrace.jobs.ports import Ack, ConsumerBackend, Message

ROUNDS = 5
JOBS = 20_000
PEER_JOBS = 3_000
SINGLES = 2_000
BATCH = 100
BACKLOGS = (10_000, 1_000_000)
PEER = Path(__file__).parent / "peers" / "drain_huey.py"


BODY = b'{"v":1,"schema":"bench","payload":{"x":1.5,"y":2.5},"created_at":"2026-01-01T00:00:00Z"}'


def idle_cpu(orchestrator: Orchestrator, seconds: float = 5.0) -> float:
    """Which part of a processor a consumer takes that waits."""
    with Idle("bench") as consumer:
        consumer.connect(orchestrator)
        waiting = threading.Thread(target=consumer.consume)
        waiting.start()
        time.sleep(0.5)
        before = resource.getrusage(resource.RUSAGE_SELF)
        time.sleep(seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        consumer.stop()
        waiting.join()
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / seconds


def one_round(orchestrator: Orchestrator) -> dict[str, float]:
    inputs = [PAIR] * JOBS
    figures: dict[str, float] = {}
    figures["publish_batch, all at once"] = JOBS / timed(lambda: orchestrator.publish_batch("bench", inputs))
    figures["consume, adaptive"] = JOBS / timed(lambda: drain_application(orchestrator, None, JOBS))
    figures["publish, one by one"] = SINGLES / timed(
        lambda: [orchestrator.publish("bench", PAIR) for _ in range(SINGLES)]
    )
    orchestrator.clean_queue("bench")
    latencies = latency_ms(orchestrator)
    return figures | {"latency p50, ms": latencies[100], "latency p99, ms": latencies[197]}


def huey(python: str, file: Path) -> dict[str, float]:
    done = subprocess.run([python, PEER, file, str(PEER_JOBS)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {
        "Huey publish": found["publish_per_s"],
        "Huey drain": found["drain_per_s"],
        "Huey latency p50, ms": found["latency_p50_ms"],
        "Huey latency p99, ms": found["latency_p99_ms"],
        "Huey idle CPU, %": found["idle_cpu"] * 100,
    }


def take_and_ack(consumer: ConsumerBackend, count: int) -> int:
    taken = 0
    deliveries = consumer.receive(BATCH, 1.0)
    while taken < count - BATCH:
        taken += len(deliveries)
        deliveries = consumer.settle([Ack(each.receipt) for each in deliveries], take=BATCH).deliveries
    return taken


def backlog(folder: Path) -> dict[int, float]:
    """The rate of draining through the port, by how many jobs wait; both files take turns."""
    clients = {size: SQLiteClient(folder / f"{size}.db") for size in BACKLOGS}
    rates: dict[int, list[float]] = {size: [] for size in BACKLOGS}
    for client in clients.values():
        client.declare(Queue("bench"))
    for number in range(ROUNDS + 1):
        for size, client in clients.items():
            while (missing := size - client.counts("bench").waiting) > 0:
                client.publish("bench", [Message(new_job_id(), BODY) for _ in range(min(20_000, missing))])
            with client.open_consumer("bench") as consumer:
                began = time.perf_counter()
                taken = take_and_ack(consumer, 9_000)
                if number:  # the first shows the file to the caches
                    rates[size].append(taken / (time.perf_counter() - began))
    for client in clients.values():
        client.close()
    return {size: median(found) for size, found in rates.items()}


def main() -> int:
    python = sys.argv[1]
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        backend = SQLiteClient(folder / "jobs.db")
        orchestrator = Orchestrator(backend)
        orchestrator.register(SCHEMA)
        rounds = []
        for number in range(ROUNDS):
            rounds.append(one_round(orchestrator) | huey(python, folder / f"huey-{number}.db"))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for figure in rounds[0]:
            unit = "" if figure[-1] in "s%" and "," in figure[-5:] else "/s"
            print(f"{figure:28} {median(found[figure] for found in rounds):12,.2f}{unit}")
        print(f"{'idle CPU, %':28} {idle_cpu(orchestrator) * 100:12,.2f}")
        print()
        for ours, theirs in (
            ("publish_batch, all at once", "Huey publish"),
            ("publish, one by one", "Huey publish"),
            ("consume, adaptive", "Huey drain"),
        ):
            print(f"{ours} / {theirs}: {median(found[ours] / found[theirs] for found in rounds):.1f}")
        backend.close()
        rates = backlog(folder)
        for size, rate in rates.items():
            print(f"drain through the port with {size:>9,} waiting: {rate:,.0f}/s")
        few, many = BACKLOGS
        print(f"drain with {many:,} waiting / with {few:,}: {rates[many] / rates[few]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
