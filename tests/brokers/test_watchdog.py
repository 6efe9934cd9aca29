"""What a test run has started ends with it, however the run ends."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers import watchdog
from conditions import LIMIT_S

TESTING = Path(watchdog.__file__).parents[1]
Eventually = Callable[[Callable[[], object]], None]

RUN = """
import os, sys, time
from pathlib import Path
from brokers import watchdog
from brokers.private_server import PrivateServer

ONE_MORE = "import subprocess, sys; subprocess.run(['sleep', '600'], start_new_session=True)"

class Sleeping(PrivateServer):
    def command(self):
        return [sys.executable, "-I", "-c", ONE_MORE]

    def answers(self):
        return watchdog.children_of(self._process.pid)

folder = Path(sys.argv[1])
watchdog.watch_folder(folder)
server = Sleeping(folder, start_s=60).start()
pid = server._process.pid
print(pid, *watchdog.children_of(pid), flush=True)
time.sleep(600)
"""
"""Start a process that starts another, in a session of its own, as PostgreSQL's first process does."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_servers_and_their_folders_go_when_the_run_is_killed(
    end: signal.Signals, tmp_path: Path, eventually: Eventually
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    command = [sys.executable, "-c", RUN, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=TESTING) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert watchdog.running(pids) == set(pids)
        assert len(pids) == 2
        run.send_signal(end)

    eventually(lambda: not watchdog.running(pids))
    eventually(lambda: not folder.exists())


def test_a_server_that_has_ended_is_forgotten_as_another_process_may_have_its_id(
    sleeper: subprocess.Popen[bytes],
) -> None:
    told = f"process {sleeper.pid}\nended {sleeper.pid}\n"
    subprocess.run([sys.executable, watchdog.__file__], input=told.encode(), check=True, timeout=LIMIT_S)
    assert sleeper.poll() is None


def test_a_process_that_nobody_has_waited_for_yet_does_not_run(
    sleeper: subprocess.Popen[bytes], eventually: Eventually
) -> None:
    assert watchdog.running([sleeper.pid]) == {sleeper.pid}
    watchdog.send_signal(sleeper.pid, signal.SIGKILL)
    eventually(lambda: not watchdog.running([sleeper.pid]))
    sleeper.wait()
