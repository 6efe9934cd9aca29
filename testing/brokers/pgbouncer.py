"""A private PgBouncer, which pools the connections to a PostgreSQL."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from .postgresql_server import Address
from .private_server import NoServer, free_port
from .unprivileged_server import UnprivilegedServer

HOW_TO_INSTALL = (
    "install it (on Debian and Ubuntu: apt-get install pgbouncer; on a Mac: brew install pgbouncer)"
)
_FOLDERS = ("/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin")
"""Where the program is if it isn't on the PATH; Debian has it where only root looks."""
_START_S = 60.0


class PrivatePgBouncer(UnprivilegedServer):
    """A PgBouncer of its own, on a free port, which a test may break.

    A statement's transaction may run on any connection to the server: ``pool_mode`` is ``transaction``.
    Every user of the server may connect without a password.

    Args:
        folder: Where its log is kept; must exist.
        server: The PostgreSQL behind it, and the user that reads there which others exist.
        settings: Settings, such as ``default_pool_size=2``.

    Raises:
        NoServer: none is installed.
    """

    def __init__(self, folder: Path, server: Address, **settings: str | int) -> None:
        self._program = installed_program()
        super().__init__(folder, start_s=_START_S)
        self.address = replace(server, host="127.0.0.1", port=free_port())
        self._console = replace(self.address, database="pgbouncer", parameters=())
        users = self.home / "users.txt"
        users.write_text(f"{_quoted(server.user)} {_quoted(server.password or '')}\n", "utf-8")
        fixed: dict[str, str | int] = {
            "listen_addr": self.address.host,
            "listen_port": self.address.port,
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            "auth_type": "trust",
            "auth_file": str(users),
            "auth_user": server.user,
            "admin_users": server.user,
        }
        self._settings = fixed | settings
        self._databases = f"* = host={server.host} port={server.port}"
        self._config = self.home / "pgbouncer.ini"
        self.give(users)

    def url(self, namespace: str | None = None) -> str:
        """Its URL: of ours with a namespace, of libpq without."""
        return self.address.url(namespace)

    def connect(self, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Connect a plain driver through it, without prepared statements."""
        return self.address.connect(**({"prepare_threshold": None} | options))

    def control(self, command: str) -> list[dict[str, Any]]:
        """Run a command of its console, such as ``PAUSE`` or ``SHOW POOLS``, and return its rows."""
        with self._console.connect(row_factory=dict_row) as console:
            done = console.execute(command.encode())
            rows: list[Any] = done.fetchall() if done.description else []
            return rows

    def start(self) -> "PrivatePgBouncer":
        """Start it, and wait until it answers."""
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        self._config.write_text(
            "\n".join(["[databases]", self._databases, "[pgbouncer]", *lines, ""]), "utf-8"
        )
        self.give(self._config)
        return super().start()

    def command(self) -> list[str]:
        """The program and its arguments."""
        return [str(self._program), str(self._config)]

    def answers(self) -> bool:
        """Whether it serves, also where its server doesn't."""
        return self._console.admits()

    def stop(self) -> None:
        """Shut it down at once: with SIGTERM it would wait for its clients."""
        self._end(signal.SIGQUIT)


def installed_program() -> Path:
    """The path of PgBouncer's program.

    Raises:
        NoServer: none is installed.
    """
    candidates = [Path(folder) / "pgbouncer" for folder in _FOLDERS]
    if on_path := shutil.which("pgbouncer"):
        candidates.insert(0, Path(on_path))
    for program in candidates:
        if program.exists():
            return program
    raise NoServer(f"No PgBouncer, through which the tests reach PostgreSQL: {HOW_TO_INSTALL}")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
