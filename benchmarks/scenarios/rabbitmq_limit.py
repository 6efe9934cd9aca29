"""RabbitMQ: the port against bare pika, in one process, by turns."""

from functools import partial

from ..bare import rabbitmq
from ..ours import QUEUE, connect, drain_application, drain_port, messages, publish_port, timed
from ..results import Results

JOBS = 10_000
SINGLES = 1000
BARE = "bench-bare"


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float = 1.0) -> None:
    if "rabbitmq" not in urls:
        return
    url, count, singles = urls["rabbitmq"], int(JOBS * scale), int(SINGLES * scale)
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
            note(
                "application",
                "drain 200",
                count / timed(partial(drain_application, orchestrator, 200, count)),
            )
            # What is left by the publishes above, one by one, each acknowledged before the next is sent.
            publish_port(backend, jobs[:singles], 1000)
            note("bare", "drain 1", singles / rabbitmq.blocking_drain(url, BARE, singles))
            note(
                "application",
                "drain 1",
                singles / timed(partial(drain_application, orchestrator, 1, singles)),
            )
            orchestrator.clean_queue(QUEUE)
            rabbitmq.purge(url, BARE)
