"""The limit on Redis, as a library that does nothing."""

import time
from uuid import uuid4

from .. import job as jobs
from ..bare_drivers.redis import BareRedis
from ..peer import PLACE, About, Peer

BODY = b'{"kind":"no_op","x":1.5,"y":2.5}'
BATCH = 256


class Measured(Peer):
    about = About("bare Lua", "none", "two scripts, 100 published, 256 taken at once", ("redis", "hiredis"))
    has_batches = True
    kinds = ("no_op",)
    wakes = False

    def open(self) -> None:
        self.bare = BareRedis(PLACE.url, PLACE.queue)

    def send(self, kind: str) -> None:
        self.bare.publish([(uuid4().hex, BODY)])

    def send_batch(self, kind: str, count: int) -> None:
        self.bare.publish([(uuid4().hex, BODY) for _ in range(count)])

    def work(self) -> None:
        self.open()
        done: list[bytes] = []
        while True:
            done = self.bare.take(BATCH, done)
            for _ in done:
                jobs.no_op(jobs.X, jobs.Y)
            if not done:
                time.sleep(0.01)
