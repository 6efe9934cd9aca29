"""The real command, in a pseudo-terminal and as a pipe, on a real broker."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from brokers.fixtures import StartRedis
from brokers.private_server import free_port
from brokers.redis_server import PrivateRedis
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Orchestrator
from mindtrace.jobs.application.worker.health import HealthFile

# They start hundreds of processes, which need processors. Tests that wait leave them some.
pytestmark = pytest.mark.begins_first

COMMAND = str(Path(sysconfig.get_path("scripts"), "mindtrace-jobs"))
IN_A_TERMINAL = """
import os, pty, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in a terminal, whatever ran these tests in the background
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""

TASKS = """
import os, time
from mindtrace.jobs import Consumer, JobInput, JobOutput, JobSchema, RetryPolicy

VERSION = 1

class Nap(JobInput):
    seconds: float = 0.0
    steps: int = 1
    until: str = ""  # a file that is there, or "stopped": the worker was told to stop
    processes: int = 1  # how many must have run such a job

class Slept(JobOutput):
    pid: int
    version: int

class Sleeper(Consumer):
    schema = JobSchema(name="naps", input=Nap, output=Slept)

    def run(self, job):
        nap = job.payload
        for step in range(nap.steps):
            time.sleep(nap.seconds / nap.steps)
            job.progress(step + 1, nap.steps)
        with open(f"{os.getpid()}.ran", "w") as ran:
            ran.write(os.environ["MINDTRACE_JOBS_PROCESS_NUMBER"])
        while not self.is_over(nap):
            time.sleep(0.01)
        return Slept(pid=os.getpid(), version=VERSION)

    def is_over(self, nap):
        if len([name for name in os.listdir() if name.endswith(".ran")]) < nap.processes:
            return False
        if nap.until == "stopped":
            return self._connection.loop._stopping.is_set
        return not nap.until or os.path.exists(nap.until)

class AsyncSleeper(Sleeper):
    schema = JobSchema(name="async-naps", input=Nap, output=Slept)

    async def run(self, job):
        return super().run(job)

class Crasher(Consumer):
    schema = JobSchema(name="crashes", input=Nap, retry=RetryPolicy(max_crashes=2))

    def run(self, job):
        os.kill(os.getpid(), 9)
"""


