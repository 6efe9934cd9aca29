"""Huey, on Redis and on a SQLite file."""

import sys

from huey import RedisHuey, SqliteHuey

from .. import job as jobs
from ..peer import AT_MOST_ONCE, PLACE, About, Peer

if PLACE.broker == "redis":
    huey = RedisHuey(PLACE.queue, url=PLACE.url, results=False)
else:
    huey = SqliteHuey(PLACE.queue, filename=PLACE.url, results=False, fsync=True)
TASKS = {run.__name__: huey.task()(run) for run in (jobs.no_op, jobs.wait, jobs.spin)}


class Measured(Peer):
    about = About(
        "Huey",
        AT_MOST_ONCE,
        "one worker thread, no results" + (", synced" if PLACE.broker == "sqlite" else ", blocking pop"),
        ("huey", "redis") if PLACE.broker == "redis" else ("huey",),
    )
    worker = [
        *(sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.peers.huey.huey"),
        *("--workers", "1", "--no-periodic", "--quiet"),
    ]

    def send(self, kind: str) -> None:
        TASKS[kind](jobs.X, jobs.Y)
