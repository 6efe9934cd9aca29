"""One process of a worker, from both ends: what its supervisor starts, and what then runs in it.

The plan travels over the process's standard input, so that a URL's password is in no list of processes. The
pipe stays open, out of the handlers' reach: its end says that the supervisor is gone, and stops the process.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, SecretStr, field_serializer

from ..application.handler_errors import try_to_log
from ..application.job_logging import JobLogger
from ..application.orchestrator import Orchestrator
from ..application.signals.signal_queue import AT_ONCE, STOP, SignalQueue
from ..application.worker.connecting import WorkerSettings
from ..application.worker.health import HealthFile, LastPolls
from ..application.worker.worker import Ending, MakeConsumer, Worker
from ..domain.errors import JobsError
from ..ports import Observer
from .app import check_shared
from .errors import ConsumerFailed, Exit, exit_code
from .loading import load_maker
from .logs import WORKER, configure
from .output import fail
from .settings import LogFormat, LogLevel, Settings, add_to_path

_FINISHED = 100
"""How a process tells its supervisor that its work is done. With 0 any code that it runs may end it."""
_FLUSH_S = 1.0
"""For how long a process that ends waits until its output is written."""
_SLOW_IMPORT_S = 3.0
_IS_SLOW = (
    "still importing the module of %s after %g s: no job runs until that is done. If the module itself calls "
    "consume() or waits for something, do that under: if __name__ == '__main__'"
)
_EXIT_CODES = {
    Ending.FINISHED: _FINISHED,
    Ending.STOPPED: Exit.OK,
    Ending.CUT_SHORT: Exit.OK,
    Ending.AT_ONCE: Exit.AT_ONCE,
    Ending.DIED: Exit.BUG,
}


class Plan(BaseModel):
    """What a process is to do."""

    model_config = ConfigDict(frozen=True)

    backend: SecretStr
    consumers: tuple[str, ...]
    app_dir: Path
    concurrency: int | None
    grace_s: float
    lease_s: float
    poll_s: float
    prefetch: int | None
    batch_size: int | None
    batch_wait_s: float | None
    burst: bool
    follows_a_death: bool
    log_format: LogFormat
    log_level: LogLevel
    beat_file: Path
    metrics: bool
    tracing: bool
    schedules: bool

    @field_serializer("backend", when_used="json")
    def _reveal(self, backend: SecretStr) -> str:
        return backend.get_secret_value()

    @classmethod
    def of(
        cls, settings: Settings, *, app_dir: Path, burst: bool, follows_a_death: bool, beat_file: Path
    ) -> "Plan":
        """The plan that follows from the settings of the command."""
        return cls(
            **settings.model_dump(include=set(cls.model_fields)),
            app_dir=app_dir,
            burst=burst,
            follows_a_death=follows_a_death,
            beat_file=beat_file,
            metrics=settings.metrics_port is not None,
        )


PROCESS_NUMBER = "MINDTRACE_JOBS_PROCESS_NUMBER"
"""The environment variable that tells a process which one of its worker's it is: 0, 1, and so on.