class Running:
    """A command that was started, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(ValueError):  # closed under its hands, at the end of a test
            for chunk in iter(lambda: self.process.stdout.read1(), b""):  # type: ignore[union-attr]
                self.text += chunk.decode(errors="replace")

    def wait_for(self, pattern: str, *, count: int = 1) -> re.Match[str]:
        """Wait until it has printed ``pattern`` so many times."""
        give_up = time.monotonic() + LIMIT_S
        while True:
            may_print_more = self._reader.is_alive() and time.monotonic() < give_up
            if len(found := list(re.finditer(pattern, self.text))) >= count:
                return found[-1]
            assert may_print_more, f"{pattern!r} never came:\n{self.text}"
            time.sleep(0.02)

    def type(self, keys: str) -> None:
        """Type on its terminal."""
        assert self.process.stdin is not None
        self.process.stdin.write(keys.encode())
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, within_s: float = LIMIT_S) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(within_s)
        self._reader.join(LIMIT_S)
        return code


class Shell:
    """Runs commands in a folder, on the backend that its environment names, or else on the default."""

    def __init__(self, folder: Path, stack: ExitStack, **variables: str) -> None:
        folder.joinpath("tasks.py").write_text(TASKS, "utf-8")
        self.folder = folder
        self._stack = stack
        unwanted = ("MINDTRACE_JOBS_", "NO_COLOR", "FORCE_COLOR", "TTY_", "OTEL_", "PYTHON")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        self.env |= {"TERM": "xterm", "COLUMNS": "120", **variables}

    def start(self, *words: str, terminal: bool = False, through: str | None = None) -> Running:
        """Start a command; ``through`` is a program that runs it, as one in a terminal has."""
        program = IN_A_TERMINAL if terminal else through
        line = [COMMAND, *words] if program is None else [sys.executable, "-c", program, COMMAND, *words]
        process = subprocess.Popen(
            line,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.PIPE if terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(_end, process)
        return Running(process)

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command as a pipe that must end with ``code``; return what it printed on stdout."""
        done = subprocess.run(
            [COMMAND, *words],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            encoding="utf-8",
            timeout=2 * LIMIT_S,  # a command may be told to wait for so long
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr, "a pipe got colours"
        return done.stdout

    def publish(self, queue: str = "naps", consumer: str = "Sleeper", **payload: Any) -> str:
        words = ("publish", queue, "--json", json.dumps(payload), "--schema", f"tasks:{consumer}")
        return self.run(*words).strip()

    def counts(self, queue: str = "naps") -> dict[str, int]:
        (view,) = json.loads(self.run("queues", queue, "--json"))
        return {state: view[state] for state in ("ready", "in_flight", "delayed", "dead")}

    def result(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's result."""
        answer: dict[str, Any] = json.loads(self.run("result", job_id, "--wait", str(LIMIT_S)))
        return answer

    def wait_until_a_nap_runs(self) -> None:
        """Wait until a handler was called: a job that is in flight may yet have to wait for that."""
        eventually(lambda: list(self.folder.glob("*.ran")), "a job runs")

    def end_naps(self) -> None:
        """Let jobs end that last until the file ``go`` is there."""
        self.folder.joinpath("go").touch()

    def process_numbers(self) -> list[str]:
        """The numbers of the processes that have run a job."""
        return sorted(file.read_text() for file in self.folder.glob("*.ran"))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@pytest.fixture
def server(private_redis: StartRedis) -> PrivateRedis:
    return private_redis(requirepass="swordfish")


@pytest.fixture
def shell(tmp_path: Path, server: PrivateRedis) -> Iterator[Shell]:
    """On a broker."""
    with ExitStack() as stack:
        yield Shell(tmp_path, stack, MINDTRACE_JOBS_BACKEND=server.url)


@pytest.fixture
def bare_shell(tmp_path: Path) -> Iterator[Shell]:
    """Where nothing was installed but the package, nothing started and nothing configured."""
    with ExitStack() as stack:
        yield Shell(tmp_path, stack)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text("ascii").split()] if path.exists() else []


# -- with nothing configured ----------------------------------------------------------------------


def test_two_terminals_work_together_with_nothing_started(bare_shell: Shell) -> None:
    """On a file in the working folder, which the first that publishes or works makes."""
    shell = bare_shell
    assert "no queues are declared here" in shell.run("queues")
    shell.run("doctor", "tasks:Sleeper")
    assert not shell.folder.joinpath("mindtrace-jobs.db").exists()

    worker = shell.start("worker", "tasks:Sleeper", "-p", "2", terminal=True)
    worker.wait_for(f"tasks:Sleeper on sqlite:///{bare_shell.folder}/mindtrace-jobs.db")
    worker.wait_for("working on naps", count=2)
    watching = shell.start("queues", "--watch", "--every", "0.2", terminal=True)
    watching.wait_for("change/s")
    job_id = shell.run("publish", "naps", "--json", '{"steps": 6, "until": "go"}').strip()
    watching.wait_for(rf"naps/{job_id}: [1-6]/6")
    shell.end_naps()

    assert shell.result(job_id)["pid"] in children_of(children_of(worker.process.pid)[0])
    assert shell.counts() == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0}
    for running in (watching, worker):
        running.type("\x03")
        assert running.ends() == 0
    shell.run("doctor", "tasks:Sleeper")


# -- as a pipe ------------------------------------------------------------------------------------


