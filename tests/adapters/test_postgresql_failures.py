"""What is told of a connection to PostgreSQL that couldn't be made."""

from mindtrace.jobs.adapters.postgresql.errors import in_one_line

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
