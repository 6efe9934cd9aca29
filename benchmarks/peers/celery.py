"""Celery, on Redis and on RabbitMQ: the solo pool, and late acknowledgements, without which jobs are lost."""

import sys

from celery import Celery
from kombu import Queue

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, CONFIRMED, PLACE, About, Peer

RABBITMQ = PLACE.broker == "rabbitmq"
app = Celery("bench", broker=PLACE.url)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=200,
    worker_detect_quorum_queues=True,
    task_queues=[Queue(PLACE.queue, queue_arguments={"x-queue-type": "quorum"} if RABBITMQ else None)],
    task_default_queue=PLACE.queue,
    broker_transport_options={"confirm_publish": True} if RABBITMQ else {},
    worker_enable_remote_control=False,
)
TASKS = {run.__name__: app.task(name=run.__name__)(run) for run in (jobs.no_op, jobs.wait, jobs.spin)}


class Measured(Peer):
    about = About(
        "Celery",
        AT_LEAST_ONCE,
        "solo pool, late acks, 200 prefetched, no results"
        + (f"; quorum queue, {CONFIRMED}" if RABBITMQ else ""),
        ("celery", "kombu", "amqp" if RABBITMQ else "redis"),
    )
    worker = [
        *(sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", "worker", "--pool", "solo"),
        *("--loglevel", "ERROR", "--without-mingle", "--without-gossip", "--without-heartbeat"),
    ]

    def open(self) -> None:
        self.producer = app.producer_pool.acquire(block=True)

    def send(self, kind: str) -> None:
        TASKS[kind].apply_async((jobs.X, jobs.Y), producer=self.producer)