def test_from_a_file_to_a_drained_queue(shell: Shell) -> None:
    """Publish many, work them off in a burst of two processes, look at what came of them."""
    shell.folder.joinpath("jobs.jsonl").write_text('{"processes": 2}\n' * 200, "utf-8")
    published = shell.run("publish", "naps", "--file", "jobs.jsonl", "--schema", "tasks:Sleeper")
    job_id = shell.publish(seconds=0)
    assert re.fullmatch(r"published 200 of 200 jobs in [\d.]+ s, [\d,]+ a second\n", published)
    assert shell.counts() == {"ready": 201, "in_flight": 0, "delayed": 0, "dead": 0}

    worker = shell.start("worker", "tasks:Sleeper", "-p", "2", "-c", "2", "--burst", "--log-format", "json")
    assert worker.ends() == 0

    lines = [json.loads(line) for line in worker.text.splitlines()]
    jobs = [line["job"] for line in lines if "job" in line]
    assert len(jobs) == 201
    assert len({line["pid"] for line in lines if "job" in line}) == 2
    assert shell.process_numbers() == ["0", "1"]
    assert jobs[0].keys() == {"id", "queue", "attempt", "duration_s", "outcome"}
    assert shell.counts() == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0}
    assert json.loads(shell.run("result", job_id))["version"] == 1


def test_an_async_consumer_and_another_share_a_worker(shell: Shell) -> None:
    first, second = shell.publish(), shell.publish("async-naps", "AsyncSleeper")
    assert shell.start("worker", "tasks:Sleeper", "tasks:AsyncSleeper", "--burst").ends() == 0
    assert json.loads(shell.run("result", first)) == json.loads(shell.run("result", second))


def test_consumers_and_numbers_come_from_pyproject(shell: Shell) -> None:
    shell.folder.joinpath("pyproject.toml").write_text(
        '[tool.mindtrace-jobs]\nconsumers = ["tasks:Sleeper"]\nprocesses = 2\nconcurrency = 3\n', "utf-8"
    )
    worker = shell.start("worker")
    worker.wait_for("working on naps, 3 at a time", count=2)
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.long
def test_a_mistake_in_the_real_command_is_one_line(shell: Shell) -> None:
    """A worker tells it once, however many processes it was to have."""
    worker = shell.start("worker", "tasks:Nobody", "-p", "4", "--log-level", "warning")
    assert worker.ends() == 2
    assert worker.text == (
        "error: module 'tasks' has no 'Nobody'; consumers in tasks: Sleeper, AsyncSleeper, Crasher\n"
    )
    shell.env["MINDTRACE_JOBS_BACKEND"] = "redis://:swordfish@127.0.0.1:1/0"
    queues = shell.start("queues")
    assert queues.ends() == 3
    assert queues.text.startswith("error: no Redis answers at 127.0.0.1:1")
    worker = shell.start("worker", "tasks:Sleeper", "--log-level", "error")
    assert worker.ends() == 3
    assert "error: no Redis answers at 127.0.0.1:1" in worker.text
    assert "swordfish" not in worker.text


def test_a_reader_that_has_enough_ends_the_command_quietly(shell: Shell) -> None:
    shell.publish()
    line = f"{COMMAND} queues --json --watch --every 0.05 | head -n 2"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_no_secret_is_seen_in_the_list_of_processes(shell: Shell) -> None:
    """Given by the environment, it is handed on to the processes where nobody can look."""
    worker = shell.start("worker", "tasks:Sleeper")
    worker.wait_for("working on")
    (child,) = children_of(worker.process.pid)
    for pid in (worker.process.pid, child):
        assert b"swordfish" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert "swordfish" not in worker.text


# -- stopping, dying, reloading -------------------------------------------------------------------


def test_sigterm_lets_the_job_that_runs_end(shell: Shell) -> None:
    job_id = shell.publish(until="stopped")
    shell.publish()
    worker = shell.start("worker", "tasks:Sleeper", "--prefetch", "2")
    shell.wait_until_a_nap_runs()
    worker.signal(signal.SIGTERM)

    assert worker.ends() == 0
    assert json.loads(shell.run("result", job_id))["version"] == 1
    assert shell.counts() == {"ready": 1, "in_flight": 0, "delayed": 0, "dead": 0}


