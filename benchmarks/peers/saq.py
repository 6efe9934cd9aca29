"""SAQ on Redis or PostgreSQL."""

import sys

from saq import Queue

from .. import job as jobs
from ..peer import PLACE, About, Peer


async def no_op(ctx: object, *, x: float, y: float) -> None:
    jobs.no_op(x, y)


async def wait(ctx: object, *, x: float, y: float) -> None:
    await jobs.wait_in_a_loop(x, y)


async def spin(ctx: object, *, x: float, y: float) -> None:
    jobs.spin(x, y)


queue = Queue.from_url(PLACE.url, name=PLACE.queue)
SETTINGS = {
    "redis": "100 at once, no results",
    "postgresql": "100 at once, no results, a pool of 20 connections",
}
DRIVERS = {"redis": ("redis", "hiredis"), "postgresql": ("psycopg", "psycopg-pool")}
settings = {"queue": queue, "functions": [no_op, wait, spin], "concurrency": 100}


class Measured(Peer):
    about = About("SAQ", "a sweep aborts what hangs", SETTINGS[PLACE.broker], ("saq", *DRIVERS[PLACE.broker]))
    worker = [sys.executable, "-m", "saq", "--quiet", "benchmarks.peers.saq.settings"]

    async def open(self) -> None:
        await queue.connect()

    async def send(self, kind: str) -> None:
        await queue.enqueue(kind, x=jobs.X, y=jobs.Y, ttl=-1)

    async def publish(self, x: float, y: float) -> str:
        return (await queue.enqueue("no_op", x=x, y=y, ttl=-1)).id
