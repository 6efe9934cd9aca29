"""The environment of a soak: a backend of its own, and the processes that use it."""

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
from urllib.parse import quote

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.private_server import PrivateServer
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from job_audit import ExecutionRecord

from .jobs import LONG_S

PREFETCH = 8
_END_S = LONG_S + 60.0
"""How long a worker may take to stop: it finishes the job that it runs."""
_LOCKED_S = 3.0
_STRIKES, _BETWEEN_STRIKES_S = 5, 0.01


class SoakFailed(Exception):
    """What a soak found; the message says what."""


@dataclass
class SoakProcess:
    """A process of the soak."""

    process: "subprocess.Popen[bytes]"
    log: Path
    told_to_stop_at: float | None = None
    _was_up: bool = False
    """When it was told to stop: one that was still starting has nothing in flight."""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    def stop(self) -> None:
        """Tell it to stop, as a supervisor does."""
        self._was_up = self.is_up
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

    def pause(self) -> None:
        """Make it silent with SIGSTOP, until :meth:`resume`."""
        self.process.send_signal(signal.SIGSTOP)

    @property
    def is_up(self) -> bool:
        """Whether it has run a job."""
        return "up" in self.log.read_text("utf-8", "replace").splitlines()

    def interrupt(self) -> None:
        """Have a signal's handler raise, several times in a row, in whatever it does at that moment."""
        for _ in range(_STRIKES):
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(_BETWEEN_STRIKES_S)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; a no-op where it has ended."""
        self.process.kill()
        self.process.wait()

    def _last_words(self) -> str:
        return self.log.read_text("utf-8", "replace")[-2000:]


@dataclass
class Environment:
    """One backend, and the processes that use it."""

    url: str
    folder: Path
    server: PrivateServer | None
    stack: ExitStack
    runs_a_fault_may_cost: int
    """How many more times a job may run that was in flight at a fault."""
    is_locked: Callable[[], bool] = lambda: False
    """Whether a process keeps all others from writing; where processes share a file, a stopped one may."""
    store_url: str | None = None
    """Where the coordination store is, if not at the backend."""
    refuse: Callable[[bool], None] | None = None
    """Has the server refuse what writes, or take it again; None where nothing has it so."""
    refusals_may_cost: bool = False
    """Whether a job may run again, as its settlement was refused until its worker ended."""
    started: ExecutionRecord = field(init=False)
    finished: ExecutionRecord = field(init=False)
    publish_log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.started = ExecutionRecord(self.folder / "started")
        self.finished = ExecutionRecord(self.folder / "finished")
        self.publish_log = self.folder / "publish_log"
        self.publish_log.touch()

    @property
    def coordinated_url(self) -> str:
        """The URL of the backend with its coordination store."""
        return self.url if self.store_url is None else f"{self.url}&store={quote(self.store_url, safe='')}"

    def worker(self) -> SoakProcess:
        """Start a worker."""
        files = (self.started.path, self.finished.path)
        return self._start("worker", *files, PREFETCH, self.coordinated_url)

    def publisher(self, seed: int) -> SoakProcess:
        """Start the publisher."""
        return self._start("publisher", self.publish_log, seed, self.coordinated_url)

    def _start(self, module: str, *arguments: object) -> SoakProcess:
        log = self.folder / f"{module}-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        words = [sys.executable, "-m", f"soak.{module}", self.url, *map(str, arguments)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        started = SoakProcess(process, log)
        self.stack.callback(started.kill)
        return started


@contextmanager
def sqlite(folder: Path) -> Iterator[Environment]:
    """A file."""
    with ExitStack() as stack:
        path = folder / "jobs.db"
        yield Environment(f"sqlite:///{path}", folder, None, stack, 1, lambda: is_write_locked(path))


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
def redis(folder: Path) -> Iterator[Environment]:
    """A server that has on disk what it confirmed."""
    server = PrivateRedis(folder, appendonly="yes", appendfsync="always").start()
    with ExitStack() as stack:
        stack.callback(server.kill)

        def refuse(is_on: bool) -> None:
            with server.admin() as admin:
                admin.config_set("min-replicas-to-write", int(is_on))

        yield Environment(server.url, folder, server, stack, 1, refuse=refuse)


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Environment]:
    """A node; where a copy was confirmed and its original not acknowledged, a job is there twice."""
    server = PrivateRabbitMQ(folder).start()
    with ExitStack() as stack:
        stack.callback(server.kill)
        (folder / "store").mkdir()
        store = PrivateRedis(folder / "store", appendonly="yes", appendfsync="always").start()
        stack.callback(store.kill)
        url = f"{server.address.url}?heartbeat_s=2&prefetch={PREFETCH}"

        def refuse(is_on: bool) -> None:
            server.control("set_vm_memory_high_watermark", *(("absolute", "1MB") if is_on else ("0.6",)))

        yield Environment(
            url, folder, server, stack, 3, store_url=store.url, refuse=refuse, refusals_may_cost=True
        )


@contextmanager
def postgresql(folder: Path) -> Iterator[Environment]:
    """A cluster that syncs each commit; its crash may take the leases of the last moment along."""
    server = PrivatePostgreSQL(folder).start()
    with ExitStack() as stack:
        stack.callback(server.close)

        def refuse(is_on: bool) -> None:
            with server.connect() as admin:
                admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if is_on else 'off'}")
                admin.execute("SELECT pg_reload_conf()")

        yield Environment(server.url("mindtrace_jobs"), folder, server, stack, 2, refuse=refuse)


ENVIRONMENTS: dict[str, Callable[[Path], AbstractContextManager[Environment]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "rabbitmq": rabbitmq,
    "postgresql": postgresql,
}