@pytest.mark.parametrize("how", ["grace ends", "second signal"])
def test_a_job_that_does_not_end_is_given_back_at_once(shell: Shell, server: PrivateRedis, how: str) -> None:
    """With no attempt spent, so that another worker has it next."""
    shell.publish(until="never")
    worker = shell.start("worker", "tasks:Sleeper", "--grace", "0.5" if how == "grace ends" else "3600")
    shell.wait_until_a_nap_runs()
    worker.signal(signal.SIGTERM)
    if how == "second signal":
        worker.wait_for("finishing the jobs that run")
        time.sleep(0.3)  # or it would be taken for the same one
        worker.signal(signal.SIGTERM)

    assert worker.ends() == (0 if how == "grace ends" else 130)
    assert shell.counts() == {"ready": 1, "in_flight": 0, "delayed": 0, "dead": 0}
    with server.client() as client, client.open_consumer("naps") as consumer:
        (delivery,) = consumer.receive(1, 0)
        assert (delivery.attempt, delivery.crashes) == (1, 0)


def test_a_process_that_dies_is_replaced_and_its_job_run_again(shell: Shell) -> None:
    job_id = shell.publish(until="go")
    worker = shell.start("worker", "tasks:Sleeper", "--lease", "2")
    eventually(lambda: shell.process_numbers() == ["0"], "it runs")
    (child,) = children_of(worker.process.pid)
    os.kill(child, signal.SIGKILL)
    worker.wait_for(rf"process {child} died of SIGKILL; another starts in 1 s")
    shell.end_naps()

    assert shell.result(job_id)["pid"] != child
    assert shell.process_numbers() == ["0", "0"]


def test_a_job_that_kills_its_worker_does_not_end_the_others(shell: Shell) -> None:
    """The supervisor goes on, later and later."""
    shell.publish("crashes", "Crasher")
    worker = shell.start("worker", "tasks:Crasher", "--lease", "0.5")
    worker.wait_for(r"died of SIGKILL; another starts in 1 s")
    worker.wait_for(r"died of SIGKILL; another starts in 2 s")
    worker.wait_for("crash budget exhausted")
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


def test_a_burst_waits_for_the_job_of_its_own_process_that_died(bare_shell: Shell) -> None:
    bare_shell.publish("crashes", "Crasher")
    worker = bare_shell.start("worker", "tasks:Crasher", "--burst", "--lease", "2")

    assert worker.ends() == 0
    assert bare_shell.counts("crashes") == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 1}


ORPHANING = """
import subprocess
from mindtrace.jobs import Consumer, JobInput, JobSchema

class Nothing(JobInput):
    pass

class Starter(Consumer):
    schema = JobSchema(name="starts", input=Nothing)

    def run(self, job):
        subprocess.run(["sh", "-c", "true & true &"], check=True)
"""
AS_IN_A_CONTAINER = """
import ctypes, os, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command that gets the orphans of its processes, as the first process of a container does."""


def test_processes_that_jobs_leave_behind_are_reaped(bare_shell: Shell) -> None:
    """Or the first process of a container keeps each as a zombie, until no process can be started."""
    bare_shell.folder.joinpath("orphaning.py").write_text(ORPHANING, "utf-8")
    for _ in range(3):
        bare_shell.run("publish", "starts", "--json", "{}", "--schema", "orphaning:Starter")
    worker = bare_shell.start("worker", "orphaning:Starter", through=AS_IN_A_CONTAINER)
    worker.wait_for("s: done", count=3)

    eventually(lambda: len(children_of(worker.process.pid)) == 1, "all but its own are reaped")
    (own,) = children_of(worker.process.pid)
    os.kill(own, signal.SIGKILL)
    worker.wait_for(f"process {own} died of SIGKILL")
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


BREAKING = """
import os, sys, time
from pathlib import Path
from mindtrace.jobs import Consumer, JobInput, JobSchema, RetryPolicy

class How(JobInput):
    code: str

class Breaker(Consumer):
    schema = JobSchema("breaks", How, retry=RetryPolicy(max_attempts=2, base_delay_s=0, max_crashes=2))

    def run(self, job):
        exec(job.payload.code)
"""


@pytest.fixture
def breaking(bare_shell: Shell) -> Shell:
    """A shell with a consumer, ``breaking:Breaker``, that runs the code that a job brings."""
    bare_shell.folder.joinpath("breaking.py").write_text(BREAKING, "utf-8")
    return bare_shell


