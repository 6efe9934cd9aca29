"""Dramatiq, on Redis and on RabbitMQ: on its own classic queue there, and on a quorum queue."""

import os
import sys

# As many ahead as other peers have; by default it is twice the threads.
os.environ.setdefault("dramatiq_queue_prefetch", "200")

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, CONFIRMED, PLACE, About, Peer


class QuorumBroker(RabbitmqBroker):
    """What it doesn't offer: a queue whose jobs are on disk, on most nodes, before they are delivered."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, object]:
        return super()._build_queue_arguments(queue_name) | {"x-queue-type": "quorum"}


QUORUM = PLACE.queue_type == "quorum"
if PLACE.broker == "redis":
    broker = RedisBroker(url=PLACE.url)
else:
    broker = (QuorumBroker if QUORUM else RabbitmqBroker)(url=PLACE.url, confirm_delivery=True)
dramatiq.set_broker(broker)
RUN = (jobs.no_op, jobs.wait, jobs.spin)
ACTORS = {run.__name__: dramatiq.actor(queue_name=PLACE.queue)(run) for run in RUN}


class Measured(Peer):
    about = About(
        "Dramatiq, quorum queue" if QUORUM else "Dramatiq",
        AT_LEAST_ONCE,
        "one process of 8 threads, 200 prefetched"
        + (f"; {PLACE.queue_type or 'classic'} queue, {CONFIRMED}" if PLACE.broker == "rabbitmq" else ""),
        ("dramatiq", "redis" if PLACE.broker == "redis" else "pika"),
    )
    worker = [
        *(sys.executable, "-m", "dramatiq", "benchmarks.peers.dramatiq"),
        *("--processes", "1", "--threads", "8", "--skip-logging"),
    ]

    def send(self, kind: str) -> None:
        ACTORS[kind].send(jobs.X, jobs.Y)
