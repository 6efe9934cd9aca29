"""RabbitMQ: the port against bare pika, in one process, by turns."""

from collections.abc import Callable
from functools import partial
from statistics import median

from mindtrace.jobs import Orchestrator
from mindtrace.jobs.ports import Message

from ..bare_drivers import rabbitmq
from ..in_process import (
    QUEUE,
    connect,
    drain_application,
    drain_port,
    drain_port_one_by_one,
    messages,
    publish_port,
    timed,
)
from ..results import Results

JOBS = 10_000
SLICE = 100
SLICES = 10
BARE = "bench-bare"


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float = 1.0) -> None:
    if "rabbitmq" not in urls:
        return
    url, count = urls["rabbitmq"], max(2 * SLICE * SLICES, int(JOBS * scale))
    jobs = messages(count)
    bodies = [message.body for message in jobs]
    rabbitmq.declare(url, BARE)

    def note(library: str, name: str, jobs_per_s: float) -> None:
        results.add("limit", "rabbitmq", library, name, "jobs/s", jobs_per_s)

    with connect(url) as orchestrator:
        backend = orchestrator.backend
        for _ in range(rounds):
            for batch in (100, 1000):
                note("bare", f"publish {batch}", count / rabbitmq.publish(url, BARE, bodies, batch))
                note("port", f"publish {batch}", count / timed(partial(publish_port, backend, jobs, batch)))
            note("bare", "drain 200", (count - 1) / rabbitmq.drain(url, BARE, count, 200))
            note("port", "drain 200", count / timed(partial(drain_port, backend, 200, count)))
            note("application", "drain 200", (count - 1) / drain_application(orchestrator, 200, count))
            for library, seconds in one_by_one(url, orchestrator, jobs).items():
                note(library, "drain 1", (SLICE - 1) / seconds)
            orchestrator.clean_queue(QUEUE)
            rabbitmq.purge(url, BARE)


def one_by_one(url: str, orchestrator: Orchestrator, jobs: list[Message]) -> dict[str, float]:
    """Seconds a slice with a prefetch of 1, in slices by turns; of bare pika what the publishes left."""
    steps: dict[str, Callable[[], float]] = {
        "bare": lambda: rabbitmq.blocking_drain(url, BARE, SLICE),
        "port": lambda: drain_port_one_by_one(orchestrator.backend, SLICE),
        "application": lambda: drain_application(orchestrator, 1, SLICE),
    }
    publish_port(orchestrator.backend, jobs[: 2 * SLICE * SLICES], 1000)
    slices = [[step() for step in steps.values()] for _ in range(SLICES)]
    return dict(zip(steps, map(median, zip(*slices, strict=True)), strict=True))
