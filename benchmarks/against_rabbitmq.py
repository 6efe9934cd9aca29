"""RabbitMQ, side by side in one run: this project, bare pika as the limit, and its peers.

Run it as ``python benchmarks/against_rabbitmq.py [a Python that has celery, dramatiq and taskiq-aio-pika]``.
Every queue is a quorum queue but dramatiq's, which has none; every publish is confirmed. Figures of different
runs or machines are not to be compared; ratios are.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pika import BasicProperties, BlockingConnection, SelectConnection, URLParameters

from measuring import PAIR, SCHEMA, drain_application, latency_ms, messages, timed
from mindtrace.jobs import Orchestrator, RabbitMQClient
from mindtrace.jobs.ports import Ack

URL = os.environ.get("MINDTRACE_JOBS_TEST_RABBITMQ", "amqp://guest:guest@localhost:5672/%2F")
NAMESPACE = "bench"
BARE = "bench-bare"
ROUNDS = 5
JOBS = 10_000
SINGLES = 1000
PEERS = Path(__file__).parent / "peers"
PERSISTENT = BasicProperties(delivery_mode=2)


# -- bare pika ------------------------------------------------------------------------------------


def on_a_channel(use: Callable[[SelectConnection, Any], None]) -> None:
    """Run ``use`` on a new SelectConnection's channel, until it closes the connection."""

    def opened(connection: SelectConnection) -> None:
        connection.channel(on_open_callback=lambda channel: use(connection, channel))

    connection = SelectConnection(
        URLParameters(URL), on_open_callback=opened, on_close_callback=lambda one, _: one.ioloop.stop()
    )
    connection.ioloop.start()


def bare_publish(bodies: list[bytes], batch: int) -> float:
    """Seconds to publish with confirms, a batch after the other."""
    took: list[float] = []

    def use(connection: SelectConnection, channel: Any) -> None:
        state = {"sent": 0, "confirmed": 0, "began": 0.0}

        def send(_frame: object = None) -> None:
            state["began"] = state["began"] or time.perf_counter()
            for body in bodies[state["sent"] : state["sent"] + batch]:  # type: ignore[misc]
                channel.basic_publish("", BARE, body, PERSISTENT, mandatory=True)
            state["sent"] = min(state["sent"] + batch, len(bodies))

        def confirmed(frame: Any) -> None:
            tag = frame.method.delivery_tag
            state["confirmed"] = max(state["confirmed"], tag) if frame.method.multiple else tag
            if tag >= len(bodies):
                took.append(time.perf_counter() - state["began"])
                connection.close()
            elif tag >= state["sent"]:
                send()

        channel.confirm_delivery(confirmed, callback=send)

    on_a_channel(use)
    return took[0]


