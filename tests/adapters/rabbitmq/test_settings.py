"""What a RabbitMQ client is told is checked before anything connects."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mindtrace.jobs import RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.settings import parsed_url
from mindtrace.jobs.domain.errors import InvalidInput

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": ""}, "host ''"),
        ({"host": "amqp://server"}, "host: it is a URL or a part of one; pass the URL to from_url"),
        ({"port": "5672"}, "host's port '5672': must be an integer from 1 to 65535"),
        ({"port": 0}, "host's port 0"),
        ({"hosts": "a:1"}, "give a list of (host, port)"),
        ({"hosts": ["a:1"]}, "'a:1' isn't (host, port)"),
        ({"hosts": [("a", 65536)]}, "host's port 65536"),
        ({"username": ""}, "username ''"),
        ({"username": None}, "username None: must be a text"),
        ({"password": None}, "password: must be a text or a SecretStr, not NoneType"),
        ({"password": SECRET.encode()}, "password: must be a text or a SecretStr, not bytes"),
        ({"vhost": ""}, "vhost ''"),
        ({"vhost": "v" * 256}, "1 to 255 bytes"),
        ({"ssl": 1}, "ssl 1: must be True or False"),
        ({"ssl_ca_certs": "ca.pem"}, "only with ssl=True"),
        ({"ssl": True, "ssl_ca_certs": "/nowhere/ca.pem"}, "'/nowhere/ca.pem': there is no such file"),
        ({"prefetch": 0}, "prefetch 0: must be an integer from 1 to 65535"),
        ({"prefetch": True}, "prefetch True"),
        ({"heartbeat_s": 0}, "heartbeat_s 0: must be an integer from 1 to 3600"),
        ({"heartbeat_s": 1.5}, "heartbeat_s 1.5"),
        ({"retry_timeout_s": 0}, "retry_timeout_s 0: must be more than 0 seconds"),
        ({"retry_timeout_s": float("nan")}, "retry_timeout_s nan"),
        ({"namespace": "a b"}, "namespace 'a b'"),
        ({"namespace": "n" * 97}, "RabbitMQ leaves room for 96 characters"),
    ],
    ids=str,
)
def test_a_setting_that_can_not_work_is_refused_in_words(settings: dict[str, Any], words: str) -> None:
    """The message names the setting and the rule, and no secret (SEC-3)."""
    with pytest.raises(InvalidInput) as refused:
        RabbitMQClient(**settings)

    assert words in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:hunter2@server:abc",
        "amqp://u:hunter2@server:0",
        "amqp://u:hunter2@server:65536",
        "amqp://u:hunter2@server?prefetch=many",
        "amqp://u:hunter2@server?prefetch=0",
        "amqp://u:hunter2@server?heartbeat_s=0",
        "amqp://u:hunter2@server?timeout=hunter2",
        "amqp://u:hunter2@server?hunter2",
        "amqp://u:hunter2@server?ssl_ca_certs=ca.pem",
        "amqp://u:hunter2@[::1",
    ],
)
def test_a_url_that_can_not_be_understood_is_refused_without_its_password(url: str) -> None:
    """Nor is it in what caused the error (SEC-3)."""
    with pytest.raises(InvalidInput) as refused:
        RabbitMQClient.from_url(url)

    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("amqp://", {"hosts": [("localhost", 5672)], "username": "guest", "vhost": "/", "prefetch": 1}),
        ("amqps://server", {"hosts": [("server", 5671)], "ssl": True}),
        ("amqp://a,b:1", {"hosts": [("a", 5672), ("b", 1)]}),
        ("amqp://[::1]:7", {"hosts": [("::1", 7)]}),
        ("amqp://me%40x:p%2Fw@h/v%2Fh", {"username": "me@x", "password": "p/w", "vhost": "v/h"}),
        ("amqp://h/?prefetch=adaptive&heartbeat_s=7&namespace=n", {"prefetch": None, "heartbeat_s": 7}),
    ],
)
def test_a_url_says_what_the_settings_say(url: str, settings: dict[str, Any]) -> None:
    """Percent-encoded where it must be."""
    parsed = parsed_url(url)

    assert {name: parsed[name] for name in settings} == settings


def test_the_password_is_shown_nowhere(tmp_path: Path) -> None:
    """Neither by the client nor by anything that hangs on it (SEC-3)."""
    path = tmp_path / "ca.pem"
    path.touch()
    with RabbitMQClient(password=SecretStr(SECRET)) as client:
        assert SECRET not in repr(client) + repr(vars(client))


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"host": "localhost"}, False),
        ({"host": "127.0.0.2"}, False),
        ({"host": "::1"}, False),
        ({"host": "rabbit.example", "password": SECRET}, True),
        ({"host": "rabbit.example", "ssl": True}, False),
        ({"hosts": [("localhost", 1), ("10.0.0.1", 1)]}, True),
    ],
    ids=str,
)
def test_plaintext_over_a_network_is_warned_of(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], warned: bool
) -> None:
    """Once, when the client is made, and without a secret (SEC-3)."""
    with caplog.at_level(logging.WARNING):
        RabbitMQClient(**settings).close()

    assert ["isn't encrypted" in record.getMessage() for record in caplog.records] == [True] * warned
    assert SECRET not in caplog.text
