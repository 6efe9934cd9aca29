"""Servers that the processes of a test run share."""

import subprocess
import sys
from pathlib import Path

from brokers import run_servers
from conditions import LIMIT_S

TESTING = Path(run_servers.__file__).parents[1]
SCRIPT = """
import sys
from contextlib import contextmanager
from pathlib import Path

from brokers.run_servers import RunServers


class Lookup:
    server = "Something"

    @contextmanager
    def open(self, folder):
        with open(sys.argv[2], "a+") as log:
            print("opened", file=log, flush=True)
            yield f"address {len(Path(log.name).read_text().split())}"
            print("closed", file=log, flush=True)


servers = RunServers(Path(sys.argv[1]))
print(servers.address(Lookup()), flush=True)
sys.stdin.readline()
servers.close()
"""


class User:
    """A process of the run: it uses a server, which notes what becomes of it, until it is told not to."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder / "run"), str(self.log)],
            env={"PYTHONPATH": str(TESTING)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()

    def begin_to_close(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.begin_to_close()
        self.end()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        """Wait until it is gone."""
        with self.process:
            self.process.wait(LIMIT_S)

    def notes(self) -> list[str]:
        return self.log.read_text("utf-8").split()


def test_whoever_opened_a_server_closes_it_when_nobody_uses_it(tmp_path: Path) -> None:
    first, second = User(tmp_path), User(tmp_path)
    assert first.address == second.address == "address 1"

    first.begin_to_close()
    third = User(tmp_path)  # may still come
    assert third.address == "address 1"
    second.close()
    assert third.notes() == ["opened"]
    third.close()
    first.end()

    assert first.notes() == ["opened", "closed"]


def test_who_comes_later_opens_it_anew(tmp_path: Path) -> None:
    for address in ("address 1", "address 3"):
        user = User(tmp_path)
        assert user.address == address
        user.close()

    assert user.notes() == ["opened", "closed"] * 2


def test_one_that_died_keeps_nobody_waiting(tmp_path: Path) -> None:
    first, second = User(tmp_path), User(tmp_path)
    second.kill()

    first.close()

    assert first.notes() == ["opened", "closed"]


def test_who_comes_after_one_that_died_opens_it_anew(tmp_path: Path) -> None:
    """What it opened has ended with it, or does so in a moment."""
    first, second = User(tmp_path), User(tmp_path)
    first.kill()
    third, fourth = User(tmp_path), User(tmp_path)

    assert (second.address, third.address, fourth.address) == ("address 1", "address 2", "address 2")

    for user in (second, fourth, third):
        user.close()
    assert third.notes() == ["opened", "opened", "closed"]
