"""A private server that refuses to run as root."""

import os
import pwd
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import watchdog
from .private_server import NoServer, PrivateServer

_USERS = ("postgres", "nobody")


class UnprivilegedServer(PrivateServer):
    """A private server that runs as another user where the tests run as root.

    Args:
        folder: Where its log is kept; must exist.
        start_s: How many seconds it may take to start.

    Raises:
        NoServer: the tests run as root, and there is no user to run it as.
    """

    def __init__(self, folder: Path, *, start_s: float) -> None:
        super().__init__(folder, start_s=start_s)
        self._user = _other_user()
        # Root's folders are closed to that user, and the path of a Unix socket may have only about 100 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="mindtrace-jobs-server-"))
        watchdog.watch_folder(self.home)
        self.give(self.home)

    def give(self, path: Path) -> None:
        """Make its user the owner of a file or folder."""
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def process_options(self) -> dict[str, Any]:
        """Run as that user, in a folder that this user may enter."""
        options: dict[str, Any] = {"cwd": self.home}
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return options

    def environment(self) -> dict[str, str]:
        """Nothing of the tests' environment that would configure it."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C"}

    def close(self) -> None:
        """End it and remove its files; its log stays."""
        super().close()
        shutil.rmtree(self.home, ignore_errors=True)


def _other_user() -> pwd.struct_passwd | None:
    """The user to run a server as; None for that of this process.

    Raises:
        NoServer: there is none.
    """
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoServer(
        f"The server refuses to run as root, and there is no user {' or '.join(_USERS)} to run it as: "
        "run the tests as another user"
    )
