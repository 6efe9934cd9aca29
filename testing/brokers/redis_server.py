"""Redis servers: the one that tests share, and private ones that a test may break."""

import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from mindtrace.jobs.adapters.redis import RedisClient, RedisResultStore

from .private_server import PrivateServer, free_port

VARIABLE = "MINDTRACE_JOBS_TEST_REDIS"
HOW_TO_GET_ONE = (
    f"No Redis for the tests. Set {VARIABLE} to the URL of one, or start one on localhost:6379, or install "
    "one so that they can start it themselves (on Debian and Ubuntu: apt-get install redis-server; on a Mac: "
    "brew install redis), or, where Docker runs: .venv/bin/uv sync --inexact --all-extras --group docker"
)
_PROGRAMS = ("redis-server", "valkey-server")
_START_S = 10.0


class NoRedis(Exception):
    """There is no Redis, and no way to start one; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and whom to connect as."""

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
        """Connect a client of ours."""
        who = {"username": self.username, "password": self.password, "ssl": self.ssl}
        return RedisClient(self.host, self.port, self.db, namespace=namespace, **(who | options))

    def results(self, namespace: str = "default", **options: Any) -> RedisResultStore:
        """Connect a store of ours for another broker's results."""
        who = {"username": self.username, "password": self.password, "ssl": self.ssl}
        return RedisResultStore(self.host, self.port, self.db, namespace=namespace, **(who | options))

    def admin(self) -> Redis:
        """Connect a plain driver, to look and to disturb."""
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
        """Whether a server answers here, be it to say who we are not."""
        with self.admin() as admin:
            try:
                admin.ping()
            except (driver.AuthenticationError, driver.NoPermissionError):
                return True
            except (driver.RedisError, OSError):
                return False
            return True


class PrivateRedis(PrivateServer):
    """A server of its own, on a free port, in a folder of its own; a test may do to it what it likes.

    Args:
        folder: Where it keeps its files; must exist.
        requirepass: The password of the default user.
        sentinel: Run as a Sentinel, which needs a configuration file.
        config: The text of a configuration file to start from.
        options: Configuration, such as ``appendonly="yes"``; underscores stand for dashes.

    Raises:
        NoRedis: none is installed.
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
        """Connect a plain driver, to look and to disturb."""
        return self.address.admin()

    def command(self) -> list[str]:
        """The program, and what it is told."""
        fixed = {"bind": "127.0.0.1", "port": self.address.port, "dir": str(self.folder), "daemonize": "no"}
        words = [self._program, *([str(self._config)] if self._config else [])]
        for name, value in (fixed | self._options).items():
            words += [f"--{name}", str(value)]
        return [*words, "--sentinel"] if self._sentinel else words

    def answers(self) -> bool:
        """Whether it serves, with all that it kept loaded."""
        return self.address.answers()


@contextmanager
def shared_redis(folder: Path) -> Iterator[Address]:
    """Find a Redis, or start one in ``folder``; nothing may be changed in it but keys of one's own.

    Raises:
        NoRedis: there is none; the message says how to get one.
    """
    if url := os.environ.get(VARIABLE):
        address = Address.of(url)
        if not address.answers():
            raise NoRedis(f"{VARIABLE} is set, and no Redis answers there. {HOW_TO_GET_ONE}")
        yield address
        return
    if (usual := Address()).answers():
        yield usual
        return
    try:
        server = PrivateRedis(folder).start()
    except NoRedis:
        with _in_docker() as address:
            yield address
        return
    try:
        yield server.address
    finally:
        server.kill()


def installed_program() -> str:
    """The path of a server's program.

    Raises:
        NoRedis: none is installed.
    """
    for name in _PROGRAMS:
        if path := shutil.which(name):
            return path
    raise NoRedis(HOW_TO_GET_ONE)


@contextmanager
def _in_docker() -> Iterator[Address]:
    try:
        with warnings.catch_warnings(action="ignore"):
            from testcontainers.core.container import DockerContainer

            container = DockerContainer("redis:8").with_exposed_ports(6379)
            container.start()
    except Exception as error:  # not installed, or no Docker: its client raises all sorts of things
        raise NoRedis(HOW_TO_GET_ONE) from error
    try:
        address = Address(container.get_container_host_ip(), int(container.get_exposed_port(6379)))
        give_up = time.monotonic() + 30
        while not address.answers():
            if time.monotonic() > give_up:
                raise NoRedis(f"a Redis was started in Docker and doesn't answer. {HOW_TO_GET_ONE}")
            time.sleep(0.05)
        yield address
    finally:
        container.stop()
