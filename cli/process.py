"""One process of a worker, from both ends: what its supervisor starts, and what then runs in it.

The plan travels over the process's standard input, so that a URL's password is in no list of processes. The
pipe stays open: its end says that the supervisor is gone, and stops the process.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, field_serializer

from ..application import Orchestrator
from ..application.health import HealthFile, Pulse
from ..application.inbox import Inbox
from ..application.joblog import JobLog
from ..application.worker import Ending, Worker, WorkerSettings
from ..domain.errors import JobsError
from ..ports import Observer
from .app import check_shared
from .errors import Exit, exit_code
from .loading import load_maker
from .logs import WORKER, configure
from .output import fail
from .settings import LogFormat, LogLevel, Settings, add_to_path


class Plan(BaseModel):
    """What a process is to do."""

    model_config = ConfigDict(frozen=True)

    backend: SecretStr
    consumers: tuple[str, ...]
    app_dir: Path
    threads: int
    grace_s: float
    lease_s: float
    poll_s: float
    prefetch: int | None
    burst: bool
    log_format: LogFormat
    log_level: LogLevel
    beat_file: Path
    metrics: bool
    tracing: bool

    @field_serializer("backend", when_used="json")
    def _reveal(self, backend: SecretStr) -> str:
        return backend.get_secret_value()

    @classmethod
    def of(cls, settings: Settings, *, app_dir: Path, burst: bool, beat_file: Path) -> "Plan":
        """The plan that follows from the settings of the command."""
        shared = settings.model_dump(include=set(cls.model_fields))
        metrics = settings.metrics_port is not None
        return cls(**shared, app_dir=app_dir, burst=burst, beat_file=beat_file, metrics=metrics)


class WorkerProcess:
    """A process that was started, as its supervisor sees it."""

    def __init__(self, plan: Plan, beat: HealthFile, environment: Mapping[str, str]) -> None:
        beat.remove()
        self._beat = beat
        # A group of its own: Ctrl-C on the terminal reaches the supervisor alone, which passes it on.
        reader, self._writer = os.pipe()
        self._popen = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", __name__], stdin=reader, env=os.environ | environment, process_group=0
        )
        os.close(reader)
        with suppress(BrokenPipeError):  # it died at once: its exit code tells
            os.write(self._writer, plan.model_dump_json().encode() + b"\n")

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid

    @property
    def ready(self) -> bool:
        """Whether it has connected its consumers."""
        return self._beat.read() is not None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        code = self._popen.poll()
        if code is not None and self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        return code

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)


def main() -> int:
    """Do what the plan on standard input says, and return the exit code."""
    with Inbox() as inbox:
        plan = Plan.model_validate_json(_read_line())
        threading.Thread(target=_watch_supervisor, args=(inbox,), daemon=True).start()
        configure(plan.log_format, plan.log_level)
        add_to_path(plan.app_dir)
        try:
            ending = _work(plan, inbox)
        except JobsError as error:
            return fail(str(error), exit_code(error))
    if ending is Ending.CUT_SHORT:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(Exit.AT_ONCE)  # a handler still runs, on a thread that nothing else can end
    return Exit.OK


def _work(plan: Plan, inbox: Inbox) -> Ending:
    makers = [load_maker(target) for target in plan.consumers]
    pulse = Pulse(len(makers) * plan.threads)
    url = plan.backend.get_secret_value()
    with Orchestrator(url, observers=_observers(plan, pulse)) as orchestrator:
        check_shared(orchestrator, url)
        settings = WorkerSettings(
            threads=plan.threads,
            lease_s=plan.lease_s,
            prefetch=plan.prefetch,
            poll_timeout_s=plan.poll_s,
            grace_s=plan.grace_s,
            burst=plan.burst,
        )
        health = HealthFile(plan.beat_file)
        return Worker(orchestrator, makers, settings, inbox, WORKER, pulse=pulse, health=health).run()


def _observers(plan: Plan, pulse: Pulse) -> list[Observer]:
    observers: list[Observer] = [pulse]
    if WORKER.isEnabledFor(logging.INFO):
        observers.append(JobLog(WORKER))
    if plan.metrics:
        from .metrics import metrics_observer

        observers.append(metrics_observer(plan.backend.get_secret_value()))
    if plan.tracing:
        from .tracing import tracing_observer

        observers.append(tracing_observer(plan.backend.get_secret_value()))
    return observers


def _read_line() -> bytes:
    """Read one line without a buffer that could take more: the rest of the pipe is for the watcher."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            raise EOFError("no plan came from the supervisor")
        line += byte
    return line


def _watch_supervisor(inbox: Inbox) -> None:
    while os.read(0, 4096):
        pass
    WORKER.warning("the supervisor is gone")
    inbox.post(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
