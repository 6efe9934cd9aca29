"""Redis servers: the one that tests share, and private ones that a test may break."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from conditions import LIMIT_S
from mindtrace.jobs.adapters.redis import RedisClient, RedisCoordinationStore, RedisResultStore

from .private_server import NoServer, PrivateServer, free_port
from .server_lookup import ServerLookup

HOW_TO_INSTALL = (
    "install one (on Debian and Ubuntu: apt-get install redis-server; on a Mac: brew install redis)"
)
_PROGRAMS = ("redis-server", "valkey-server")
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server, and the user to connect as."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = None
    ssl: bool = False

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read an address from a URL."""
        parts: dict[str, Any] = parse_url(url)
        names = ("host", "port", "db", "username", "password")
        known = {name: parts[name] for name in names if name in parts}
        return cls(**known, ssl=url.startswith("rediss:"))

    @property
    def url(self) -> str:
        """The address as a URL."""
        who = f"{quote(self.username or '')}:{quote(self.password, safe='')}@" if self.password else ""
        return f"redis{'s' if self.ssl else ''}://{who}{self.host}:{self.port}/{self.db}"

    def client(self, namespace: str = "default", **options: Any) -> RedisClient:
        """Connect a client of ours: by default one that waits for a busy machine."""
        return RedisClient(self.host, self.port, self.db, namespace=namespace, **(self._settings | options))

    def results(self, namespace: str = "default", **options: Any) -> RedisResultStore:
        """Connect a store of ours for another broker's results."""
        settings = self._settings | options
        return RedisResultStore(self.host, self.port, self.db, namespace=namespace, **settings)

    def coordination(self, namespace: str = "default", **options: Any) -> RedisCoordinationStore:
        """Connect a coordination store of ours for another broker."""
        settings = self._settings | options
        return RedisCoordinationStore(self.host, self.port, self.db, namespace=namespace, **settings)

    @property
    def _settings(self) -> dict[str, Any]:
        who = {"username": self.username, "password": self.password, "ssl": self.ssl}
        return who | {"retry_timeout_s": LIMIT_S}

    def admin(self) -> Redis:
        """Connect a plain driver, to inspect and to disturb."""
        return Redis(
            self.host,
            self.port,
            self.db,
            username=self.username,
            password=self.password,
            ssl=self.ssl,
            retry=Retry(NoBackoff(), 0),
        )

    def answers(self) -> bool:
        """Whether a server answers here, even if it denies access."""
        with self.admin() as admin:
            try:
                admin.ping()
            except (driver.AuthenticationError, driver.NoPermissionError):
                return True
            except (driver.RedisError, OSError):
                return False
            return True


class PrivateRedis(PrivateServer):
    """A server of its own, on a free port, in a folder of its own, which a test may break.

    Args:
        folder: Where it keeps its files; must exist.
        requirepass: The password of the default user.
        sentinel: Run as a Sentinel, which needs a configuration file.
        config: The text of a configuration file to start from.
        options: Configuration, such as ``appendonly="yes"``; underscores stand for dashes.

    Raises:
        NoServer: none is installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        requirepass: str | None = None,
        sentinel: bool = False,
        config: str | None = None,
        **options: str | int,
    ) -> None:
        super().__init__(folder, start_s=_START_S)
        self._program = installed_program()
        self._requirepass = requirepass
        self._sentinel = sentinel
        self._options: dict[str, str | int] = {"save": "", "appendonly": "no"} if not sentinel else {}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        if requirepass is not None:
            self._options["requirepass"] = requirepass
        self._config = None if config is None else folder / "server.conf"
        if self._config is not None:
            self._config.write_text(config or "", "utf-8")
        self.address = Address("127.0.0.1", free_port(), password=requirepass)

    @property
    def url(self) -> str:
        """Its URL."""
        return self.address.url

    def client(self, namespace: str = "default", **options: Any) -> RedisClient:
        """Connect a client of ours."""
        return self.address.client(namespace, **options)

    def admin(self) -> Redis:
        """Connect a plain driver, to inspect and to disturb."""
        return self.address.admin()

    def command(self) -> list[str]:
        """The program and its arguments."""
        fixed = {"bind": "127.0.0.1", "port": self.address.port, "dir": str(self.folder), "daemonize": "no"}
        words = [str(self._program), *([str(self._config)] if self._config else [])]
        for name, value in (fixed | self._options).items():
            words += [f"--{name}", str(value)]
        return [*words, "--sentinel"] if self._sentinel else words

    def answers(self) -> bool:
        """Whether it serves, with all that it kept loaded."""
        return self.address.answers()


def installed_program() -> Path:
    """The path of a server's program.

    Raises:
        NoServer: none is installed.
    """
    for name in _PROGRAMS:
        if path := shutil.which(name):
            return Path(path)
    raise NoServer(f"No Redis for a test to break: {HOW_TO_INSTALL}")


def sent_by_clients(admin: Redis) -> int:
    """Return how many commands clients have sent; those inside a script count as the script."""
    stats = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "xread"))


SHARED = ServerLookup(
    server="Redis",
    variable="MINDTRACE_JOBS_TEST_REDIS",
    parse_url=Address.of,
    default=Address(),
    private=PrivateRedis,
    how_to_install=HOW_TO_INSTALL,
    image="redis:8",
    start_s=_START_S,
)
"""Where the tests' Redis comes from."""
