"""PGQueuer on PostgreSQL; its batch is one statement."""

import json

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, PLACE, About, Peer

BATCH = 100
"""How many jobs its worker takes at once; by default 10."""
PAYLOAD = json.dumps([jobs.X, jobs.Y]).encode()


def entrypoint(kind: str) -> str:
    return f"{PLACE.queue}-{kind}"


async def work() -> None:
    """Run a worker, as the command ``pgq run`` does."""
    worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(PLACE.url)))

    @worker.entrypoint(entrypoint("no_op"))
    async def no_op(job: Job) -> None:
        jobs.no_op(*json.loads(job.payload))

    @worker.entrypoint(entrypoint("wait"))
    async def wait(job: Job) -> None:
        await jobs.wait_in_a_loop(*json.loads(job.payload))

    @worker.entrypoint(entrypoint("spin"))
    async def spin(job: Job) -> None:
        jobs.spin(*json.loads(job.payload))

    await worker.run(batch_size=BATCH)


class Measured(Peer):
    about = About(
        "PGQueuer",
        AT_LEAST_ONCE,
        f"asyncpg, uvloop, {BATCH} taken at once, durable tables, pgq autovac",
        ("pgqueuer", "asyncpg"),
    )
    has_batches = True

    async def open(self) -> None:
        self.connection = await asyncpg.connect(PLACE.url)
        self.queries = Queries(AsyncpgDriver(self.connection))
        if not await self.queries.has_table(self.queries.qbe.settings.queue_table):
            await self.queries.install()
            await self.queries.optimize_autovacuum()

    async def send(self, kind: str) -> None:
        await self.queries.enqueue(entrypoint(kind), PAYLOAD)

    async def send_batch(self, kind: str, count: int) -> None:
        await self.queries.enqueue([entrypoint(kind)] * count, [PAYLOAD] * count, [0] * count)

    def work(self) -> None:
        uvloop.run(work())

    async def close(self) -> None:
        await self.connection.close()
