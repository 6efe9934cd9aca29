"""RQ on Redis: its SimpleWorker, which doesn't fork for each job, and is its fastest."""

import sys

from redis import Redis
from rq import Queue

from .. import job as jobs
from ..peer import FAILS_ON_CRASH, PLACE, About, Peer

RUN = {"no_op": jobs.no_op, "wait": jobs.wait, "spin": jobs.spin}


class Measured(Peer):
    about = About("RQ", FAILS_ON_CRASH, "SimpleWorker (no fork), no results kept", ("rq", "redis"))
    worker = [
        *(sys.executable, "-m", "rq.cli", "worker", "--url", PLACE.url, "--quiet"),
        *("--worker-class", "rq.SimpleWorker", "--disable-job-desc-logging", PLACE.queue),
    ]
    has_batches = True

    def open(self) -> None:
        self.queue = Queue(PLACE.queue, connection=Redis.from_url(PLACE.url))

    def send(self, kind: str) -> None:
        self.queue.enqueue(RUN[kind], jobs.X, jobs.Y, result_ttl=0)

    def send_batch(self, kind: str, count: int) -> None:
        run, arguments = RUN[kind], (jobs.X, jobs.Y)
        self.queue.enqueue_many([Queue.prepare_data(run, arguments, result_ttl=0) for _ in range(count)])
