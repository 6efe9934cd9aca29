"""Where a soak takes place: a backend of its own, and the processes that use it."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from brokers.account import Record
from brokers.private_server import PrivateServer
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis

from .errands import LONG_S

PREFETCH = 8
_END_S = LONG_S + 60.0
"""How long a worker may take to stop: it finishes the job that it runs."""
_LOCKED_S = 3.0


class SoakFailed(Exception):
    """What a soak found; the message says what."""


@dataclass
class Actor:
    """A process of the soak."""

    process: "subprocess.Popen[bytes]"
    log: Path
    told_to_stop_at: float | None = None
    _was_up: bool = False
    """When it was told to stop: one that was still starting has nothing in hand."""

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def stop(self) -> None:
        """Tell it to stop, as a supervisor does."""
        self._was_up = "up" in self.log.read_text("utf-8", "replace").splitlines()
        self.told_to_stop_at = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether it is gone, which it must be only when told, in time, and without an error.

        Raises:
            SoakFailed: it isn't so.
        """
        code = self.process.poll()
        if code is None:
            if self.told_to_stop_at is not None and time.monotonic() - self.told_to_stop_at > _END_S:
                self.process.send_signal(signal.SIGUSR1)
                time.sleep(0.5)
                raise SoakFailed(f"process {self.pid} doesn't stop: {self._last_words()}")
            return False
        if code == -signal.SIGTERM and self.told_to_stop_at is not None and not self._was_up:
            return True
        if self.told_to_stop_at is None or code:
            raise SoakFailed(f"process {self.pid} ended by itself with {code}: {self._last_words()}")
        return True

    def kill(self) -> None:
        """End it at once; a no-op where it has ended."""
        self.process.kill()
        self.process.wait()

    def _last_words(self) -> str:
        return self.log.read_text("utf-8", "replace")[-2000:]


@dataclass
class Stage:
    """One backend, with whoever uses it."""

    url: str
    folder: Path
    server: PrivateServer | None
    stack: ExitStack
    runs_a_fault_may_cost: int
    """How often more a job may run that was in hand at a fault."""
    is_locked: Callable[[], bool] = lambda: False
    """Whether a process keeps all others from writing; where processes share a file, a stopped one may."""
    started: Record = field(init=False)
    finished: Record = field(init=False)
    ledger: Path = field(init=False)

    def __post_init__(self) -> None:
        self.started = Record(self.folder / "started")
        self.finished = Record(self.folder / "finished")
        self.ledger = self.folder / "ledger"
        self.ledger.touch()

    def worker(self) -> Actor:
        """Start a worker."""
        return self._start("worker", self.started.path, self.finished.path, PREFETCH)

    def publisher(self, seed: int) -> Actor:
        """Start the publisher."""
        return self._start("publisher", self.ledger, seed)

    def _start(self, module: str, *arguments: object) -> Actor:
        log = self.folder / f"{module}-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        words = [sys.executable, "-m", f"soak.{module}", self.url, *map(str, arguments)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        actor = Actor(process, log)
        self.stack.callback(actor.kill)
        return actor


@contextmanager
def sqlite(folder: Path) -> Iterator[Stage]:
    """A file."""
    with ExitStack() as stack:
        path = folder / "jobs.db"
        yield Stage(f"sqlite:///{path}", folder, None, stack, 1, lambda: is_write_locked(path))


def is_write_locked(path: Path) -> bool:
    """Tell whether a SQLite file is kept locked for longer than any transaction of ours takes."""
    with closing(sqlite3.connect(path, timeout=_LOCKED_S, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return True
        db.execute("ROLLBACK")
        return False


@contextmanager
def redis(folder: Path) -> Iterator[Stage]:
    """A server that has on disk what it confirmed."""
    server = PrivateRedis(folder, appendonly="yes", appendfsync="always").start()
    with ExitStack() as stack:
        stack.callback(server.kill)
        yield Stage(server.url, folder, server, stack, 1)


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Stage]:
    """A node; where a copy was confirmed and its original not acknowledged, a job is there twice."""
    server = PrivateRabbitMQ(folder).start()
    with ExitStack() as stack:
        stack.callback(server.kill)
        yield Stage(f"{server.address.url}?heartbeat_s=2&prefetch={PREFETCH}", folder, server, stack, 3)


STAGES: dict[str, Callable[[Path], AbstractContextManager[Stage]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "rabbitmq": rabbitmq,
}