def publish_code(shell: Shell, *codes: str) -> None:
    shell.folder.joinpath("jobs.jsonl").write_text(
        "".join(json.dumps({"code": code}) + "\n" for code in codes), "utf-8"
    )
    shell.run("publish", "breaks", "--file", "jobs.jsonl", "--schema", "breaking:Breaker")


@pytest.mark.parametrize(
    ("code", "dead"),
    [
        ("raise KeyboardInterrupt", 1),
        ("sys.exit(0)", 1),
        ("os._exit(0)", 1),
        ("self.stop()", 0),
        ("self.close()", 0),
        ("import signal; signal.raise_signal(signal.SIGTERM)", 0),
    ],
)
def test_no_job_ends_a_worker_however_it_tries(breaking: Shell, code: str, dead: int) -> None:
    """It fails by its budgets or is done, the jobs behind it run, and a burst has not ended before them."""
    publish_code(breaking, code, "pass", "pass")
    burst = breaking.start("worker", "breaking:Breaker", "--burst", "--lease", "1", "--prefetch", "1")

    assert burst.ends() == 0  # up to three processes, one after the other
    assert breaking.counts("breaks") == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": dead}


def test_a_job_that_breaks_its_process_is_charged_for_it(breaking: Shell, server: PrivateRedis) -> None:
    """The process fails where no handler runs, such as at a descriptor that the job has closed (RTY-3)."""
    breaking.env["MINDTRACE_JOBS_BACKEND"] = server.url
    publish_code(breaking, "os.closerange(3, 256); time.sleep(3600)", "pass")
    burst = breaking.start("worker", "breaking:Breaker", "--burst", "--lease", "1", "--prefetch", "1")

    assert burst.ends() == 0
    assert breaking.counts("breaks") == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 1}


def test_a_process_that_somebody_else_stops_is_replaced(breaking: Shell) -> None:
    """An operator or a memory guard may send SIGTERM to one; the worker stays as many as it was."""
    worker = breaking.start("worker", "breaking:Breaker", "-p", "2")
    worker.wait_for("working on", count=2)
    (first, second) = children_of(worker.process.pid)
    os.kill(first, signal.SIGTERM)
    worker.wait_for(f"process {first} ended with exit code 0, and nobody here stopped it; another starts")
    worker.wait_for("working on", count=3)

    assert second in children_of(worker.process.pid)
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0


def test_a_signal_to_every_process_is_one_graceful_stop(breaking: Shell) -> None:
    """As systemd stops a service: each process hears of it twice, and the job that runs is finished.

    The idle process hears of it from here once its supervisor does, which would else see it end by itself.
    """
    runs = "Path('runs').write_text(str(os.getpid()))\nwhile not Path('go').exists(): time.sleep(0.01)"
    publish_code(breaking, runs)
    worker = breaking.start("worker", "breaking:Breaker", "-p", "2")
    worker.wait_for("working on", count=2)
    written = breaking.folder / "runs"
    eventually(lambda: written.exists() and written.read_text("ascii"), "it runs")
    busy = int(written.read_text("ascii"))
    (idle,) = (pid for pid in children_of(worker.process.pid) if pid != busy)
    os.kill(busy, signal.SIGTERM)
    worker.signal(signal.SIGTERM)
    worker.wait_for("SIGTERM: stopping")
    with suppress(ProcessLookupError):  # it has ended by then, if it was quick
        os.kill(idle, signal.SIGTERM)
    breaking.folder.joinpath("go").touch()

    assert worker.ends() == 0
    assert "ERROR" not in worker.text
    assert "starts in" not in worker.text
    assert breaking.counts("breaks") == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0}


def test_a_job_may_start_and_end_processes_of_its_own(breaking: Shell) -> None:
    """A pool ends its processes by SIGTERM, which they don't pass on to the worker."""
    pool = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as pool: pool.map(abs, [1])"
    publish_code(breaking, pool, pool)
    burst = breaking.start("worker", "breaking:Breaker", "--burst")

    assert burst.ends() == 0
    assert len(re.findall("s: done", burst.text)) == 2
    assert "SIGTERM" not in burst.text


