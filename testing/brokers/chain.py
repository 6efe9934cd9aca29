"""Where the servers that tests share come from: a URL, a usual place, an installed program, a container."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .private_server import NoServer

_IN_DOCKER = "docker://"
_SYNC = ".venv/bin/uv sync --inexact --all-extras --group docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The ways to a server of one kind; the first that is open is taken."""

    what: str
    """The server's name."""
    variable: str
    """The environment variable that holds the URL of one, or ``docker://image``."""
    read: Callable[[str], Any]
    """Make an address of a URL."""
    usual: Any
    """The address where one runs by default."""
    own_part: Callable[[Any], AbstractContextManager[Any]] = nullcontext
    """Set off a part of the server that runs there, where that can be done."""
    installed: Callable[[Path], Any]
    """Make a private server of the installed program, or raise NoServer."""
    installing: str
    """How to install it."""
    image: str
    """The image of a container, where none is named."""
    start_s: float
    """How many seconds a container may take until it answers."""

    @contextmanager
    def find(self, folder: Path) -> Iterator[Any]:
        """Yield the address of a server, if need be of one that is started in ``folder`` and ended again.

        Nothing may be changed in it but what is one's own.

        Raises:
            NoServer: there is none; the message says how to get one.
        """
        with self._first_open_way(os.environ.get(self.variable), folder) as address:
            yield address

    def shared(self) -> str:
        """Say where the server comes from that :meth:`find` would yield, where one can be installed.

        Raises:
            NoServer: one is named, and isn't there.
        """
        named = os.environ.get(self.variable)
        if named and named.startswith(_IN_DOCKER):
            return f"a container of {named.removeprefix(_IN_DOCKER)}"
        if named:
            self._named(named)
            return f"the one that {self.variable} names"
        if self.usual.answers():
            return f"the one on {self.usual.host}:{self.usual.port}"
        return "one that they start"

    def _named(self, url: str) -> Any:
        address = self.read(url)
        if not address.answers():
            raise self._none(f"{self.variable} is set, and no {self.what} answers there")
        return address

    def _first_open_way(self, named: str | None, folder: Path) -> AbstractContextManager[Any]:
        if named and named.startswith(_IN_DOCKER):
            return self._container(named.removeprefix(_IN_DOCKER))
        if named:
            return nullcontext(self._named(named))
        if self.usual.answers():
            return self.own_part(self.usual)
        try:
            server = self.installed(folder)
        except NoServer:
            return self._container(self.image)
        return _running(server)

    @contextmanager
    def _container(self, image: str) -> Iterator[Any]:
        with ExitStack() as stack:
            try:
                with warnings.catch_warnings(action="ignore"):
                    from testcontainers.core.container import DockerContainer

                    container = DockerContainer(image).with_exposed_ports(self.usual.port)
                    stack.callback(container.stop)
                    container.start()
                    host, port = (
                        container.get_container_host_ip(),
                        container.get_exposed_port(self.usual.port),
                    )
            except (
                Exception
            ) as error:  # not installed, no Docker, no image: its client raises all sorts of things
                raise self._none(f"Docker can't run {image}: {error}") from error
            address = replace(self.usual, host=host, port=int(port))
            self._wait_for(address, image)
            yield address

    def _wait_for(self, address: Any, image: str) -> None:
        give_up = time.monotonic() + self.start_s
        while not address.answers():
            if time.monotonic() > give_up:
                raise self._none(f"{image} was started in Docker and doesn't answer")
            time.sleep(0.05)

    def _none(self, why: str) -> NoServer:
        return NoServer(
            f"No {self.what} for the tests: {why}. Set {self.variable} to the URL of one, or start one on "
            f"{self.usual.host}:{self.usual.port}, or {self.installing} so that they can start it, "
            f"or, where Docker runs: {_SYNC}"
        )


@contextmanager
def _running(server: Any) -> Iterator[Any]:
    server.start()
    try:
        yield server.address
    finally:
        server.kill()
