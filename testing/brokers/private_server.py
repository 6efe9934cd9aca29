"""A server that a test has to itself: started in a folder of its own, to be stopped, killed or paused."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from . import watchdog

_END_S = 60.0
_RESERVED_S = 300.0
"""How long a port that was chosen isn't chosen again: by then its server listens, or never will."""
_PORTS = range(20_000, 30_000)
"""Below those that systems choose for outgoing connections, which would take one in the meantime."""


class NoServer(Exception):
    """There is no server, and no way to start one; the message says how to get one."""


class PrivateServer(ABC):
    """A process on a free port, which a test may break. It ends with the test run, also if that is killed.

    Args:
        folder: Where it keeps its files; must exist.
        start_s: How many seconds it may take to start.
    """

    def __init__(self, folder: Path, *, start_s: float) -> None:
        self.folder = folder
        self._start_s = start_s
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def environment(self) -> dict[str, str] | None:
        """Its environment; None for that of this process."""
        return None

    def process_options(self) -> dict[str, Any]:
        """Further arguments of ``subprocess.Popen``."""
        return {}

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        words = self.command()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                env=self.environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that a signal reaches what a script has started
                **self.process_options(),
            )
        watchdog.watch_process(self._process.pid)
        give_up = time.monotonic() + self._start_s
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"{words[0]} didn't start: {self.log()[-2000:]}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Shut it down gracefully; a no-op where it doesn't run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it for good."""
        self.kill()

    def restart(self) -> None:
        """Shut it down gracefully and start it again, at the same address."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it with SIGSTOP, connections left open, until :meth:`resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        self._signal(number)
        self._signal(signal.SIGCONT)
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
            watchdog.forget_process(self._process.pid)
            self._process = None


def free_port() -> int:
    """A port that nothing listens on, and that no other test of this user was given in the last minutes.

    A server takes some seconds before it listens at it, and other processes look for ports meanwhile.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if _reserve(port):
                return port
    raise NoServer(f"no port from {min(_PORTS)} to {max(_PORTS)} is free")


def _reserve(port: int) -> bool:
    """Reserve a port for ``_RESERVED_S`` seconds; return False if somebody else has reserved it."""
    folder = Path(tempfile.gettempdir()) / f"mindtrace-jobs-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    reserved = folder / str(port)
    with suppress(FileNotFoundError):
        if time.time() - reserved.stat().st_mtime > _RESERVED_S:
            reserved.unlink()
    try:
        reserved.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