def test_a_module_that_exits_when_it_is_imported_is_a_mistake(bare_shell: Shell) -> None:
    """However well it says it went: nothing was worked on."""
    bare_shell.folder.joinpath("exits.py").write_text("raise SystemExit(0)\n", "utf-8")
    worker = bare_shell.start("worker", "exits:Consumer")

    assert worker.ends() == 2
    assert "module 'exits' can't be imported" in worker.text


FAILING = """
from breaking import Breaker

class Unmade(Breaker):
    def __init__(self):
        super().__init__()
        raise RuntimeError("no GPU is free")

class Unconnected(Breaker):
    def connect(self, orchestrator, **settings):
        raise RuntimeError("no GPU is free")
"""


@pytest.mark.parametrize(("name", "code"), [("Unmade", 2), ("Unconnected", 70)])
def test_a_consumer_that_fails_before_it_begins_ends_the_worker(
    breaking: Shell, name: str, code: int
) -> None:
    """With its traceback, once: another process would only fail again."""
    breaking.folder.joinpath("failing.py").write_text(FAILING, "utf-8")
    worker = breaking.start("worker", f"failing:{name}", "-p", "2")

    assert worker.ends() == code
    assert worker.text.count("Traceback (most recent call last)") == 1
    assert "RuntimeError: no GPU is free" in worker.text
    assert "another starts" not in worker.text


def test_a_handler_closes_and_reads_no_pipe_of_the_workers(breaking: Shell) -> None:
    """Standard input is empty for it, and the end of the supervisor is noticed all the same."""
    publish_code(breaking, "Path('read').write_text(repr(sys.stdin.read())); os.close(0)")
    worker = breaking.start("worker", "breaking:Breaker")
    worker.wait_for("s: done")
    assert breaking.folder.joinpath("read").read_text("utf-8") == "''"
    (child,) = children_of(worker.process.pid)
    worker.signal(signal.SIGKILL)
    worker.process.wait()

    eventually(lambda: not Path(f"/proc/{child}/exe").exists(), "no orphan is left")


def test_a_thread_that_a_job_leaves_behind_keeps_no_process(breaking: Shell) -> None:
    """Python would wait for it for ever; it has the grace period."""
    publish_code(breaking, "import threading; threading.Thread(target=threading.Event().wait).start()")
    burst = breaking.start("worker", "breaking:Breaker", "--burst", "--grace", "0.5")

    assert burst.ends() == 0


@pytest.mark.long
def test_processes_do_not_outlive_their_supervisor(shell: Shell) -> None:
    """However it died; the job that runs is finished first."""
    job_id = shell.publish(until="stopped")
    worker = shell.start("worker", "tasks:Sleeper")
    shell.wait_until_a_nap_runs()
    (child,) = children_of(worker.process.pid)
    worker.signal(signal.SIGKILL)
    worker.process.wait()

    eventually(lambda: not Path(f"/proc/{child}/exe").exists(), "no orphan is left")
    assert json.loads(shell.run("result", job_id))["version"] == 1


def test_a_change_of_the_code_is_reloaded(shell: Shell) -> None:
    """In development; a slip is survived until it is mended."""
    worker = shell.start("worker", "tasks:Sleeper", "--reload")
    worker.wait_for("working on")
    tasks = shell.folder / "tasks.py"
    tasks.write_text("def (\n", "utf-8")
    worker.wait_for("SyntaxError")
    # Of another size: a file that was written within the same second, too, would be taken for unchanged.
    tasks.write_text(TASKS.replace("VERSION = 1", "VERSION = 1 + 1"), "utf-8")
    worker.wait_for("working on", count=2)

    assert shell.result(shell.publish())["version"] == 2


def version(number: int) -> str:
    return TASKS.replace("VERSION = 1", f"VERSION = {number}")


