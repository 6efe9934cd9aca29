"""The process that publishes, in a peer's environment: it runs the steps that it reads, a JSON object a line.

    python -m benchmarks.publisher_process PEER

It first says what the peer is; then it answers each line with a line.
"""

import asyncio
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from .job import Record
from .peer import Peer

TRAITS = ("worker", "in_process", "has_batches", "kinds", "wakes")
PAUSE_S = 0.01
LIMIT_S = 15.0


class PublisherProcess:
    """Publishes the jobs of one peer, and reports how long that took."""

    def __init__(self, peer: Peer, record: Record) -> None:
        self._peer = peer
        self._record = record

    async def call(self, what: Callable[..., Any], *arguments: Any) -> None:
        answer = what(*arguments)
        if inspect.isawaitable(answer):
            await answer

    async def publish(self, kind: str, count: int) -> float:
        """Seconds that so many jobs took, one by one, each awaited."""
        send = self._peer.send
        began = time.perf_counter()
        if inspect.iscoroutinefunction(send):
            for _ in range(count):
                await send(kind)
        else:
            for _ in range(count):
                send(kind)
        return time.perf_counter() - began

    async def publish_batch(self, kind: str, count: int) -> float:
        """Seconds that so many jobs took in one call."""
        began = time.perf_counter()
        await self.call(self._peer.send_batch, kind, count)
        return time.perf_counter() - began

    def drain(self, before: int, count: int) -> float:
        """Seconds from the first of so many no-op jobs to the last, run in this process after ``before``."""
        self._peer.drain(count)
        moments = self._record.moments("no_op", before + count, after=before)
        return moments[-1] - moments[0]

    async def latency(self, before: int, count: int, limit_s: float) -> list[float]:
        """Milliseconds from each publish call to the beginning of its job, on an idle worker.

        ``before`` jobs have begun already. Ends early where so many would take longer than ``limit_s``.
        """
        taken: list[float] = []
        began = time.perf_counter()
        while len(taken) < count and time.perf_counter() - began < limit_s:
            await asyncio.sleep(PAUSE_S)
            number = before + len(taken) + 1
            sent = time.perf_counter()
            await self.call(self._peer.send, "no_op")
            while not (began_at := self._record.moment("no_op", number)):
                if time.perf_counter() - sent > LIMIT_S:
                    raise TimeoutError("the job never began")
                await asyncio.sleep(0.0005)
            taken.append((began_at - sent) * 1000)
        return taken

    def work(self) -> None:
        """Begin to work in this process: for queues that no other sees."""
        threading.Thread(target=self._peer.work, daemon=True).start()

    async def serve(self) -> None:
        await self.call(self._peer.open)
        about = self._peer.about.with_versions()
        traits = {
            name: getattr(self._peer, name)
            for name in ("worker", "in_process", "has_batches", "kinds", "wakes")
        }
        answer({"about": asdict(about), **traits})
        for line in sys.stdin:
            order = json.loads(line)
            step = getattr(self, order.pop("do"))
            done = step(**order)
            answer(await done if inspect.isawaitable(done) else done)
        await self.call(self._peer.close)


def answer(what: object) -> None:
    os.write(ANSWERS, json.dumps(what).encode() + b"\n")


def load(name: str) -> Peer:
    peer: Peer = import_module(f"benchmarks.peers.{name}").Measured()
    return peer


if __name__ == "__main__":
    # Whatever a library prints must not be taken for an answer.
    ANSWERS = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(PublisherProcess(load(sys.argv[1]), Record(Path(os.environ["BENCH_RECORD"]))).serve())
    os._exit(0)  # with its worker's thread, where it has one
