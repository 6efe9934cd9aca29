"""The targets of the fault matrix: backends, and the faults that can be injected into each."""

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from brokers.proxy import Proxy
from conditions import LIMIT_S
from job_audit import ExecutionRecord
from mindtrace.jobs import LocalClient, Orchestrator, OrchestratorBackend
from mindtrace.jobs.adapters.sqlite import SQLiteClient

from ..recording_worker import SCHEMA, Worker
from ..worker_process import WorkerProcess

RETRY_TIMEOUT_S = 90.0
"""How long the calls of a client look for their server."""


class ExecutionRecords(NamedTuple):
    """The records that the workers of an experiment write."""

    received: ExecutionRecord
    started: ExecutionRecord
    finished: ExecutionRecord


class RunningWorker(Protocol):
    """A worker that was started, as a process or as a thread."""

    pid: int

    @property
    def has_ended(self) -> bool: ...

    def kill(self) -> None: ...

    def end(self) -> dict[str, int]: ...


class Target(ABC):
    """A backend that a test has to itself.

    Its tests share it, one after the other, each in a namespace of its own.
    """

    name: ClassVar[str]
    lease_s: ClassVar[float] = 3.0
    """How short a lease may be where a test has to wait for its end: one that a busy machine can keep."""

    @abstractmethod
    def client(self, namespace: str, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> OrchestratorBackend:
        """Connect a client; its calls give up after ``retry_timeout_s`` if there is a server to wait for."""

    @abstractmethod
    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> RunningWorker:
        """Start a worker, if need be through a proxy; ``options`` as those of ``recording_worker.py``."""

    def ensure_running(self) -> None:  # noqa: B027 - a backend without a server has none to start
        """Start it again if the last test left it down."""

    def close(self) -> None:  # noqa: B027 - nor an end
        """End it."""


class ProcessTarget(Target):
    """A backend that outlives the processes that use it: its workers are processes, and can be killed."""

    @abstractmethod
    def url(self, namespace: str, via: Proxy | None = None) -> str:
        """Return its URL, for a process."""

    @abstractmethod
    def out_of_space(self, client: OrchestratorBackend) -> AbstractContextManager[None]:
        """Leave it no space for anything that ``client`` publishes."""

    def url_with_store(self, namespace: str, via: Proxy | None = None) -> str:
        """Return its URL with a coordination store, which is reached through ``via``."""
        return self.url(namespace, via)

    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> WorkerProcess:
        files = {"finished": records.finished.path, "received": records.received.path}
        return WorkerProcess(self.url(namespace, via), records.started, **files, **options)


# -- one for each backend ----------------------------------------------------------------------


class LocalTarget(Target):
    """Queues in memory; its workers are threads."""

    name = "Local"

    def __init__(self, folder: Path) -> None:
        del folder

    def client(self, namespace: str, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> LocalClient:
        return LocalClient(namespace)

    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> "ThreadWorker":
        return ThreadWorker(self.client(namespace), records, **options)


class ThreadWorker:
    """The worker of ``recording_worker.py`` on a thread of this process."""

    def __init__(
        self,
        client: LocalClient,
        records: ExecutionRecords,
        *,
        job_s: float = 0.001,
        lease_s: float = 30.0,
        prefetch: int | None = None,
    ) -> None:
        self.pid = os.getpid()
        self._orchestrator = Orchestrator(client)
        self._orchestrator.register(SCHEMA)
        self._worker = Worker(
            str(records.started.path), job_s, str(records.finished.path), str(records.received.path)
        )
        self._worker.connect(self._orchestrator, lease_s=lease_s, prefetch=prefetch)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def _consume(self) -> None:
        try:
            self._worker.consume()
        except BaseException as error:
            self.error = error

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def kill(self) -> None:
        """A thread can't be killed: stop it if it runs."""
        if not self.has_ended:
            self.end()

    def end(self) -> dict[str, int]:
        self._worker.stop()
        self._thread.join(LIMIT_S)
        assert self.has_ended, "the worker doesn't stop"
        stats = self._worker.stats
        self._worker.close()
        self._orchestrator.close()
        assert self.error is None, repr(self.error)
        return {"done": stats.done, "lost": stats.lost}


class SQLiteTarget(ProcessTarget):
    """A file."""

    name = "SQLite"
    lease_s = 4.0  # a sync may take a good part of it, where the disk has other work

    def __init__(self, folder: Path) -> None:
        self._path = folder / "jobs.db"

    def client(self, namespace: str, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> SQLiteClient:
        return SQLiteClient(self._path, namespace=namespace)

    def url(self, namespace: str, via: Proxy | None = None) -> str:
        return f"sqlite:///{self._path}?namespace={namespace}"

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        """As a quota on the file does, for this client alone."""
        assert isinstance(client, SQLiteClient)
        session = client._session
        connection = session._connection
        assert connection is not None
        connection.execute("VACUUM")  # what other experiments have left free would be used first
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connect = session._connect

        def connect_limited() -> sqlite3.Connection:
            limited = connect()
            limited.execute(f"PRAGMA max_page_count = {pages}").fetchone()
            return limited

        session._drop()
        session._connect = connect_limited  # type: ignore[method-assign]
        try:
            yield
        finally:
            session._drop()
            session._connect = connect  # type: ignore[method-assign]
