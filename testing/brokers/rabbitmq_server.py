"""RabbitMQ servers: the one that tests share, and private ones that a test may break."""

import os
import secrets
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pika import BlockingConnection, URLParameters
from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient

from .private_server import PrivateServer, free_port

VARIABLE = "MINDTRACE_JOBS_TEST_RABBITMQ"
HOW_TO_GET_ONE = (
    f"No RabbitMQ for the tests. Set {VARIABLE} to the URL of one, or start one on localhost:5672, or "
    "install one so that they can start it themselves (on Debian and Ubuntu: apt-get install "
    "rabbitmq-server; on a Mac: brew install rabbitmq), or, where Docker runs: "
    ".venv/bin/uv sync --inexact --all-extras --group docker"
)
_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
"""Where the scripts are that don't change the user first, as those on Debian's PATH do."""
_START_S = 60.0
_DENIED = (ProbableAccessDeniedError, ProbableAuthenticationError)


class NoRabbitMQ(Exception):
    """There is no RabbitMQ, and no way to start one; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and whom to connect as."""

    host: str = "localhost"
    port: int = 5672
    username: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    ssl: bool = False

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read an address from a URL."""
        read = URLParameters(url)
        who = read.credentials
        return cls(
            read.host, read.port, who.username, who.password, read.virtual_host, read.ssl_options is not None
        )

    @property
    def url(self) -> str:
        """The address as a URL."""
        who = f"{quote(self.username)}:{quote(self.password)}"
        scheme = "amqps" if self.ssl else "amqp"
        return f"{scheme}://{who}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"

    def client(self, namespace: str = "default", **options: Any) -> RabbitMQClient:
        """Connect a client of ours."""
        settings = {"vhost": self.vhost, "namespace": namespace, "ssl": self.ssl} | options
        return RabbitMQClient(self.host, self.port, self.username, self.password, **settings)

    def driver(self) -> BlockingConnection:
        """Connect a plain driver, to look and to disturb."""
        return BlockingConnection(URLParameters(self.url))

    def answers(self) -> bool:
        """Whether a server answers here, be it to say who we are not."""
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex((self.host, self.port)):
                return False
        try:
            self.driver().close()
        except _DENIED:
            return True
        except (AMQPError, OSError):
            return False
        return True


class PrivateRabbitMQ(PrivateServer):
    """A node of its own, on free ports, in a folder of its own; a test may do to it what it likes.

    Args:
        folder: Where it keeps its files; must exist.
        settings: Lines of its configuration, such as ``vm_memory_high_watermark.absolute=1GB``; two
            underscores stand for a dot.

    Raises:
        NoRabbitMQ: none is installed.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        super().__init__(folder, start_s=_START_S)
        self._scripts = _installed_scripts()
        self.address = Address("127.0.0.1", free_port())
        self._distribution_port = free_port()
        self._node = f"test{secrets.token_hex(4)}@localhost"
        self._cookie = secrets.token_hex(10)
        lines = {"loopback_users": "none", "log.console": "true"}
        lines |= {name.replace("__", "."): str(value) for name, value in settings.items()}
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        (folder / "enabled_plugins").write_text("[].")

    def command(self) -> list[str]:
        """Its own start script, which leaves the user as it is."""
        return [str(self._scripts / "rabbitmq-server")]

    def answers(self) -> bool:
        """Whether it serves."""
        return self.address.answers()

    def client(self, namespace: str = "default", **options: Any) -> RabbitMQClient:
        """Connect a client of ours."""
        return self.address.client(namespace, **options)

    def control(self, *words: str) -> str:
        """Run ``rabbitmqctl``, and return what it prints."""
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", "--node", self._node, *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Names, ports, folders and a cookie of its own."""
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": self.address.host,
            "RABBITMQ_NODE_PORT": str(self.address.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {self._cookie} +sbwt none +sbwtdcpu none",
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {self._cookie}",
        }


@contextmanager
def shared_rabbitmq(folder: Path) -> Iterator[Address]:
    """Find a RabbitMQ, or start one in ``folder``; nothing may be changed in it but what is one's own.

    Where its command line may be used, all happens in a virtual host made for the purpose.

    Raises:
        NoRabbitMQ: there is none; the message says how to get one.
    """
    if url := os.environ.get(VARIABLE):
        address = Address.of(url)
        if not address.answers():
            raise NoRabbitMQ(f"{VARIABLE} is set, and no RabbitMQ answers there. {HOW_TO_GET_ONE}")
        yield address
        return
    if (usual := Address()).answers():
        with _own_vhost(usual) as address:
            yield address
        return
    try:
        server = PrivateRabbitMQ(folder).start()
    except NoRabbitMQ:
        with _in_docker() as address:
            yield address
        return
    try:
        yield server.address
    finally:
        server.kill()


@contextmanager
def _own_vhost(address: Address) -> Iterator[Address]:
    name = f"tests-{os.getpid()}-{secrets.token_hex(3)}"

    def control(*words: str) -> bool:
        program = shutil.which("rabbitmqctl")
        if program is None:
            return False
        try:
            return not subprocess.run(
                [program, "--quiet", *words], capture_output=True, timeout=30, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return False

    if not control("add_vhost", name):
        yield address
        return
    try:
        own = replace(address, vhost=name)
        permitted = control("set_permissions", "-p", name, address.username, ".*", ".*", ".*")
        yield own if permitted and own.answers() else address
    finally:
        control("delete_vhost", name)


def _installed_scripts() -> Path:
    """The folder of a server's own scripts.

    Raises:
        NoRabbitMQ: none is installed.
    """
    folders = [Path(folder) for folder in _FOLDERS]
    if program := shutil.which("rabbitmq-server"):
        folders.append(Path(program).parent)
    for folder in folders:
        if (folder / "rabbitmq-server").exists():
            return folder
    raise NoRabbitMQ(HOW_TO_GET_ONE)


@contextmanager
def _in_docker() -> Iterator[Address]:
    try:
        with warnings.catch_warnings(action="ignore"):
            from testcontainers.core.container import DockerContainer

            container = DockerContainer("rabbitmq:4").with_exposed_ports(5672)
            container.start()
    except Exception as error:  # not installed, or no Docker: its client raises all sorts of things
        raise NoRabbitMQ(HOW_TO_GET_ONE) from error
    try:
        address = Address(container.get_container_host_ip(), int(container.get_exposed_port(5672)))
        give_up = time.monotonic() + _START_S
        while not address.answers():
            if time.monotonic() > give_up:
                raise NoRabbitMQ(f"a RabbitMQ was started in Docker and doesn't answer. {HOW_TO_GET_ONE}")
            time.sleep(0.1)
        yield address
    finally:
        container.stop()