def test_once_a_change_was_noticed_no_process_starts_a_job_with_the_old_code(shell: Shell) -> None:
    """Those that run are finished, one in each process."""
    old = [shell.publish(processes=2, until="go") for _ in range(2)]
    worker = shell.start("worker", "tasks:Sleeper", "--reload", "-p", "2")
    eventually(lambda: shell.process_numbers() == ["0", "1"], "both run one")
    new = shell.publish()
    shell.folder.joinpath("tasks.py").write_text(version(2), "utf-8")
    worker.wait_for("finishing the jobs that run", count=2)
    shell.end_naps()

    assert [shell.result(job_id)["version"] for job_id in (*old, new)] == [1, 1, 2]


def test_a_change_that_is_saved_while_the_new_process_starts_is_not_missed(shell: Shell) -> None:
    """What is imported by then may be older."""
    worker = shell.start("worker", "tasks:Sleeper", "--reload")
    worker.wait_for("working on")
    waits = "import pathlib, time\npathlib.Path('starts').touch()\n"
    waits += "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
    tasks = shell.folder / "tasks.py"
    tasks.write_text(waits + version(2), "utf-8")
    eventually((shell.folder / "starts").exists, "the new process imports")
    job_id = shell.run("publish", "naps", "--json", "{}").strip()
    tasks.write_text(version(3), "utf-8")
    worker.wait_for("the code has changed", count=2)
    shell.end_naps()

    assert shell.result(job_id)["version"] == 3


def test_an_import_that_takes_long_is_not_silence(bare_shell: Shell) -> None:
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n"
    bare_shell.folder.joinpath("slow.py").write_text(waits + TASKS, "utf-8")
    worker = bare_shell.start("worker", "slow:Sleeper")
    worker.wait_for("still importing the module of slow:Sleeper after 3 s")
    bare_shell.end_naps()
    worker.wait_for("working on naps")


@pytest.mark.long
def test_the_health_file_grows_old_when_a_handler_hangs(shell: Shell) -> None:
    worker = shell.start("worker", "tasks:Sleeper", "--poll", "0.5", "-p", "2", "--health-file", "health")
    worker.wait_for("working on", count=2)

    file, began_s = HealthFile(shell.folder / "health"), time.time()
    eventually(lambda: (file.read() or 0.0) > began_s, "both have polled since")
    shell.run("health", "health", "--within", "3600")
    shell.publish(until="never")
    shell.wait_until_a_nap_runs()
    hung_s = time.time()
    time.sleep(3.1)

    assert (file.read() or 0.0) < hung_s
    assert "unhealthy" in shell.run("health", "health", "--within", "3", code=1)


# -- metrics and traces ---------------------------------------------------------------------------


@pytest.mark.long
def test_metrics_of_all_processes_are_served_as_one(shell: Shell) -> None:
    for _ in range(10):
        shell.publish()
    port = free_port()
    worker = shell.start("worker", "tasks:Sleeper", "-p", "2", "--metrics-port", str(port))
    worker.wait_for("s: done", count=10)

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            text: str = response.read().decode()
            return text

    labels = 'messaging_destination_name="naps",messaging_system="redis"'
    consumed = f"messaging_client_consumed_messages_total{{{labels}}} 10.0"
    ended = f'messaging_process_duration_seconds_count{{{labels},outcome="done"}} 10.0'
    eventually(lambda: ended in scraped(), "all are counted")
    text = scraped()
    assert consumed in text
    assert "mindtrace_jobs_queue_jobs" not in text, "each worker would serve the same"


