"""How tests name a PostgreSQL, and where they look for its programs."""

import shutil
from pathlib import Path

import pytest

from brokers import pgbouncer, postgresql_server
from brokers.fixtures import StartPgBouncer, StartPostgreSQL
from brokers.postgresql_server import Address, installed_program
from brokers.private_server import NoServer


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(postgresql_server, "_FOLDERS", ())
    monkeypatch.setattr(pgbouncer, "_FOLDERS", ())


def install(folder: Path, *programs: str) -> Path:
    folder.mkdir(parents=True)
    for program in programs:
        (folder / program).touch()
    return folder


@pytest.mark.parametrize(
    "address",
    [
        Address(),
        Address("::1", 6000, "a b", "p@ss/word", "some/thing"),
        Address("/var/run/postgresql", database="jobs"),
        Address(parameters=(("options", "-c work_mem=1MB"), ("sslmode", "require"))),
    ],
)
def test_an_address_is_read_from_the_url_that_it_writes(address: Address) -> None:
    assert Address.of(address.url()) == address


def test_what_a_url_leaves_out_is_what_the_driver_takes() -> None:
    assert Address.of("postgresql://me@db") == Address("db", user="me", database="me")
    assert Address.of("postgres:///jobs") == Address(database="jobs")


def test_a_namespace_is_a_parameter_of_the_url() -> None:
    assert Address(parameters=(("sslmode", "require"),)).url("a/b") == (
        "postgresql://postgres@127.0.0.1:5432/test?sslmode=require&namespace=a%2Fb"
    )


def test_a_server_that_is_not_there_neither_answers_nor_admits() -> None:
    nowhere = Address(port=1)
    assert not nowhere.answers()
    assert not nowhere.admits()


@pytest.mark.usefixtures("nothing_installed")
def test_the_newest_release_is_used_where_none_is_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for release in ("9.6", "14", "17"):
        install(tmp_path / release / "bin", "initdb", "postgres")
    install(tmp_path / "18" / "bin", "psql")
    monkeypatch.setattr(postgresql_server, "_FOLDERS", (f"{tmp_path}/*/bin",))
    assert installed_program() == tmp_path / "17" / "bin" / "postgres"

    on_path = install(tmp_path / "own", "initdb", "postgres")
    linked = tmp_path / "initdb"
    linked.symlink_to(on_path / "initdb")
    monkeypatch.setattr(shutil, "which", lambda name: str(linked))
    assert installed_program() == on_path / "postgres"


@pytest.mark.usefixtures("nothing_installed")
def test_where_none_is_installed_the_message_says_how_to_get_one() -> None:
    with pytest.raises(NoServer, match="apt-get install postgresql;"):
        installed_program()


@pytest.mark.usefixtures("nothing_installed")
def test_a_test_fails_and_is_not_skipped_where_its_server_or_pooler_is_not_installed(
    start_postgresql: StartPostgreSQL, start_pgbouncer: StartPgBouncer
) -> None:
    with pytest.raises(pytest.fail.Exception, match="apt-get install postgresql;"):
        start_postgresql()
    with pytest.raises(pytest.fail.Exception, match="apt-get install pgbouncer;"):
        start_pgbouncer(Address())
