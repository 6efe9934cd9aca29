"""The PostgreSQL and the PgBouncer that fault tests start and break."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from background import Background
from brokers import watchdog
from brokers.fixtures import StartPgBouncer, StartPostgreSQL
from brokers.pgbouncer import PrivatePgBouncer
from brokers.postgresql_server import Address, PrivatePostgreSQL, Shutdown
from conditions import LIMIT_S, eventually

Run = Callable[..., "Future[Any]"]

pytestmark = pytest.mark.long

TESTING = Path(watchdog.__file__).parents[1]
DYING_RUN = """
import os, signal, sys
from pathlib import Path
from brokers.postgresql_server import PrivatePostgreSQL

server = PrivatePostgreSQL(Path(sys.argv[1])).start()
print(server.home, server.url(), sep="\\n", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def background() -> Iterator[Run]:
    with Background() as threads:
        yield threads.submit


def counter(server: PrivatePostgreSQL) -> int:
    """Count one more, and return how many were counted."""
    with server.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS counted (n int)")
        connection.execute("INSERT INTO counted VALUES (1)")
        row = connection.execute("SELECT count(*) FROM counted").fetchone()
    assert row is not None
    return int(row[0])


def setting(server: PrivatePostgreSQL, name: str) -> str:
    with server.connect() as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def backend(connection: "psycopg.Connection[Any]") -> int:
    """The process that runs the statements of a connection."""
    return connection.execute("SELECT pg_backend_pid()").fetchall()[0][0]  # type: ignore[no-any-return]


def user(address: Address) -> str:
    with address.connect(prepare_threshold=None) as connection:
        return str(connection.execute("SELECT current_user").fetchall()[0][0])


def clients_waiting(pooler: PrivatePgBouncer) -> int:
    """How many clients wait for a connection to the server."""
    return sum(pool["cl_waiting"] for pool in pooler.control("SHOW POOLS"))


def test_the_shared_server_admits_the_tests(postgresql_address: Address) -> None:
    assert postgresql_address.answers()
    with postgresql_address.connect() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_commit_survives_that_the_server_is_killed(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql()
    assert setting(server, "synchronous_commit") == setting(server, "fsync") == "on"
    for count in (1, 2):
        assert counter(server) == count
        with server.connect() as connection:
            process = backend(connection)
            server.kill()
            assert not server.answers()
            assert not watchdog.running([process])
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.start()
    assert server.log().count("was not properly shut down; automatic recovery in progress") == 2


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_restart_ends_connections_and_keeps_address_and_data(
    start_postgresql: StartPostgreSQL, how: Shutdown
) -> None:
    server = start_postgresql()
    counter(server)
    with server.connect() as connection:
        server.restart(how)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert counter(server) == 2
    assert f"received {how} shutdown request" in server.log()


def test_settings_are_given_at_the_start_and_changed_at_a_restart(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(max_connections=17, mindtrace__answer="42")
    server.configure(max_connections=18)
    assert setting(server, "max_connections") == "17"
    assert setting(server, "mindtrace.answer") == "42"
    server.restart()
    assert setting(server, "max_connections") == "18"


def test_a_server_that_is_paused_goes_on_where_it_was(
    start_postgresql: StartPostgreSQL, background: Run
) -> None:
    server = start_postgresql(fsync="off")
    with server.connect() as connection:
        connection.execute("SELECT 1")
        server.pause()
        answer = background(connection.execute, "SELECT 2")
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        server.resume()
        assert answer.result(60).fetchall() == [(2,)]


def test_a_private_server_listens_on_a_unix_socket_too(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off")
    assert user(replace(server.address, host=str(server.home))) == "postgres"


def test_private_servers_have_nothing_in_common(start_postgresql: StartPostgreSQL) -> None:
    one, other = start_postgresql(fsync="off"), start_postgresql(fsync="off")
    one.kill()
    assert counter(other) == 1
    one.close()
    assert other.home.exists()
    assert not one.home.exists()
    assert one.log()


def test_a_private_server_goes_when_the_run_of_the_tests_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DYING_RUN, str(tmp_path)]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=TESTING, check=False, timeout=LIMIT_S
    )
    home, url = run.stdout.splitlines()
    eventually(lambda: not Path(home).exists(), "its folder is gone")
    assert not Address.of(url).answers()


def test_clients_of_a_pgbouncer_share_connections_by_the_transaction(
    start_postgresql: StartPostgreSQL, start_pgbouncer: StartPgBouncer, background: Run
) -> None:
    pooler = start_pgbouncer(start_postgresql(fsync="off").address, default_pool_size=1)
    with pooler.connect() as one, pooler.connect() as other:
        assert backend(one) == backend(other)
        with one.transaction():
            first = backend(one)
            waiting = background(backend, other)
            eventually(lambda: clients_waiting(pooler) == 1, "a client waits")
            assert not waiting.done()
        assert waiting.result(60) == first


def test_a_pgbouncer_serves_every_user_and_outlives_its_server(
    start_postgresql: StartPostgreSQL, start_pgbouncer: StartPgBouncer
) -> None:
    server = start_postgresql(fsync="off")
    with server.connect() as connection:
        connection.execute("CREATE ROLE worker LOGIN")
    pooler = start_pgbouncer(server.address, server_login_retry=0)
    worker = replace(pooler.address, user="worker")
    assert user(worker) == "worker"
    server.kill()
    assert pooler.answers()
    server.start()
    assert user(worker) == "worker"
    pooler.restart()
    pooler.kill()
    assert not pooler.answers()
    assert user(server.address) == "postgres"
