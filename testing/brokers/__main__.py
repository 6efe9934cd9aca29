"""Say which servers the tests will use; install what is missing, or say how to get it.

    PYTHONPATH=testing .venv/bin/python -m brokers

It takes a second or two, where a test that misses its server fails after minutes.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from . import debian_packages, pgbouncer, postgresql_server, rabbitmq_server, redis_server
from .private_server import NoServer
from .server_lookup import ServerLookup

Server = tuple[ServerLookup, Callable[[], Path]]
"""How to find a server to share, and the program of one that a test may break."""

SERVERS: Sequence[Server] = (
    (redis_server.SHARED, redis_server.installed_program),
    (rabbitmq_server.SHARED, rabbitmq_server.installed_program),
    (postgresql_server.SHARED, postgresql_server.installed_program),
)


def find_openssl() -> Path:
    """The path of ``openssl``.

    Raises:
        NoServer: it isn't installed.
    """
    if path := shutil.which("openssl"):
        return Path(path)
    raise NoServer("No openssl, which makes the certificates of the TLS tests: apt-get install openssl")


PROGRAMS: Mapping[str, Callable[[], Path]] = {
    "PgBouncer": pgbouncer.installed_program,
    "openssl": find_openssl,
}
"""How to find what tests need besides."""


def find_servers(
    servers: Sequence[Server], programs: Mapping[str, Callable[[], Path]] = PROGRAMS
) -> tuple[list[str], list[str]]:
    """Return a line for each server and program that was found, and one for each that is missing."""
    found, missing = [], []
    for lookup, find_program in servers:
        try:
            program = find_program()
            shared = lookup.describe()
            found.append(f"{lookup.server}: tests share {shared}; to break one, they start {program}")
        except NoServer as error:
            missing.append(str(error))
    for name, find_program in programs.items():
        try:
            found.append(f"{name}: tests start {find_program()}")
        except NoServer as error:
            missing.append(str(error))
    return found, missing


def main() -> None:
    """Print what was found, having installed what may be; end with 1 if something is missing still."""
    found, missing = find_servers(SERVERS)
    if (packages := debian_packages.packages_for(missing)) and debian_packages.may_install():
        print("installing", *packages, "(a minute or two)", flush=True)
        debian_packages.install(packages)
        found, missing = find_servers(SERVERS)
    print(*found, sep="\n", flush=True)
    if missing:
        sys.exit("\n".join(["The tests miss what this machine hasn't got:", *missing, *_hints(missing)]))


def _hints(missing: Sequence[str]) -> Iterator[str]:
    """Say how to go on: with one command for all that is missing, and without it."""
    if packages := debian_packages.packages_for(missing):
        command = f"apt-get install {' '.join(packages)}"
        yield f"On Debian and Ubuntu, this installs all of it: sudo {command}"
    yield "Without a server, `make check` works. Where Docker runs, `make test-docker` tries the contract."


if __name__ == "__main__":
    main()
