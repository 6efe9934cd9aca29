"""PostgreSQL servers: the one that tests share, and private ones that a test may break."""

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from conditions import LIMIT_S
from mindtrace.jobs import PostgreSQLClient

from . import watchdog
from .private_server import NoServer, free_port
from .server_lookup import ServerLookup
from .unprivileged_server import UnprivilegedServer

HOW_TO_INSTALL = (
    "install one (on Debian and Ubuntu: apt-get install postgresql; on a Mac: brew install postgresql@17)"
)
_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian and Ubuntu
    "/usr/pgsql-*/bin",  # the packages of PostgreSQL's own repository for Red Hat
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
"""Where the programs are that aren't on the PATH."""
_START_S = 60.0
_CONNECT_S = 10
FOLLOWER = "standby"
"""What a primary knows a standby as, for ``synchronous_standby_names``."""
_FIELDS = ("host", "port", "user", "password", "dbname")

Shutdown = Literal["fast", "immediate"]
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server, the database, and the user to connect as."""

    host: str = "127.0.0.1"
    port: int = 5432
    user: str = "postgres"
    password: str | None = None
    database: str = "test"
    parameters: tuple[tuple[str, str], ...] = ()
    """Further parameters of libpq, such as ``("sslmode", "require")``."""

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read an address from a URL."""
        read = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        user = read.get("user", cls().user)
        return cls(
            read.get("host", cls().host),
            int(read.get("port", cls().port)),
            user,
            read.get("password"),
            read.get("dbname", user),
            tuple((name, value) for name, value in read.items() if name not in _FIELDS),
        )

    def url(self, namespace: str | None = None) -> str:
        """Return the address as a URL: of ours with a namespace, of libpq without."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        parameters = dict(self.parameters) | ({} if namespace is None else {"namespace": namespace})
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        who = f"{quote(self.user, safe='')}{password}"
        return f"postgresql://{who}@{host}:{self.port}/{quote(self.database, safe='')}{query}"

    def client(self, namespace: str = "mindtrace_jobs", **options: Any) -> PostgreSQLClient:
        """Connect a client of ours: by default one that waits for a busy machine."""
        settings: dict[str, Any] = {"host": self.host, "port": self.port, "database": self.database}
        settings |= {"username": self.user, "password": self.password, "libpq": dict(self.parameters)}
        settings |= {"retry_timeout_s": LIMIT_S}
        return PostgreSQLClient(namespace=namespace, **(settings | options))

    def connect(self, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Connect a plain driver, to inspect and to disturb; each statement commits by itself."""
        settings = {"autocommit": True, "connect_timeout": _CONNECT_S} | options
        return psycopg.connect(self.url(), **settings)

    def answers(self) -> bool:
        """Whether a server takes connections here, even if it denies access."""
        parameters = make_conninfo(self.url(), connect_timeout=_CONNECT_S)
        return PGconn.ping(parameters.encode()) == Ping.OK

    def admits(self) -> bool:
        """Whether a server lets this user into this database."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def make_schema(address: Address) -> Iterator[str]:
    """Yield the name of a schema that nobody else uses, and drop it afterwards."""
    name = f"test-{uuid4().hex}"
    yield name
    with address.connect() as admin:
        admin.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


class PrivatePostgreSQL(UnprivilegedServer):
    """A cluster of its own, on a free port, in a folder of its own, which a test may break.

    ``synchronous_commit`` and ``fsync`` are on, so that a commit survives :meth:`kill`. A test that needs no
    durability is faster with ``fsync="off"``. It admits every user without a password, on a port of 127.0.0.1
    and on a Unix socket in :attr:`home`.

    Args:
        folder: Where its log is kept; must exist.
        settings: Settings, such as ``max_connections=10``; two underscores stand for a dot.

    Raises:
        NoServer: none is installed.
    """

    _empty_clusters: ClassVar[dict[Path, Path]] = {}
    """The data folder of an empty cluster, by the program of the release."""

    def __init__(self, folder: Path, **settings: str | int) -> None:
        self._program = installed_program()
        super().__init__(folder, start_s=_START_S)
        self.data = self.home / "data"
        self.address = Address("127.0.0.1", free_port(), database="postgres")
        self._settings: dict[str, str | int] = {
            "listen_addresses": self.address.host,
            "port": self.address.port,
            "unix_socket_directories": str(self.home),
            "synchronous_commit": "on",
        }
        self.configure(**settings)

    def configure(self, **settings: str | int) -> None:
        """Change settings from the next start on."""
        self._settings |= {name.replace("__", "."): value for name, value in settings.items()}

    def url(self, namespace: str | None = None) -> str:
        """Its URL: of ours with a namespace, of libpq without."""
        return self.address.url(namespace)

    def connect(self, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Connect a plain driver, to inspect and to disturb; each statement commits by itself."""
        return self.address.connect(**options)

    def client(self, namespace: str = "mindtrace_jobs", **options: Any) -> PostgreSQLClient:
        """Connect a client of ours."""
        return self.address.client(namespace, **options)

    def start(self) -> Self:
        """Start it, the first time on a new cluster, and wait until it answers."""
        if not self.data.exists():
            self._make_cluster()
        return super().start()

    def _make_cluster(self) -> None:
        """Copy an empty cluster that is made once a process: initdb takes longer than most tests."""
        made = PrivatePostgreSQL._empty_clusters
        if self._program not in made:
            home = Path(tempfile.mkdtemp(prefix="mindtrace-jobs-cluster-"))
            watchdog.watch_folder(home)
            self.give(home)
            self.run("initdb", *f"-D {home}/data -U postgres -A trust -E UTF8 --no-locale --no-sync".split())
            made[self._program] = home / "data"
        self._run("cp", "-R", str(made[self._program]), str(self.data))

    def follow(self, primary: "PrivatePostgreSQL") -> None:
        """Take a copy of another that runs in place of its own, to follow it from the next start on."""
        shutil.rmtree(self.data, ignore_errors=True)
        at = primary.address
        source = f"host={at.host} port={at.port} user={at.user} application_name={FOLLOWER}"
        how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        self.run("pg_basebackup", f"--pgdata={self.data}", f"--dbname={source}", *how)

    def promote(self) -> None:
        """Make it a primary, and wait until it is."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def run(self, program: str, *words: str) -> str:
        """Run another program of the same release as its user, and return what it prints."""
        return self._run(str(self._program.parent / program), *words)

    def _run(self, program: str, *words: str) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [program, *words],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT_S,
            **self.process_options(),
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words)}: {done.stdout}")
        return done.stdout

    def command(self) -> list[str]:
        """The program and its arguments."""
        words = [str(self._program), "-D", str(self.data)]
        for name, value in self._settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def answers(self) -> bool:
        """Whether it serves, recovered from what it suffered."""
        return self.address.answers()

    def stop(self, how: Shutdown = "fast") -> None:
        """Shut it down, and end its connections; ``immediate`` leaves the recovery to the next start."""
        self._end(_SIGNALS[how])

    def restart(self, how: Shutdown = "fast") -> None:
        """Shut it down and start it again, at the same address."""
        self.stop(how)
        self.start()

    def kill(self) -> None:
        """End all its processes with SIGKILL; those of its connections would outlive the first a little."""
        pid = self._pid()
        children = [] if pid is None else watchdog.kill_tree(pid)
        super().kill()
        while watchdog.running(children):  # they hold the shared memory, without which it can't start again
            time.sleep(0.001)

    def pause(self) -> None:
        """Stop all its processes with SIGSTOP, connections left open, until :meth:`resume`."""
        super().pause()
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all its processes go on after :meth:`pause`."""
        self._signal_children(signal.SIGCONT)
        super().resume()

    def _signal_children(self, number: int) -> None:
        """Signal the processes of its connections, each of which is in a group of its own."""
        if (pid := self._pid()) is not None:
            for child in watchdog.children_of(pid):
                watchdog.send_signal(child, number)

    def _pid(self) -> int | None:
        """The id of its first process; None where it doesn't run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None


def installed_program() -> Path:
    """The path of a server's program, beside which the others are.

    Raises:
        NoServer: none is installed.
    """
    folders = [Path(on_path).resolve().parent] if (on_path := shutil.which("initdb")) else []
    for pattern in _FOLDERS:
        folders += sorted(Path("/").glob(pattern.removeprefix("/")), key=_release, reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder / "postgres"
    raise NoServer(f"No PostgreSQL for a test to break: {HOW_TO_INSTALL}")


def _release(folder: Path) -> int:
    """The major release that a folder is named after; 0 for none."""
    found = re.search(r"\d+", folder.parent.name)
    return int(found.group()) if found else 0


def _without_durability(folder: Path) -> PrivatePostgreSQL:
    """A server to share, which nobody breaks."""
    return PrivatePostgreSQL(folder, fsync="off")


SHARED = ServerLookup(
    server="PostgreSQL",
    variable="MINDTRACE_JOBS_TEST_POSTGRESQL",
    parse_url=Address.of,
    default=Address(),
    usable=Address.admits,  # a server of the machine may deny access, where no test could work
    private=_without_durability,
    how_to_install=HOW_TO_INSTALL,
    image="postgres:17",
    environment={"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_DB": Address().database},
    start_s=_START_S,
)
"""Where the tests' PostgreSQL comes from."""
