"""arq on Redis; it polls, here a hundred times a second rather than twice."""

import sys

from arq import create_pool, func
from arq.connections import RedisSettings

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, PLACE, About, Peer


async def no_op(ctx: object, x: float, y: float) -> None:
    jobs.no_op(x, y)


async def wait(ctx: object, x: float, y: float) -> None:
    await jobs.wait_in_a_loop(x, y)


async def spin(ctx: object, x: float, y: float) -> None:
    jobs.spin(x, y)


class WorkerSettings:
    functions = [func(run, keep_result=0) for run in (no_op, wait, spin)]
    redis_settings = RedisSettings.from_dsn(PLACE.url)
    queue_name = PLACE.queue
    max_jobs = 100
    poll_delay = 0.01


class Measured(Peer):
    about = About("arq", AT_LEAST_ONCE, "100 at once, polls every 10 ms, no results", ("arq", "redis"))
    worker = [
        *(sys.executable, "-m", "arq", "benchmarks.peers.arq.WorkerSettings"),
        *("--custom-log-dict", "benchmarks.peers.arq.QUIET"),
    ]

    async def open(self) -> None:
        self.pool = await create_pool(WorkerSettings.redis_settings, default_queue_name=PLACE.queue)

    async def send(self, kind: str) -> None:
        await self.pool.enqueue_job(kind, jobs.X, jobs.Y)

    async def publish(self, x: float, y: float) -> str:
        return (await self.pool.enqueue_job("no_op", x, y)).job_id


QUIET = {"version": 1, "disable_existing_loggers": True}
