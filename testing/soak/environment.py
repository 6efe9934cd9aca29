"""The environment of a soak: a backend of its own, and the processes that use it."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.private_server import PrivateServer
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from job_audit import ExecutionRecord

from .jobs import LEASE_S, LONG_S

PREFETCH = 8
RABBITMQ_OPTIONS = f"heartbeat_s=2&prefetch={PREFETCH}"
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


@dataclass(frozen=True, slots=True)
class ServerFault:
    """What a soak does to its servers now and then."""

    what: str
    happens: Callable[[], AbstractContextManager[object]]
    """The fault begins with the block, and is over after it."""
    lasts_s: tuple[float, float] = (0.0, 0.0)
    """For how long, at least and at most."""
    may_cost: bool = True
    """Whether a job that is in flight may run again."""


@dataclass
class Environment:
    """One backend, and the processes that use it."""

    url: str
    folder: Path
    stack: ExitStack
    runs_a_fault_may_cost: int
    """How many more times a job may run that was in flight at a fault."""
    server_faults: Sequence[ServerFault] = ()
    is_locked: Callable[[], bool] = lambda: False
    """Whether a process keeps all others from writing; where processes share a file, a stopped one may."""
    store_url: str | None = None
    """Where the coordination store is, if not at the backend."""
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


StartEnvironment = Callable[[Path], AbstractContextManager[Environment]]
"""Starts what a soak needs, with files in a folder, and ends it."""


@contextmanager
def sqlite(folder: Path) -> Iterator[Environment]:
    """A file."""
    with ExitStack() as stack:
        path = folder / "jobs.db"
        yield Environment(f"sqlite:///{path}", folder, stack, 1, is_locked=lambda: is_write_locked(path))


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

    def refuse(is_on: bool) -> None:
        with server.admin() as admin:
            admin.config_set("min-replicas-to-write", int(is_on))

    with ExitStack() as stack:
        stack.callback(server.close)
        yield Environment(
            server.url, folder, stack, 1, [*faults_of(server), _refusals(refuse, may_cost=False)]
        )


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Environment]:
    """A node; where a copy was confirmed and its original not acknowledged, a job is there twice."""
    server = PrivateRabbitMQ(folder).start()

    def refuse(is_on: bool) -> None:
        server.control("set_vm_memory_high_watermark", *(("absolute", "1MB") if is_on else ("0.6",)))

    with ExitStack() as stack:
        stack.callback(server.close)
        (folder / "store").mkdir()
        store = PrivateRedis(folder / "store", appendonly="yes", appendfsync="always").start()
        stack.callback(store.close)
        url = f"{server.address.url}?{RABBITMQ_OPTIONS}"
        faults = [*faults_of(server), _refusals(refuse, may_cost=True)]
        yield Environment(url, folder, stack, 3, faults, store_url=store.url)


@contextmanager
def postgresql(folder: Path) -> Iterator[Environment]:
    """A cluster that syncs each commit; its crash may take the leases of the last moment along."""
    server = PrivatePostgreSQL(folder).start()

    def refuse(is_on: bool) -> None:
        with server.connect() as admin:
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if is_on else 'off'}")
            admin.execute("SELECT pg_reload_conf()")

    with ExitStack() as stack:
        stack.callback(server.close)
        faults = [*faults_of(server), _refusals(refuse, may_cost=False)]
        yield Environment(server.url("mindtrace_jobs"), folder, stack, 2, faults)


def faults_of(server: PrivateServer) -> Iterator[ServerFault]:
    """Yield what any server may suffer."""

    @contextmanager
    def restarted() -> Iterator[None]:
        server.restart()
        yield

    yield ServerFault("broker restart", restarted)
    yield ServerFault("broker crash", lambda: killed(server), (0.0, 2.0))


@contextmanager
def killed(server: PrivateServer) -> Iterator[None]:
    """Have a server dead, and then start it again."""
    server.kill()
    yield
    server.start()


def _refusals(refuse: Callable[[bool], None], *, may_cost: bool) -> ServerFault:
    """Have the server refuse what writes; a job may cost that whose settlement it refuses to the end."""

    @contextmanager
    def refused() -> Iterator[None]:
        refuse(True)
        yield
        refuse(False)

    return ServerFault("writes refused", refused, (1.0, 2 * LEASE_S), may_cost)


ENVIRONMENTS: dict[str, StartEnvironment] = {
    "sqlite": sqlite,
    "redis": redis,
    "rabbitmq": rabbitmq,
    "postgresql": postgresql,
}