It is the same for the process that replaces it, so that each may use a GPU of its own.
"""


class WorkerProcess:
    """A process that was started, as its supervisor sees it."""

    def __init__(self, plan: Plan, beat: HealthFile, environment: Mapping[str, str]) -> None:
        beat.remove()
        self._beat = beat
        # A group of its own: Ctrl-C on the terminal reaches the supervisor alone, which passes it on.
        reader, self._writer = os.pipe()
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", __name__], stdin=reader, env=os.environ | environment, process_group=0
            )
        except OSError:
            os.close(self._writer)
            raise
        finally:
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

    @property
    def is_unread(self) -> bool:
        """Whether its exit code is still to be read."""
        return self._popen.returncode is None

    @property
    def finished(self) -> bool:
        """Whether it has ended because its work is done."""
        return self._popen.returncode == _FINISHED

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
    pipe = _take_standard_input()
    signal_queue = SignalQueue()
    signal_queue.__enter__()  # for good: else a late signal would end the process as if it had died
    plan = Plan.model_validate_json(_read_line(pipe))
    threading.Thread(target=_watch_supervisor, args=(pipe, signal_queue), daemon=True).start()
    add_to_path(plan.app_dir)
    code, in_order = _try_to_work(plan, signal_queue)
    for number in (*STOP, AT_ONCE):
        signal.signal(number, signal.SIG_IGN)  # which Python, too, leaves as it is when it ends
    if not in_order:
        _end(code)  # a handler may still run, on a thread that nothing else can end
    # A thread that a handler left behind, and that never ends, would keep the process for ever.
    watchdog = threading.Timer(plan.grace_s, _end, [code])
    watchdog.daemon = True
    watchdog.start()
    return code


def _try_to_work(plan: Plan, signal_queue: SignalQueue) -> tuple[int, bool]:
    """Work; return the exit code, and whether every handler has ended."""
    try:
        ending = _work(plan, signal_queue)
    except JobsError as error:
        if isinstance(error, ConsumerFailed):
            WORKER.error("a consumer can't be made", exc_info=error.__cause__)
        return fail(str(error), exit_code(error)), False
    except BaseException:  # sys.exit(0) in a consumer's connect is a failure, too
        _tell_failure()
        return Exit.BUG, False
    return _EXIT_CODES[ending], ending in (Ending.FINISHED, Ending.STOPPED)


def _tell_failure() -> None:
    try_to_log(WORKER, logging.ERROR, "the process failed", traceback=True)


def _work(plan: Plan, signal_queue: SignalQueue) -> Ending:
    makers = [_load(target) for target in plan.consumers]
    if not configure(plan.log_format, plan.log_level):  # only now: the modules may do so as they are imported
        WORKER.info("logging is configured already: --log-format and --log-level have no effect")
    last_polls = LastPolls(len(makers))
    url = plan.backend.get_secret_value()
    with Orchestrator(url, observers=_observers(plan, last_polls)) as orchestrator:
        check_shared(orchestrator, url)
        settings = WorkerSettings(
            concurrency=plan.concurrency,
            lease_s=plan.lease_s,
            prefetch=plan.prefetch,
            batch_size=plan.batch_size,
            batch_wait_s=plan.batch_wait_s,
            poll_timeout_s=plan.poll_s,
            grace_s=plan.grace_s,
            burst=plan.burst,
            follows_a_death=plan.follows_a_death,
        )
        health = HealthFile(plan.beat_file)
        worker = Worker(
            orchestrator, makers, settings, signal_queue, WORKER, last_polls=last_polls, health=health
        )
        with _scheduler(plan, orchestrator):
            try:
                return worker.run()
            except BaseException:
                if worker.failed_by_job:  # closing the orchestrator would release the job that is to blame
                    _tell_failure()
                    _end(Exit.BUG)
                raise


def _load(target: str) -> MakeConsumer:
    """Import what ``target`` names, and say so if that takes long."""
    slow = threading.Timer(_SLOW_IMPORT_S, WORKER.warning, [_IS_SLOW, target, _SLOW_IMPORT_S])
    slow.daemon = True
    slow.start()
    try:
        return load_maker(target)
    finally:
        slow.cancel()


def _scheduler(plan: Plan, orchestrator: Orchestrator) -> AbstractContextManager[object]:
    """Publishes the jobs of schedules meanwhile, if the plan says so."""
    if not plan.schedules:
        return nullcontext()
    from ..application.schedules.scheduler import Scheduler

    return Scheduler(orchestrator, logger=WORKER)


def _observers(plan: Plan, last_polls: LastPolls) -> list[Observer]:
    observers: list[Observer] = [last_polls]
    if WORKER.isEnabledFor(logging.INFO):
        observers.append(JobLogger(WORKER))
    if plan.metrics:
        from .metrics import metrics_observer

        observers.append(metrics_observer(plan.backend.get_secret_value()))
    if plan.tracing:
        from .tracing import tracing_observer

        observers.append(tracing_observer(plan.backend.get_secret_value()))
    return observers


def _take_standard_input() -> int:
    """Move the pipe to where neither a handler nor a program that it starts would read or close it."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def _read_line(pipe: int) -> bytes:
    """Read one line without a buffer that could take more: the rest of the pipe is for the watcher."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(pipe, 1)):
            raise EOFError("no plan came from the supervisor")
        line += byte
    return line


def _watch_supervisor(pipe: int, signal_queue: SignalQueue) -> None:
    while os.read(pipe, 4096):
        pass
    WORKER.warning("the supervisor is gone")
    signal_queue.post(signal.SIGTERM)


def _end(code: int) -> NoReturn:
    """End this process at once, whatever its threads do, and whoever doesn't read what it prints."""
    flushing = threading.Thread(target=_flush, daemon=True)
    try:
        flushing.start()
        flushing.join(_FLUSH_S)
    finally:
        os._exit(code)


def _flush() -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