def bare_drain(count: int, prefetch: int) -> float:
    """Seconds to consume, with one acknowledgement for half of what is prefetched."""
    took: list[float] = []

    def use(connection: SelectConnection, channel: Any) -> None:
        state = {"began": 0.0, "seen": 0}

        def on_message(_channel: object, method: Any, _properties: object, _body: bytes) -> None:
            state["began"] = state["began"] or time.perf_counter()
            state["seen"] += 1
            if state["seen"] % max(1, prefetch // 2) == 0 or state["seen"] == count:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if state["seen"] == count:
                took.append(time.perf_counter() - state["began"])
                connection.close()

        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(BARE, on_message)

    on_a_channel(use)
    return took[0]


def blocking_drain(count: int) -> float:
    """Seconds to consume with a BlockingConnection and a prefetch of 1, as its tutorial does."""
    connection = BlockingConnection(URLParameters(URL))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    seen = 0

    def on_message(one: Any, method: Any, _properties: object, _body: bytes) -> None:
        nonlocal seen
        one.basic_ack(method.delivery_tag)
        seen += 1
        if seen == count:
            one.stop_consuming()

    channel.basic_consume(BARE, on_message)
    took = timed(channel.start_consuming)
    connection.close()
    return took


# -- ours -----------------------------------------------------------------------------------------


def drain_port(backend: RabbitMQClient, batch: int) -> None:
    with backend.open_consumer("bench") as consumer:
        deliveries = consumer.receive(batch, 1.0)
        while deliveries:
            acks = [Ack(delivery.receipt) for delivery in deliveries]
            deliveries = consumer.settle(acks, take=batch).deliveries or consumer.receive(batch, 0.0)


def one_round(orchestrator: Orchestrator, backend: RabbitMQClient) -> dict[str, float]:
    figures: dict[str, float] = {}
    jobs = messages(JOBS)
    bodies = [message.body for message in jobs]

    def publish_port(batch: int) -> None:
        for start in range(0, JOBS, batch):
            backend.publish("bench", jobs[start : start + batch])

    for batch in (100, 1000):
        figures[f"bare publish, batches of {batch}"] = JOBS / bare_publish(bodies, batch)
        figures[f"port publish, batches of {batch}"] = JOBS / timed(partial(publish_port, batch))
        if batch == 100:
            figures["bare drain, prefetch 200"] = JOBS / bare_drain(JOBS, 200)
            figures["port drain, batches of 200"] = JOBS / timed(lambda: drain_port(backend, 200))
    figures["consume, prefetch 200"] = JOBS / timed(lambda: drain_application(orchestrator, 200, JOBS))
    figures["blocking, prefetch 1"] = SINGLES / blocking_drain(SINGLES)
    backend.publish("bench", jobs[:SINGLES])
    figures["consume, prefetch 1"] = SINGLES / timed(lambda: drain_application(orchestrator, 1, SINGLES))
    figures["publish_batch, all at once"] = JOBS / timed(
        lambda: orchestrator.publish_batch("bench", [PAIR] * JOBS)
    )
    orchestrator.clean_queue("bench")

    def singles() -> None:
        for _ in range(SINGLES):
            orchestrator.publish("bench", PAIR)

    figures["publish, one by one"] = SINGLES / timed(singles)
    orchestrator.clean_queue("bench")
    latencies = latency_ms(orchestrator)
    figures["latency p50, ms"], figures["latency p99, ms"] = latencies[100], latencies[197]
    return figures


def peer(python: str, name: str, jobs: int) -> dict[str, float]:
    done = subprocess.run(
        [python, PEERS / f"rabbitmq_{name}.py", URL, str(jobs)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    renamed = {"drain_per_s": "drain", "publish_per_s": "publish"}
    renamed |= {"latency_p50_ms": "latency p50, ms", "latency_p99_ms": "latency p99, ms"}
    return {f"{name} {renamed[key]}": value for key, value in found.items()}


def main() -> int:
    python = sys.argv[1] if len(sys.argv) > 1 else None
    backend = RabbitMQClient.from_url(f"{URL}?namespace={NAMESPACE}")
    orchestrator = Orchestrator(backend)
    orchestrator.register(SCHEMA)
    orchestrator.clean_queue("bench")
    with BlockingConnection(URLParameters(URL)) as driver:
        channel = driver.channel()
        channel.queue_delete(BARE)
        channel.queue_declare(BARE, durable=True, arguments={"x-queue-type": "quorum"})
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS):
        figures = one_round(orchestrator, backend)
        if python:
            for name in ("celery", "dramatiq", "taskiq"):
                figures |= peer(python, name, 3000)
        rounds.append(figures)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    with BlockingConnection(URLParameters(URL)) as driver:
        driver.channel().queue_delete(BARE)
    for name in rounds[0]:
        value = median(found[name] for found in rounds)
        print(f"{name:32} {value:12,.2f}" if "ms" in name else f"{name:32} {value:12,.0f}/s")

    def ratio(name: str, of: str) -> None:
        print(f"{name} / {of}: {median(found[name] / found[of] for found in rounds):.2f}")

    print()
    for batch in (100, 1000):
        ratio(f"port publish, batches of {batch}", f"bare publish, batches of {batch}")
    ratio("port drain, batches of 200", "bare drain, prefetch 200")
    ratio("consume, prefetch 1", "blocking, prefetch 1")
    if python:
        ratio("port publish, batches of 1000", "celery publish")
        for name in ("celery", "dramatiq", "taskiq"):
            ratio("consume, prefetch 200", f"{name} drain")
        ratio("latency p50, ms", "taskiq latency p50, ms")
    orchestrator.delete_queue("bench")
    backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
