"""Find the server that tests share: by URL, at the default port, or started from a program or an image."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .private_server import NoServer

_IN_DOCKER = "docker://"
_SYNC = ".venv/bin/uv sync --inexact --all-extras --group docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLookup:
    """The ways to find a server of one kind; the first that works is taken."""

    server: str
    """The name of the server."""
    variable: str
    """The environment variable that holds the URL of one, or ``docker://image``."""
    parse_url: Callable[[str], Any]
    """Make an address of a URL."""
    default: Any
    """The address where one runs by default."""
    usable: Callable[[Any], bool] = lambda address: bool(address.answers())
    """Whether the server at that address serves the tests."""
    isolate: Callable[[Any], AbstractContextManager[Any]] = nullcontext
    """Make a part of that server for these tests alone, if possible."""
    private: Callable[[Path], Any]
    """Make a private server of the installed program, or raise NoServer."""
    how_to_install: str
    """How to install it."""
    image: str
    """The image of a container, if none is named."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The environment of a container."""
    start_s: float
    """How many seconds a container may take until it answers."""

    @contextmanager
    def open(self, folder: Path) -> Iterator[Any]:
        """Yield the address of a server, starting one in ``folder`` if necessary.

        Tests may change only what they have made themselves.

        Raises:
            NoServer: there is none; the message says how to get one.
        """
        with self._first_available(os.environ.get(self.variable), folder) as address:
            yield address

    def describe(self) -> str:
        """Say where the server comes from that :meth:`open` would yield, where one can be installed.

        Raises:
            NoServer: one is named, and isn't there.
        """
        named = os.environ.get(self.variable)
        if named and named.startswith(_IN_DOCKER):
            return f"a container of {named.removeprefix(_IN_DOCKER)}"
        if named:
            self._named(named)
            return f"the one that {self.variable} names"
        if self.usable(self.default):
            return f"the one on {self.default.host}:{self.default.port}"
        return "one that they start"

    def _named(self, url: str) -> Any:
        address = self.parse_url(url)
        if not address.answers():
            raise self._no_server(f"{self.variable} is set, and no {self.server} answers there")
        return address

    def _first_available(self, named: str | None, folder: Path) -> AbstractContextManager[Any]:
        if named and named.startswith(_IN_DOCKER):
            return self._container(named.removeprefix(_IN_DOCKER))
        if named:
            return nullcontext(self._named(named))
        if self.usable(self.default):
            return self.isolate(self.default)
        try:
            server = self.private(folder)
        except NoServer:
            return self._container(self.image)
        return _running(server)

    @contextmanager
    def _container(self, image: str) -> Iterator[Any]:
        with ExitStack() as stack:
            try:
                with warnings.catch_warnings(action="ignore"):
                    from testcontainers.core.container import DockerContainer

                    container = DockerContainer(image).with_exposed_ports(self.default.port)
                    for name, value in self.environment.items():
                        container.with_env(name, value)
                    stack.callback(container.stop)
                    container.start()
                    host, port = (
                        container.get_container_host_ip(),
                        container.get_exposed_port(self.default.port),
                    )
            except (
                Exception
            ) as error:  # not installed, no Docker, no image: its client raises all sorts of things
                raise self._no_server(f"Docker can't run {image}: {error}") from error
            address = replace(self.default, host=host, port=int(port))
            self._wait_for(address, image)
            yield address

    def _wait_for(self, address: Any, image: str) -> None:
        give_up = time.monotonic() + self.start_s
        while not address.answers():
            if time.monotonic() > give_up:
                raise self._no_server(f"{image} was started in Docker and doesn't answer")
            time.sleep(0.05)

    def _no_server(self, why: str) -> NoServer:
        return NoServer(
            f"No {self.server} for the tests: {why}. Set {self.variable} to the URL of one, or start one on "
            f"{self.default.host}:{self.default.port}, or {self.how_to_install} so that they can start it, "
            f"or, where Docker runs: {_SYNC}"
        )


@contextmanager
def _running(server: Any) -> Iterator[Any]:
    server.start()
    try:
        yield server.address
    finally:
        server.close()
