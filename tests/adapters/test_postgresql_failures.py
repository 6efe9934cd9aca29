"""What is told of a connection to PostgreSQL that couldn't be made."""

from typing import Any

import psycopg
import pytest

from mindtrace.jobs import PostgreSQLClient
from mindtrace.jobs.adapters.postgresql.errors import in_one_line
from mindtrace.jobs.domain.errors import BackendUnavailable

REFUSED = (
    'connection failed: connection to server at "{}", port 1 failed: Connection refused\n'
    "\tIs the server running on that host and accepting TCP/IP connections?"
)


def test_a_name_of_two_addresses_is_told_of_once_each() -> None:
    """As psycopg writes it where localhost has two addresses."""
    text = (
        f"{REFUSED.format('127.0.0.1')}\nMultiple connection attempts failed. All failures were:\n"
        f"- host: 'localhost', port: '1', hostaddr: '::1': {REFUSED.format('::1')}\n"
        f"- host: 'localhost', port: '1', hostaddr: '127.0.0.1': {REFUSED.format('127.0.0.1')}"
    )

    assert in_one_line(text) == (
        'connection failed: connection to server at "::1", port 1 failed: Connection refused; '
        'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
    )


def test_of_one_address_all_is_told_that_libpq_says() -> None:
    refused = 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
    assert in_one_line(REFUSED.format("127.0.0.1")) == refused
    assert in_one_line('server at "s", failed:\nFATAL:  no pg_hba.conf entry') == (
        'server at "s", failed: FATAL: no pg_hba.conf entry'
    )


@pytest.mark.parametrize(("hosts", "each_s"), [(1, 5), (2, 2)])
def test_a_host_that_hangs_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, hosts: int, each_s: int
) -> None:
    """All together have the retry timeout, which is 5 s by default (CON-1)."""
    timeouts: list[int] = []

    def hang(**parameters: Any) -> None:
        timeouts.append(parameters["connect_timeout"])
        raise psycopg.OperationalError("connection timeout expired")

    monkeypatch.setattr(psycopg, "connect", hang)
    more_hosts = [("127.0.0.1", 2)] * (hosts - 1)
    with PostgreSQLClient("127.0.0.1", 1, more_hosts=more_hosts, retry_timeout_s=5.0) as client:
        client._session._deadline = 0.0  # it tries once
        with pytest.raises(BackendUnavailable):
            client.counts("jobs")

    assert timeouts == [each_s]
