"""procrastinate on PostgreSQL; its batch is one statement."""

from procrastinate import App, PsycopgConnector

from .. import job as jobs
from ..peer import PLACE, About, Peer

CONCURRENCY = 100
app = App(connector=PsycopgConnector(conninfo=PLACE.url, min_size=4, max_size=20))


@app.task(queue=PLACE.queue)
async def no_op(x: float, y: float) -> None:
    jobs.no_op(x, y)


@app.task(queue=PLACE.queue)
async def wait(x: float, y: float) -> None:
    await jobs.wait_in_a_loop(x, y)


@app.task(queue=PLACE.queue)
async def spin(x: float, y: float) -> None:
    jobs.spin(x, y)


TASKS = {"no_op": no_op, "wait": wait, "spin": spin}


class Measured(Peer):
    about = About(
        "procrastinate",
        "a crash leaves the job to a task of one's own",
        f"{CONCURRENCY} at once, finished jobs are deleted, a pool of 20 connections",
        ("procrastinate", "psycopg", "psycopg-pool"),
    )
    has_batches = True

    async def open(self) -> None:
        await app.open_async()
        if not await app.check_connection_async():  # whether its tables are there
            await app.schema_manager.apply_schema_async()

    async def send(self, kind: str) -> None:
        await TASKS[kind].defer_async(x=jobs.X, y=jobs.Y)

    async def send_batch(self, kind: str, count: int) -> None:
        await TASKS[kind].batch_defer_async(*[{"x": jobs.X, "y": jobs.Y} for _ in range(count)])

    def work(self) -> None:
        app.run_worker(queues=[PLACE.queue], concurrency=CONCURRENCY, delete_jobs="always")

    async def close(self) -> None:
        await app.close_async()
