"""End the servers of a test run, and remove their folders, when the run has died before it could.

A test run starts one watchdog, which reads from a pipe what there is to end. The pipe closes when the run
ends, in whatever way. Run as a script, this file is the watchdog; it imports nothing of the project.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_lock = threading.Lock()
_watchdog: subprocess.Popen[bytes] | None = None


def watch_process(pid: int) -> None:
    """End this process, its group and its children if this run dies."""
    _tell("process", pid)


def forget_process(pid: int) -> None:
    """Leave this process alone: it has ended, and another may get its id."""
    _tell("ended", pid)


def watch_folder(folder: Path) -> None:
    """Remove this folder when this run ends."""
    _tell("folder", folder)


def kill_tree(pid: int) -> list[int]:
    """Kill a process, its group and its children with SIGKILL; return the ids of the children."""
    _signal_group(pid, signal.SIGSTOP)  # so that it starts no more
    children = children_of(pid)
    for child in children:
        send_signal(child, signal.SIGKILL)
    _signal_group(pid, signal.SIGKILL)
    return children


def children_of(pid: int) -> list[int]:
    """Return the processes that this process has started, and that run."""
    return [child for child, parent in _processes() if parent == pid]


def running(pids: Iterable[int]) -> set[int]:
    """Return which of these processes still run."""
    return {pid for pid, _ in _processes()}.intersection(pids)


def _processes() -> Iterator[tuple[int, int]]:
    """Yield the id of each process that runs, and that of its parent; a zombie doesn't run any more."""
    for pid, parent, state in _from_proc() if Path("/proc/self/stat").exists() else _from_ps():
        if not state.startswith("Z"):
            yield int(pid), int(parent)


def _from_proc() -> Iterator[tuple[str, str, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended in the meantime
                # The name of the program comes second, in parentheses, and may contain any character.
                state, parent = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
                yield entry.name, parent, state


def _from_ps() -> Iterator[tuple[str, str, str]]:
    command = ["ps", "-A", "-o", "pid=,ppid=,state="]
    for line in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
        pid, parent, state = line.split()
        yield pid, parent, state


def send_signal(pid: int, number: int) -> None:
    """Signal a process, which may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _tell(what: str, value: object) -> None:
    global _watchdog
    with _lock:
        if _watchdog is None:
            _watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # so that Ctrl-C doesn't reach it
            )
            atexit.register(_say_the_end, _watchdog)
        assert _watchdog.stdin is not None
        _watchdog.stdin.write(f"{what} {value}\n".encode())


def _say_the_end(watchdog: subprocess.Popen[bytes]) -> None:
    """Close the pipe in order, else Python warns of it and of the process that still runs."""
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    with suppress(subprocess.TimeoutExpired):  # a child of this run still has the pipe
        watchdog.wait(5)


def main() -> None:
    """Read what there is to end, and end what is left when the run has ended."""
    processes: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        what, _, value = line.rstrip("\n").partition(" ")
        match what:
            case "process":
                processes.add(int(value))
            case "ended":
                processes.discard(int(value))
            case "folder":
                folders.append(value)
    for pid in processes:
        kill_tree(pid)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
