"""One process of a worker, from both ends: what its supervisor starts, and what then runs in it.

The plan travels over the process's standard input, so that a URL's password is in no list of processes. The
pipe stays open, out of the handlers' reach: its end says that the supervisor is gone, and stops the process.
One more line says that another process takes the place of this one. A process that is prepared to take the
place of another waits for a byte that tells it to begin.
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

from ..application.api.orchestrator import Orchestrator
from ..application.failures.handler_errors import try_to_log
from ..application.observing.job_logging import JobLogger
from ..application.process.signal_queue import AT_ONCE, BEGIN, REPLACE, STOP, SignalQueue
from ..application.worker.connecting import WorkerSettings
from ..application.worker.health import HealthFile, LastPolls
from ..application.worker.worker import Ending, MakeConsumer, Worker
from ..domain.errors import JobsError, StartFailed
from ..domain.printable import printable
from ..ports import Observer
from .app import check_shared
from .errors import BadUsage, ConsumerFailed, Exit, exit_code
from .loading import load_maker, load_observer
from .log_stream import log_stream
from .logs import WORKER, configure
from .memory_limit import MemoryLimit
from .settings import LogFormat, LogLevel, Order, Settings, add_to_path
from .targets import Target

_FINISHED = 100
"""How a process tells its supervisor that its work is done. With 0 any code that it runs may end it."""
_OVERDUE = 101
"""How it tells that another is to take its place, as a handler goes on long after its time limit."""
_REPLACED = 102
"""How it tells that another is to take its place, as its supervisor had it end for that."""
_FLUSH_S = 1.0
"""For how long a process that ends waits until its output is written."""
_GIVE_BACK_S = 10.0
"""For how long a process that a handler keeps from ending may take to give its jobs back."""
_SLOW_IMPORT_S = 3.0
_BEGIN = b"b"
_FOREVER_S = 3600.0
_IS_SLOW = (
    "still importing the module of %s after %g s: no job runs until that is done. If the module itself calls "
    "consume() or waits for something, do that under: if __name__ == '__main__'"
)
_EXIT_CODES = {
    Ending.FINISHED: _FINISHED,
    Ending.STOPPED: Exit.OK,
    Ending.CUT_SHORT: Exit.OK,
    Ending.AT_ONCE: Exit.AT_ONCE,
    Ending.REPLACED: _REPLACED,
    Ending.OVERDUE: _OVERDUE,
    Ending.DIED: Exit.BUG,
}


class Plan(BaseModel):
    """What a process is to do."""

    model_config = ConfigDict(frozen=True)

    backend: SecretStr
    consumers: tuple[str, ...]
    observers: tuple[str, ...]
    app_dir: Path
    concurrency: int | None
    jobs: int | None
    order: Order | None
    grace_s: float
    lease_s: float
    poll_s: float
    prefetch: int | None
    timeout_s: float | None
    batch_size: int | None
    batch_wait_s: float | None
    max_jobs: int | None
    max_memory_bytes: int | None
    burst: bool
    follows_a_death: bool
    log_format: LogFormat
    log_level: LogLevel
    beat_file: Path
    prepared_file: Path | None
    """Where a process says that it is prepared, which waits then; None if it is to begin at once."""
    waiting_file: Path | None
    metrics: bool
    tracing: bool
    schedules: bool

    @field_serializer("backend", when_used="json")
    def _reveal(self, backend: SecretStr) -> str:
        return backend.get_secret_value()

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        app_dir: Path,
        burst: bool,
        follows_a_death: bool,
        beat_file: Path,
        prepared_file: Path | None,
        waiting_file: Path | None,
    ) -> "Plan":
        """The plan that follows from the settings of the command."""
        limit = settings.max_memory and MemoryLimit.parse(settings.max_memory)
        return cls(
            **settings.model_dump(include=set(cls.model_fields)),
            app_dir=app_dir,
            burst=burst,
            follows_a_death=follows_a_death,
            beat_file=beat_file,
            prepared_file=prepared_file,
            waiting_file=waiting_file,
            max_memory_bytes=limit.bytes_of_each(settings.most_processes) if limit else None,
            metrics=settings.metrics_port is not None,
        )


PROCESS_NUMBER = "MINDTRACE_JOBS_PROCESS_NUMBER"
"""The environment variable that tells a process which one of its worker's it is: 0, 1, and so on.

