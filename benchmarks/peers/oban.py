"""Oban on PostgreSQL, by the command that it recommends; its batch is one transaction, a statement a job."""

import sys

from oban import Job, Oban, worker
from oban.schema import install

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, PLACE, About, Peer

CONCURRENCY = 100
CONNECTIONS = 20


@worker(queue=PLACE.queue)
class NoOp:
    async def process(self, job: Job) -> None:
        jobs.no_op(**job.args)


@worker(queue=PLACE.queue)
class Wait:
    async def process(self, job: Job) -> None:
        await jobs.wait_in_a_loop(**job.args)


@worker(queue=PLACE.queue)
class Spin:
    async def process(self, job: Job) -> None:
        jobs.spin(**job.args)


ARGS = {"x": jobs.X, "y": jobs.Y}
WORKERS = {"no_op": NoOp, "wait": Wait, "spin": Spin}


class Measured(Peer):
    about = About(
        "Oban",
        AT_LEAST_ONCE,
        f"{CONCURRENCY} at once, uvloop, a pool of {CONNECTIONS} connections, finished jobs kept for a day",
        ("oban", "psycopg", "psycopg-pool"),
    )
    # By default it logs two lines for each job, and imports this module only once it has taken the first.
    worker = [
        *(sys.executable, "-m", "oban", "start", "--dsn", PLACE.url),
        *("--queues", f"{PLACE.queue}:{CONCURRENCY}", "--log-level", "ERROR"),
        *("--pool-min-size", "2", "--pool-max-size", f"{CONNECTIONS}"),
        *("--cron-modules", __name__),
    ]
    has_batches = True

    async def open(self) -> None:
        self.pool = await Oban.create_pool(PLACE.url, min_size=2, max_size=CONNECTIONS)
        await install(self.pool)
        self.oban = Oban(pool=self.pool)

    async def send(self, kind: str) -> None:
        await WORKERS[kind].enqueue(ARGS)

    async def send_batch(self, kind: str, count: int) -> None:
        await self.oban.enqueue_many(WORKERS[kind].new(ARGS) for _ in range(count))

    async def close(self) -> None:
        await self.pool.close()
