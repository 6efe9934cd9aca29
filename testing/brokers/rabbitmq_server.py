"""RabbitMQ servers: the one that tests share, and private ones that a test may break."""

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pika import BlockingConnection, URLParameters
from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

from conditions import LIMIT_S
from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient

from .private_server import NoServer, PrivateServer, free_port
from .server_lookup import ServerLookup

HOW_TO_INSTALL = (
    "install one (on Debian and Ubuntu: apt-get install rabbitmq-server; on a Mac: brew install rabbitmq)"
)
_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
"""Where the scripts are that don't change the user first, as those on Debian's PATH do."""
_START_S = 180.0
_CONTROL_S = 300.0
"""How long a command of rabbitmqctl may take: it starts a node of its own, slowly on a busy machine."""
MANAGEMENT = 10_000
"""How far above AMQP's port the management plugin listens."""
_DENIED = (ProbableAccessDeniedError, ProbableAuthenticationError)


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server, and the user to connect as."""

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
        """Connect a client of ours: by default one that waits for a busy machine."""
        settings = {"vhost": self.vhost, "namespace": namespace, "ssl": self.ssl}
        settings |= {"retry_timeout_s": LIMIT_S} | options
        return RabbitMQClient(self.host, self.port, self.username, self.password, **settings)

    def driver(self) -> BlockingConnection:
        """Connect a plain driver, to inspect and to disturb."""
        return BlockingConnection(URLParameters(self.url))

    def answers(self) -> bool:
        """Whether a server answers here, even if it denies access."""
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


@contextmanager
def retry_timeout(client: RabbitMQClient, seconds: float) -> Iterator[None]:
    """Change a client's retry timeout for the duration of the block.

    A client that is made with a short one may never connect on a busy machine.
    """
    broker = client._open().broker
    before, broker.retry_timeout_s = broker.retry_timeout_s, seconds
    try:
        yield
    finally:
        broker.retry_timeout_s = before


def new_node() -> str:
    """Return the name of a node that nobody else has."""
    return f"test{secrets.token_hex(4)}@localhost"


def new_cookie() -> str:
    """Return a secret for the nodes of a cluster."""
    return secrets.token_hex(10)


class PrivateRabbitMQ(PrivateServer):
    """A node of its own, on free ports, in a folder of its own, which a test may break.

    Args:
        folder: Where it keeps its files; must exist.
        node: The name of the node; None for one that nobody else has.
        cookie: The secret that the nodes of a cluster share; None for one of its own.
        management: Whether the management plugin is on, 10,000 ports above, as it usually is.
        settings: Lines of its configuration, such as ``vm_memory_high_watermark.absolute=1GB``; two
            underscores stand for a dot.

    Raises:
        NoServer: none is installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: str | None = None,
        cookie: str | None = None,
        management: bool = False,
        **settings: str | int,
    ) -> None:
        super().__init__(folder, start_s=_START_S)
        self._scripts = installed_program().parent
        port = _port_below() if management else free_port()
        self.address = Address("127.0.0.1", port)
        self._distribution_port = free_port()
        self.name = node or new_node()
        self._cookie = cookie or new_cookie()
        lines = {"loopback_users": "none", "log.console": "true"}
        if management:
            lines["management.tcp.port"] = str(port + MANAGEMENT)
        lines |= {name.replace("__", "."): str(value) for name, value in settings.items()}
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        (folder / "enabled_plugins").write_text("[rabbitmq_management]." if management else "[].")

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
        done = self._run("rabbitmqctl", *words)
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def is_critical(self) -> bool:
        """Whether some queue of its cluster would lose its majority without this node."""
        return self._run("rabbitmq-diagnostics", "check_if_node_is_quorum_critical").returncode != 0

    def _run(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self._scripts / program), "--quiet", "--node", self.name, *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=_CONTROL_S,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Names, ports, folders and a cookie of its own."""
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": self.address.host,
            "RABBITMQ_NODE_PORT": str(self.address.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {self._cookie} +sbwt none +sbwtdcpu none",
            # One scheduler of each kind: they wait for each other by yielding their turns. With several, a
            # command took minutes on a busy machine.
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {self._cookie} +S 1:1 +SDcpu 1:1 +SDio 1",
        }


@contextmanager
def _temporary_vhost(address: Address) -> Iterator[Address]:
    """Make a virtual host for the purpose, where the server's command line may be used."""
    name = f"tests-{os.getpid()}-{secrets.token_hex(3)}"

    def control(*words: str) -> bool:
        program = shutil.which("rabbitmqctl")
        if program is None:
            return False
        try:
            return not subprocess.run(
                [program, "--quiet", *words], capture_output=True, timeout=_CONTROL_S, check=False
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


def _port_below() -> int:
    """A port that nothing listens on, nor on that of its management."""
    while True:
        port = free_port() - MANAGEMENT
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def installed_program() -> Path:
    """The path of a server's own start script, beside which the others are.

    Raises:
        NoServer: none is installed.
    """
    folders = [Path(folder) for folder in _FOLDERS]
    if on_path := shutil.which("rabbitmq-server"):
        folders.append(Path(on_path).parent)
    for folder in folders:
        if (program := folder / "rabbitmq-server").exists():
            return program
    raise NoServer(f"No RabbitMQ for a test to break: {HOW_TO_INSTALL}")


SHARED = ServerLookup(
    server="RabbitMQ",
    variable="MINDTRACE_JOBS_TEST_RABBITMQ",
    parse_url=Address.of,
    default=Address(),
    isolate=_temporary_vhost,
    private=PrivateRabbitMQ,
    how_to_install=HOW_TO_INSTALL,
    image="rabbitmq:4",
    start_s=_START_S,
)
"""Where the tests' RabbitMQ comes from."""
