"""Where the tests' servers come from: the first way that is open, or a message that names them all."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from brokers import pgbouncer
from brokers.__main__ import find_servers
from brokers.private_server import NoServer
from brokers.server_lookup import ServerLookup

VARIABLE = "MINDTRACE_JOBS_TEST_SOMETHING"


@dataclass(frozen=True)
class Place:
    """An address at which a server answers or doesn't."""

    host: str = "usual"
    port: int = 1234
    there: bool = False

    def answers(self) -> bool:
        return self.there or self.host == "container"


@dataclass
class Installed:
    """A program that can be started."""

    address: Place = field(default_factory=lambda: Place("installed"))
    log: list[str] = field(default_factory=list)

    def start(self) -> Self:
        self.log.append("started")
        return self

    def close(self) -> None:
        self.log.append("closed")


class Container:
    """What testcontainers would start."""

    images: list[str]
    log: list[str]
    host = "container"
    error: Exception | None = None

    def __init__(self, image: str) -> None:
        self.images.append(image)

    def with_exposed_ports(self, port: int) -> Self:
        assert port == 1234
        return self

    def with_env(self, name: str, value: str) -> None:
        self.log.append(f"{name}={value}")

    def start(self) -> None:
        self.log.append("started")
        if self.error:
            raise self.error

    def get_container_host_ip(self) -> str:
        return self.host

    def get_exposed_port(self, port: int) -> str:
        return str(port + 1)

    def stop(self) -> None:
        self.log.append("stopped")


def not_installed(folder: Path) -> Installed:
    raise NoServer("none is installed")


@contextmanager
def isolate(address: Place) -> Iterator[Place]:
    yield replace(address, host="part of the usual")


LOOKUP = ServerLookup(
    server="Something",
    variable=VARIABLE,
    parse_url=lambda url: Place(url, 1, there="up" in url),
    default=Place(),
    isolate=isolate,
    private=not_installed,
    how_to_install="install something",
    image="something:1",
    start_s=0.2,
)

SetUp = Callable[..., type[Container]]


@pytest.fixture(autouse=True)
def no_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> type[Container]:
    """A Docker that starts what the test wants it to."""

    class Fresh(Container):
        images: list[str] = []  # noqa: RUF012
        log: list[str] = []  # noqa: RUF012

    module: Any = ModuleType("testcontainers.core.container")
    module.DockerContainer = Fresh
    for name in ("testcontainers", "testcontainers.core"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Fresh


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "testcontainers", None)


def found(lookup: ServerLookup, folder: Path) -> Place:
    with lookup.open(folder) as address:
        assert isinstance(address, Place)
        return address


def test_the_one_that_is_named_comes_before_the_usual(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "named, and up")
    assert found(replace(LOOKUP, default=Place(there=True)), tmp_path).host == "named, and up"


def test_one_that_is_named_and_does_not_answer_is_replaced_by_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "named")
    with pytest.raises(NoServer, match=f"{VARIABLE} is set, and no Something answers there"):
        found(replace(LOOKUP, default=Place(there=True)), tmp_path)


def test_the_usual_one_comes_before_one_that_is_installed_and_only_a_part_of_it_is_used(
    tmp_path: Path,
) -> None:
    server = Installed()
    lookup = replace(LOOKUP, default=Place(there=True), private=lambda folder: server)
    assert found(lookup, tmp_path).host == "part of the usual"
    assert not server.log


def test_the_usual_one_is_passed_over_where_it_does_not_serve_the_tests(tmp_path: Path) -> None:
    server = Installed()
    lookup = replace(LOOKUP, default=Place(there=True), usable=lambda address: False)
    lookup = replace(lookup, private=lambda folder: server)
    assert found(lookup, tmp_path) == server.address
    assert lookup.describe() == "one that they start"


def test_one_that_is_installed_comes_before_docker_and_is_ended_again(
    docker: type[Container], tmp_path: Path
) -> None:
    server = Installed()
    assert found(replace(LOOKUP, private=lambda folder: server), tmp_path) == server.address
    assert server.log == ["started", "closed"]
    assert not docker.images


def test_a_container_comes_last_and_is_ended_again(docker: type[Container], tmp_path: Path) -> None:
    with LOOKUP.open(tmp_path) as address:
        assert (address.host, address.port) == ("container", 1235)
        assert docker.log == ["started"]
    assert docker.images == ["something:1"]
    assert docker.log == ["started", "stopped"]


def test_a_container_comes_first_where_its_image_is_named(
    docker: type[Container], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "docker://mine/something:2")
    assert found(replace(LOOKUP, default=Place(there=True)), tmp_path).host == "container"
    assert docker.images == ["mine/something:2"]


def test_a_container_gets_the_environment_that_its_image_needs(
    docker: type[Container], tmp_path: Path
) -> None:
    found(replace(LOOKUP, environment={"DATABASE": "test"}), tmp_path)
    assert docker.log == ["DATABASE=test", "started", "stopped"]


def test_a_container_that_does_not_start_or_answer_is_taken_away(
    docker: type[Container], tmp_path: Path
) -> None:
    docker.host = "silent"
    with pytest.raises(NoServer, match="something:1 was started in Docker and doesn't answer"):
        found(LOOKUP, tmp_path)
    docker.error = OSError("the port is taken")
    with pytest.raises(NoServer, match="Docker can't run something:1: the port is taken"):
        found(LOOKUP, tmp_path)
    assert docker.log == ["started", "stopped"] * 2


def program() -> Path:
    return Path("/usr/bin/something")


def no_program() -> Path:
    raise NoServer("No Something for a test to break: install something")


def told(lookup: ServerLookup) -> list[str]:
    found, missing = find_servers([(lookup, program)], {})
    assert not missing
    return found


def test_what_the_tests_will_use_is_told_before_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same order of ways, with nothing started."""
    there = replace(LOOKUP, default=Place(there=True))
    start = "; to break one, they start /usr/bin/something"

    assert told(LOOKUP) == [f"Something: tests share one that they start{start}"]
    assert told(there) == [f"Something: tests share the one on usual:1234{start}"]
    monkeypatch.setenv(VARIABLE, "named, and up")
    assert told(there) == [f"Something: tests share the one that {VARIABLE} names{start}"]
    monkeypatch.setenv(VARIABLE, "docker://mine/something:2")
    assert told(there) == [f"Something: tests share a container of mine/something:2{start}"]
    assert find_servers([], {"Tool": program}) == (["Tool: tests start /usr/bin/something"], [])


def test_all_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = [(LOOKUP, no_program), (LOOKUP, program), (LOOKUP, no_program)]
    found, missing = find_servers(servers, {"Tool": no_program})

    assert len(found) == 1
    assert missing == ["No Something for a test to break: install something"] * 3
    monkeypatch.setenv(VARIABLE, "named")
    (reason,) = find_servers([(LOOKUP, program)], {})[1]
    assert f"{VARIABLE} is set, and no Something answers there" in reason


def test_what_other_programs_the_tests_need_is_told_with_the_way_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(pgbouncer, "_FOLDERS", ())
    found, missing = find_servers([])

    assert not found
    assert [line.partition(",")[0] for line in missing] == ["No PgBouncer", "No openssl"]
    assert "apt-get install pgbouncer" in missing[0]


@pytest.mark.usefixtures("no_docker")
def test_where_there_is_none_the_message_names_every_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(NoServer) as raised:
        found(LOOKUP, tmp_path)
    for way in (VARIABLE, "usual:1234", "install something", "uv sync", "--group docker"):
        assert way in str(raised.value)