def test_the_jobs_in_queues_are_served_by_one_command(bare_shell: Shell) -> None:
    """Also while no worker runs."""
    bare_shell.publish()
    port = free_port()
    serving = bare_shell.start("exporter", "--port", str(port))
    serving.wait_for(rf"metrics of sqlite:///.* on http://127.0.0.1:{port}/metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    serving.signal(signal.SIGTERM)

    assert serving.ends() == 0
    assert 'mindtrace_jobs_queue_jobs{messaging_destination_name="naps",state="ready"} 1.0' in text
    assert re.search(
        r'^mindtrace_jobs_queue_waiting_seconds\{messaging_destination_name="naps"\} \d', text, re.MULTILINE
    )
    assert "mindtrace_jobs_backend_up 1.0" in text


def test_spans_are_sent_where_the_environment_says(shell: Shell) -> None:
    bodies: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        shell.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
        shell.publish()
        assert shell.start("worker", "tasks:Sleeper", "--burst", "--tracing").ends() == 0
        collector.shutdown()

    assert b"process naps" in b"".join(bodies)


# -- on a terminal --------------------------------------------------------------------------------


def test_a_terminal_has_colours_and_a_bar(shell: Shell) -> None:
    shell.folder.joinpath("jobs.jsonl").write_text("{}\n" * 5000, "utf-8")
    publish = shell.start(
        "publish", "naps", "--file", "jobs.jsonl", "--schema", "tasks:Sleeper", terminal=True
    )
    assert publish.ends() == 0
    assert "\x1b[" in publish.text
    assert "publishing" in publish.text
    assert re.search(r"5,000 jobs.*/s", publish.text)

    mistake = shell.start("queues", "nobody", terminal=True)
    assert mistake.ends() == 4
    assert "\x1b[1;31merror\x1b[0m: queue 'nobody': not declared" in mistake.text


def test_watching_shows_rates_and_progress_until_ctrl_c(shell: Shell) -> None:
    shell.publish(seconds=60, steps=60)
    watching = shell.start("queues", "--watch", "--every", "0.2", terminal=True)
    watching.wait_for("change/s")
    shell.start("worker", "tasks:Sleeper", "--grace", "0")
    watching.wait_for(r"naps/[0-9a-f]{32}: \d+/60 \(\d+%\)")
    watching.type("\x03")
    assert watching.ends() == 0
    assert "Traceback" not in watching.text


def test_ctrl_c_on_the_terminal_stops_a_worker_gracefully(shell: Shell) -> None:
    """It reaches the supervisor alone, so that one is one."""
    job_id = shell.publish(until="stopped")
    worker = shell.start("worker", "tasks:Sleeper", "-p", "2", terminal=True)
    worker.wait_for("working on", count=2)
    shell.wait_until_a_nap_runs()
    worker.type("\x03")

    assert worker.ends() == 0
    assert "again" not in worker.text
    assert json.loads(shell.run("result", job_id))["version"] == 1


def test_ctrl_c_twice_stops_it_at_once(shell: Shell) -> None:
    shell.publish(until="never")
    worker = shell.start("worker", "tasks:Sleeper", "--grace", "3600", terminal=True)
    shell.wait_until_a_nap_runs()
    worker.type("\x03")
    worker.wait_for("finishing the jobs that run")
    time.sleep(0.3)  # or it would be taken for the same one
    worker.type("\x03")

    assert worker.ends() == 130
    assert shell.counts()["ready"] == 1


def test_waiting_for_a_result_shows_its_progress(shell: Shell) -> None:
    job_id = shell.publish(steps=3, until="go")
    shell.start("worker", "tasks:Sleeper")
    waiting = shell.start("result", job_id, "--wait", str(LIMIT_S), terminal=True)
    waiting.wait_for(r"running: [1-3]/3")
    shell.end_naps()

    assert waiting.ends() == 0
    assert '"version": 1' in waiting.text


def test_a_question_is_asked_before_jobs_are_dropped(shell: Shell) -> None:
    shell.publish()
    no = shell.start("purge", "naps", terminal=True)
    no.wait_for(r"Drop 1 job of naps for good\? \[y/N\]")
    no.type("n\n")
    assert no.ends() == 130
    yes = shell.start("purge", "naps", terminal=True)
    yes.wait_for(r"\[y/N\]")
    yes.type("y\n")
    assert yes.ends() == 0
    assert "dropped 1 job" in yes.text


def test_the_command_and_the_library_work_together(shell: Shell, server: PrivateRedis) -> None:
    """What one publishes the other reads."""
    job_id = shell.publish(seconds=0)
    with server.client() as client:
        orchestrator = Orchestrator(client)
        orchestrator.attach("naps")
        assert orchestrator.receive_message("naps").id == job_id  # type: ignore[union-attr]