It is the same for the process that replaces it, so that each may use a GPU of its own.
"""


class WorkerProcess:
    """A process that was started, as its supervisor sees it."""

    def __init__(self, plan: Plan, beat: HealthFile, environment: Mapping[str, str]) -> None:
        self._beat = beat
        self._request = _request_file(beat.path)
        self._prepared = plan.prepared_file
        if self._prepared is None:
            self._forget_predecessor()
        else:
            self._prepared.unlink(missing_ok=True)
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

    def _forget_predecessor(self) -> None:
        self._beat.remove()
        self._request.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid

    @property
    def is_prepared(self) -> bool:
        """Whether it has imported its consumers, and waits."""
        return self._prepared is not None and self._prepared.exists()

    def begin(self) -> None:
        """Have it take the place for which it was prepared."""
        self._forget_predecessor()
        with suppress(BrokenPipeError):
            os.write(self._writer, _BEGIN)

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

    @property
    def is_to_be_replaced(self) -> bool:
        """Whether it has ended as a handler went on after its time limit, or as :meth:`replace` told it."""
        return self._popen.returncode in (_OVERDUE, _REPLACED)

    @property
    def asks_for_another(self) -> str | None:
        """Why another is to take its place; None if it doesn't ask for that."""
        try:
            return self._request.read_text("utf-8") or None  # or it is being written
        except FileNotFoundError:
            return None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        code = self._popen.poll()
        if code is not None and self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            if code == _OVERDUE:
                self._kill_children()
        return code

    def _kill_children(self) -> None:
        """Kill what its handlers have started, for which the one that went on may have waited."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def replace(self) -> None:
        """Have it end, to be replaced, once the jobs that run have ended."""
        with suppress(BrokenPipeError):
            os.write(self._writer, b"\n")


def _request_file(beat_file: Path) -> Path:
    """Where a process says why another is to take its place."""
    return beat_file.with_suffix(".request")


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
    _end_in(plan.grace_s, code)
    return code


def _end_in(seconds: float, code: int) -> None:
    """End this process in so many seconds, whatever it does."""
    watchdog = threading.Timer(seconds, _end, [code])
    watchdog.daemon = True
    watchdog.start()


def _try_to_work(plan: Plan, signal_queue: SignalQueue) -> tuple[int, bool]:
    """Work; return the exit code, and whether every handler has ended."""
    try:
        ending = _work(plan, signal_queue)
    except JobsError as error:
        if isinstance(error, ConsumerFailed | StartFailed):
            WORKER.error("a consumer can't be made or started", exc_info=error.__cause__)
        log_stream().write(f"error: {printable(str(error))}\n")  # which waits for no reader
        return exit_code(error), False
    except BaseException:  # sys.exit(0) in a consumer's connect is a failure, too
        _tell_failure()
        return Exit.BUG, False
    return _EXIT_CODES[ending], ending in (Ending.FINISHED, Ending.STOPPED, Ending.REPLACED)


def _tell_failure() -> None:
    try_to_log(WORKER, logging.ERROR, "the process failed", traceback=True)


def _work(plan: Plan, signal_queue: SignalQueue) -> Ending:
    targets = [Target.parse(text) for text in plan.consumers]
    makers = [_load(target.name) for target in targets]
    if not configure(plan.log_format, plan.log_level):  # only now: the modules may do so as they are imported
        WORKER.info("logging is configured already: --log-format and --log-level have no effect")
    last_polls = LastPolls()
    url = plan.backend.get_secret_value()
    with Orchestrator(url, observers=_observers(plan, last_polls)) as orchestrator:
        check_shared(orchestrator, url)
        settings = WorkerSettings(
            concurrency=plan.concurrency,
            jobs=plan.jobs,
            order=plan.order or "weighted",
            weights=tuple(target.weight or 1 for target in targets),
            lease_s=plan.lease_s,
            prefetch=plan.prefetch,
            batch_size=plan.batch_size,
            batch_wait_s=plan.batch_wait_s,
            poll_timeout_s=plan.poll_s,
            timeout_s=plan.timeout_s,
            grace_s=plan.grace_s,
            burst=plan.burst,
            follows_a_death=plan.follows_a_death,
        )
        health = HealthFile(plan.beat_file)
        worker = Worker(
            orchestrator, makers, settings, signal_queue, WORKER, last_polls=last_polls, health=health
        )
        if plan.prepared_file is not None and not _await_begin(plan.prepared_file, signal_queue):
            return Ending.STOPPED
        if plan.waiting_file is not None:
            _start_reporting(plan.waiting_file, orchestrator, worker)
        with _scheduler(plan, orchestrator):
            try:
                ending = worker.run()
                if ending is Ending.OVERDUE:  # the handler may hold what closing waits for
                    _end_in(_GIVE_BACK_S, _OVERDUE)
                return ending
            except BaseException:
                if worker.failed_by_job:  # closing the orchestrator would release the job that is to blame
                    _tell_failure()
                    _end(Exit.BUG)
                raise


def _await_begin(prepared_file: Path, signal_queue: SignalQueue) -> bool:
    """Say that this process is prepared; return whether it is to begin, not to stop."""
    prepared_file.touch()
    os.kill(os.getppid(), signal.SIGCHLD)  # has the supervisor look
    while True:
        came = signal_queue.wait(_FOREVER_S)
        if any(number in (*STOP, AT_ONCE) for number in came):
            return False
        if BEGIN in came:
            if REPLACE in came:
                signal_queue.post(REPLACE)
            return True


def _load(target: str) -> MakeConsumer:
    """Import what ``target`` names, and say so if that takes long."""
    slow = threading.Timer(_SLOW_IMPORT_S, WORKER.warning, [_IS_SLOW, target, _SLOW_IMPORT_S])
    slow.daemon = True
    slow.start()
    try:
        return load_maker(target)
    finally:
        slow.cancel()


def _start_reporting(path: Path, orchestrator: Orchestrator, worker: Worker) -> None:
    """Tell the supervisor for how long jobs wait.

    Raises:
        BadUsage: the backend doesn't tell.
    """
    from ..application.worker.autoscaling import WaitingFile, report_waiting
    from ..application.worker.waiting_time import WaitingTimes

    if not orchestrator.backend.capabilities.first_ready:
        raise BadUsage(
            "--autoscale: this backend doesn't tell for how long jobs wait; use --processes, or have other "
            "means start workers by the number of jobs that are ready"
        )
    times = WaitingTimes(orchestrator.backend)
    arguments = (WaitingFile(path), times, lambda: worker.queues, WORKER)
    threading.Thread(target=report_waiting, args=arguments, daemon=True).start()


def _scheduler(plan: Plan, orchestrator: Orchestrator) -> AbstractContextManager[object]:
    """Publishes the jobs of schedules meanwhile, if the plan says so."""
    if not plan.schedules:
        return nullcontext()
    from ..application.schedules.scheduler import Scheduler

    return Scheduler(orchestrator, logger=WORKER)


def _observers(plan: Plan, last_polls: LastPolls) -> list[Observer]:
    observers: list[Observer] = [last_polls]
    if plan.max_jobs is not None or plan.max_memory_bytes is not None:
        observers.append(_recycling_limits(plan))
    if WORKER.isEnabledFor(logging.INFO):
        observers.append(JobLogger(WORKER))
    if plan.metrics:
        from .metrics import metrics_observer

        observers.append(metrics_observer(plan.backend.get_secret_value()))
    if plan.tracing:
        from .tracing import tracing_observer

        observers.append(tracing_observer(plan.backend.get_secret_value()))
    return [*observers, *map(load_observer, plan.observers)]


def _recycling_limits(plan: Plan) -> Observer:
    from ..application.worker.recycling import RecyclingLimits

    def ask(why: str) -> None:
        _request_file(plan.beat_file).write_text(why, "utf-8")
        os.kill(os.getppid(), signal.SIGCHLD)  # has the supervisor look; any other parent ignores it

    return RecyclingLimits(ask, WORKER, max_jobs=plan.max_jobs, max_memory_bytes=plan.max_memory_bytes)


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
    while byte := os.read(pipe, 1):
        signal_queue.post(BEGIN if byte == _BEGIN else REPLACE)
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
