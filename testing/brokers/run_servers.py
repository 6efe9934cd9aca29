"""The servers that the processes of a test run share: the first that needs one opens it, and closes it."""

import fcntl
import os
import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from .server_lookup import ServerLookup

_ADDRESS = "address"


class RunServers:
    """What one process of the run has of its servers.

    Args:
        folder: The same in all processes of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def address(self, lookup: ServerLookup) -> Any:
        """Return the address of a server, which is opened unless another process has done so.

        Raises:
            NoServer: there is none; the message says how to get one.
        """
        folder = self._folder / lookup.server
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / _ADDRESS
        with ExitStack() as stack, (folder / "looking").open("ab+") as looking:
            fcntl.lockf(looking, fcntl.LOCK_EX)
            # A lock of the process: it ends with it, however that ends, and no child inherits it.
            users = stack.enter_context((folder / "users").open("ab+"))
            fcntl.lockf(users, fcntl.LOCK_SH)
            owner = stack.enter_context((folder / "owner").open("ab+"))
            if _is_free(owner):  # nobody opened it, or who did died, and it with them
                files = folder / str(os.getpid())
                files.mkdir()
                address = stack.enter_context(lookup.open(files))
                (files / _ADDRESS).write_bytes(pickle.dumps(address))
                (files / _ADDRESS).replace(note)  # whole, as others read it without a lock
                stack.callback(_end_use, users, note)
            else:
                address = pickle.loads(note.read_bytes())
            self._stack.push(stack.pop_all())
            return address

    def close(self) -> None:
        """Do without the servers; wait for the other processes where this one opened what they use."""
        self._stack.close()


def servers_folder(config: pytest.Config) -> Path:
    """The folder of the servers, which is the same in all processes of a run."""
    # A fixture has it as tmp_path_factory; the controlling process has no fixtures.
    folder: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (folder.parent if hasattr(config, "workerinput") else folder) / "servers"


def shared_addresses(folder: Path) -> dict[str, Any]:
    """Return the addresses of the servers that this run uses, by their names."""
    return {note.parent.name: pickle.loads(note.read_bytes()) for note in folder.glob(f"*/{_ADDRESS}")}


def log_of_server(folder: Path, name: str) -> str | None:
    """Return what a server has logged; None for one that this run didn't start."""
    logs = sorted(folder.glob(f"{name}/*/server.log"))
    return logs[-1].read_text("utf-8", "replace") if logs else None


def _is_free(lock: BinaryIO) -> bool:
    """Take a lock, unless another process has it; return whether it was taken."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_use(users: BinaryIO, note: Path) -> None:
    """Wait until no other process uses a server, and let none begin to."""
    fcntl.lockf(users, fcntl.LOCK_EX)
    note.unlink()
