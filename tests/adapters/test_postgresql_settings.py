"""What a PostgreSQL client is told is checked before anything connects, and never shows a password."""

import logging
from typing import Any

import pytest
from pydantic import SecretStr

from mindtrace.jobs import PostgreSQLClient
from mindtrace.jobs.domain.errors import InvalidInput

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": ""}, "host ''"),
        ({"host": "postgresql://server"}, "host: it is a URL or a part of one; pass the URL to from_url"),
        ({"port": "5432"}, "host's port '5432'"),
        ({"database": ""}, "database ''"),
        ({"username": 1}, "username 1: must be a text"),
        ({"password": SECRET.encode()}, "password: must be a text or a SecretStr, not bytes"),
        ({"namespace": "a b"}, "namespace 'a b'"),
        ({"namespace": "a" * 64}, "63 characters at most"),
        ({"namespace": "public"}, "choose another name"),
        ({"namespace": "pg_toast"}, "choose another name"),
        ({"durability": "process"}, "durability 'process': must be one of"),
        ({"poll_s": 0}, "poll_s 0: must be more than 0 seconds"),
        ({"retry_timeout_s": "5"}, "retry_timeout_s '5': must be a number of seconds"),
        ({"libpq": {"password": SECRET}}, "libpq has no setting password"),
    ],
    ids=str,
)
def test_a_setting_that_can_not_work_is_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PostgreSQLClient(**settings)

    assert words in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@host",
        f"postgresql://u:{SECRET}@host:port/db",
        f"postgresql://u:{SECRET}@host/db/more",
        f"postgresql://u:{SECRET}@host/db?pasword=x",
        f"postgres://u:{SECRET}@host/db?prepared=maybe",
    ],
)
def test_a_url_that_can_not_work_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PostgreSQLClient.from_url(url)

    assert SECRET not in str(refused.value)


def test_a_client_of_another_machine_without_encryption_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        PostgreSQLClient("db.example", password=SecretStr(SECRET)).close()
        PostgreSQLClient("db.example", libpq={"sslmode": "verify-full"}).close()
        PostgreSQLClient("localhost").close()

    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the connection to PostgreSQL at db.example"
    ]
    assert SECRET not in caplog.text
