"""What a Redis client, or a store, is told is checked before anything connects."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mindtrace.jobs import RedisClient, RedisCoordinationStore, RedisResultStore
from mindtrace.jobs.domain.errors import InvalidInput

SECRET = "hunter2"

Connecting = type[RedisClient] | type[RedisResultStore] | type[RedisCoordinationStore]


@pytest.fixture(params=[RedisClient, RedisResultStore, RedisCoordinationStore])
def connecting(request: pytest.FixtureRequest) -> Connecting:
    """Each class that connects to a Redis."""
    which: Connecting = request.param
    return which


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": ""}, "host ''"),
        ({"host": None}, "host None"),
        ({"host": "redis://server"}, "host: it is a URL or a part of one; pass the URL to from_url"),
        ({"port": "abc"}, "host's port 'abc': must be an integer from 1 to 65535"),
        ({"port": "6379"}, "host's port '6379'"),
        ({"port": 0}, "host's port 0"),
        ({"port": 65536}, "host's port 65536"),
        ({"db": -1}, "db -1"),
        ({"db": True}, "db True"),
        ({"username": "jobs"}, "username 'jobs': needs a password"),
        ({"username": 1, "password": SECRET}, "username: must be a text, not int"),
        ({"password": SECRET.encode()}, "password: must be a text or a SecretStr, not bytes"),
        ({"ssl": 1}, "ssl 1: must be True or False"),
        ({"ssl_ca_certs": "ca.pem"}, "only with ssl=True"),
        ({"ssl": True, "ssl_ca_certs": "/nowhere/ca.pem"}, "'/nowhere/ca.pem': there is no such file"),
        ({"sentinels": "s1:26379"}, "give a list of (host, port)"),
        ({"sentinels": ["s1:26379"]}, "'s1:26379' isn't (host, port)"),
        ({"sentinels": [("s1", "26379")]}, "sentinel's port '26379'"),
        ({"sentinels": [("s1", 26379)], "sentinel_service": ""}, "sentinel_service ''"),
        ({"sentinel_password": SECRET}, "sentinel_password is of use only with sentinels"),
        ({"sentinels": [("s1", 26379)], "sentinel_password": 1}, "sentinel_password: must be a text"),
        ({"retry_timeout_s": "5"}, "retry_timeout_s '5': must be a number of seconds"),
        ({"retry_timeout_s": float("nan")}, "retry_timeout_s nan"),
        ({"namespace": "a b"}, "namespace 'a b'"),
    ],
    ids=str,
)
def test_a_setting_that_can_not_work_is_refused_in_words(
    connecting: Connecting, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        connecting(**settings)

    assert words in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("waiting", [RedisClient, RedisResultStore])
@pytest.mark.parametrize(("sweep_s", "rule"), [(0, "must be more than 0"), (-1, "must be a number of")])
def test_who_waits_for_no_time_is_refused_in_words(
    waiting: type[RedisClient] | type[RedisResultStore], sweep_s: float, rule: str
) -> None:
    with pytest.raises(InvalidInput, match=f"sweep_s {sweep_s}: {rule} seconds"):
        waiting(sweep_s=sweep_s)


@pytest.mark.parametrize("durability", ["always", "process", "replicated"])
def test_a_durability_that_there_is_not_is_refused_in_words(durability: str) -> None:
    """Redis replicates after it has answered, so a failover may lose what was confirmed."""
    choices = "'none', 'snapshot', 'every second', 'fsync'"
    with pytest.raises(InvalidInput, match=f"durability '{durability}': must be one of {choices}$"):
        RedisClient(durability=durability)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@server:abc",
        "redis://:hunter2@server:0",
        "redis://:hunter2@server/zero",
        "redis://:hunter2@server/-1",
        "redis://:hunter2@one,two",
        "redis://:hunter2@server?sentinel_password=hunter2",
        "redis://:hunter2@server?ssl_ca_certs=ca.pem",
        "redis://:hunter2@server?timeout=hunter2",
        "redis+sentinel://:hunter2@s1",
    ],
)
def test_a_url_that_can_not_be_understood_is_refused_without_its_password(
    connecting: Connecting, url: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        connecting.from_url(url)

    assert SECRET not in str(refused.value)


def test_a_certificate_file_is_taken_where_it_exists(connecting: Connecting, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.touch()
    connecting(ssl=True, ssl_ca_certs=str(path)).close()
    connecting.from_url(f"rediss://server?ssl_ca_certs={path}").close()


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"host": "localhost"}, False),
        ({"host": "127.0.0.2"}, False),
        ({"host": "::1"}, False),
        ({"host": "redis.example"}, True),
        ({"host": "10.0.0.1", "username": "jobs", "password": SecretStr(SECRET)}, True),
        ({"host": "redis.example", "ssl": True}, False),
        ({"sentinels": [("localhost", 26379), ("s2.example", 26379)]}, True),
        ({"sentinels": [("localhost", 26379)]}, False),
    ],
    ids=str,
)
def test_plaintext_over_a_network_is_warned_of(
    connecting: Connecting, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], warned: bool
) -> None:
    """Once, when the client is made, and without a secret (SEC-3)."""
    with caplog.at_level(logging.WARNING):
        connecting(**settings).close()

    assert ["isn't encrypted" in record.getMessage() for record in caplog.records] == [True] * warned
    assert SECRET not in caplog.text
