"""A client's URL makes such a client again, elsewhere; it shows passwords only if they are asked for."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from mindtrace.jobs import (
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    OrchestratorBackend,
    PostgreSQLClient,
    PostgreSQLCoordinationStore,
    PostgreSQLResultStore,
    RabbitMQClient,
    RedisClient,
    RedisCoordinationStore,
    RedisResultStore,
    ResultStore,
    SQLiteClient,
)
from mindtrace.jobs.adapters.shared import server_settings
from mindtrace.jobs.errors import InvalidInput, UnsupportedCapability

ODD = "p@ss:w/rd?#%&+ ü"
CA = __file__
"""Some file that exists: that it holds no certificate is seen when it is used."""

CLIENTS: dict[str, tuple[Any, str, str]] = {
    "a file": (
        lambda: SQLiteClient("/tmp/my jobs?.db", namespace="a"),
        "sqlite:////tmp/my%20jobs%3F.db?namespace=a&durability=fsync",
        "",
    ),
    "a file that is faster": (
        lambda: SQLiteClient("/tmp/jobs.db", durability="snapshot"),
        "sqlite:////tmp/jobs.db?namespace=default&durability=snapshot",
        "",
    ),
    "Redis": (RedisClient, "redis://localhost:6379/0?namespace=default", ""),
    "Redis with all": (
        lambda: RedisClient(
            "::1",
            1,
            2,
            username="a b",
            password=SecretStr(ODD),
            namespace="n",
            ssl=True,
            ssl_ca_certs=CA,
        ),
        "rediss://a%20b@[::1]:1/2?namespace=n&ssl_ca_certs=",
        "rediss://a%20b:p%40ss%3Aw%2Frd%3F%23%25%26%2B%20%C3%BC@[::1]:1/2?namespace=n&ssl_ca_certs=",
    ),
    "Redis with a password alone": (
        lambda: RedisClient(password=ODD),
        "redis://localhost:6379/0?",
        "redis://:p%40ss",
    ),
    "Redis behind Sentinels": (
        lambda: RedisClient(
            db=3,
            sentinels=[("a", 1), ("b", 2)],
            sentinel_service="my master",
            sentinel_password=ODD,
            password="p",
        ),
        "redis+sentinel://a:1,b:2/my%20master/3?namespace=default",
        "redis+sentinel://:p@a:1,b:2/my%20master/3?namespace=default&sentinel_password=p%40ss",
    ),
    "PostgreSQL": (
        PostgreSQLClient,
        "postgresql://localhost:5432/postgres?namespace=mindtrace_jobs&durability=fsync",
        "",
    ),
    "PostgreSQL with all": (
        lambda: PostgreSQLClient(
            "/var/run/my db",
            1,
            "a/b",
            username="a b",
            password=SecretStr(ODD),
            namespace="n",
            durability="every second",
            poll_s=1.0,
            prepared=False,
            more_hosts=[("::1", 2)],
            libpq={"sslmode": "verify-full", "sslrootcert": "/a b"},
        ),
        "postgresql://a%20b@%2Fvar%2Frun%2Fmy%20db:1,[::1]:2/a%2Fb?namespace=n&durability=every+second&prepared=false"
        "&sslmode=verify-full&sslrootcert=%2Fa+b",
        "postgresql://a%20b:p%40ss",
    ),
    "RabbitMQ": (
        RabbitMQClient,
        "amqp://guest@localhost:5672?namespace=default&prefetch=1&heartbeat_s=15",
        "amqp://guest:guest@localhost:5672?",
    ),
    "RabbitMQ with all": (
        lambda: RabbitMQClient(
            username="a:b",
            password=ODD,
            vhost="my/host",
            namespace="n",
            hosts=[("a", 1), ("::1", 2)],
            prefetch=None,
            heartbeat_s=7,
            results=RedisResultStore(password=ODD, namespace="r"),
        ),
        "amqp://a%3Ab@a:1,[::1]:2/my%2Fhost?namespace=n&prefetch=adaptive&heartbeat_s=7"
        "&results=redis%3A%2F%2Flocalhost%3A6379%2F0%3Fnamespace%3Dr",
        "amqp://a%3Ab:p%40ss",
    ),
    "RabbitMQ with a store in Redis": (
        lambda: RabbitMQClient(store=RedisCoordinationStore(password=ODD, namespace="r")),
        "amqp://guest@localhost:5672?namespace=default&prefetch=1&heartbeat_s=15"
        "&store=redis%3A%2F%2Flocalhost%3A6379%2F0%3Fnamespace%3Dr",
        "amqp://guest:guest@localhost:5672?",
    ),
    "RabbitMQ with a store in PostgreSQL and results in Redis": (
        lambda: RabbitMQClient(
            results=RedisResultStore(password=ODD, namespace="r"),
            store=PostgreSQLCoordinationStore("db", password=ODD, namespace="p"),
        ),
        "amqp://guest@localhost:5672?namespace=default&prefetch=1&heartbeat_s=15"
        "&results=redis%3A%2F%2Flocalhost%3A6379%2F0%3Fnamespace%3Dr"
        "&store=postgresql%3A%2F%2Fdb%3A5432%2Fpostgres%3Fnamespace%3Dp",
        "amqp://guest:guest@localhost:5672?",
    ),
    "RabbitMQ with results in PostgreSQL": (
        lambda: RabbitMQClient(results=PostgreSQLResultStore("db", password=ODD, namespace="r")),
        "amqp://guest@localhost:5672?namespace=default&prefetch=1&heartbeat_s=15"
        "&results=postgresql%3A%2F%2Fdb%3A5432%2Fpostgres%3Fnamespace%3Dr",
        "amqp://guest:guest@localhost:5672?",
    ),
}


@pytest.mark.parametrize(("make", "plain", "secret"), CLIENTS.values(), ids=CLIENTS)
def test_the_url_of_a_client_makes_such_a_client_again(make: Any, plain: str, secret: str) -> None:
    with make() as client:
        url = client.make_url(with_passwords=True)

        assert client.url.startswith(plain)
        assert client.make_url() == client.url
        assert url.startswith(secret)
        with Orchestrator(url) as again:
            assert type(again.backend) is type(client)
            assert again.backend.make_url(with_passwords=True) == url
            assert again.backend.url == client.url
        for part in (ODD, "p%40ss", "p@ss", ":guest", ":p@"):
            assert part not in client.url


@pytest.mark.parametrize(
    ("client", "url", "read"),
    [(RabbitMQClient, "AMQPS://h", "amqps://guest@h:5671"), (RedisClient, "REDISS://h", "rediss://h:6379")],
)
def test_a_scheme_in_capitals_encrypts_as_well(client: Any, url: str, read: str) -> None:
    with client.from_url(url) as made:
        assert made.url.startswith(read)


URLS = [
    (SQLiteClient, "sqlite:///jobs.db?"),
    (RedisClient, "redis://host?"),
    (RedisResultStore, "redis://host?"),
    (RedisCoordinationStore, "redis+sentinel://host/service?"),
    (RabbitMQClient, "amqp://host?"),
    (PostgreSQLClient, "postgresql://host/jobs?"),
    (PostgreSQLResultStore, "postgresql://host/jobs?"),
    (PostgreSQLCoordinationStore, "postgresql://host/jobs?"),
]


@pytest.mark.parametrize(("made_of", "url"), URLS)
def test_a_url_may_say_how_patient_calls_are(made_of: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, each class has its own patience. It is no part of the URL for another process."""
    given: list[Any] = []
    init = made_of.__init__
    monkeypatch.setattr(made_of, "__init__", lambda *args, **how: given.append(how) or init(*args, **how))

    for query in ("retry_timeout_s=7.5", "namespace=n"):
        made = made_of.from_url(url + query)
        assert "retry_timeout_s" not in made.make_url()
        made.close()

    patient, usual = given
    assert patient["retry_timeout_s"] == 7.5
    assert "retry_timeout_s" not in usual


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
@pytest.mark.parametrize(("made_of", "url"), URLS)
def test_a_patience_that_is_no_number_of_seconds_is_refused(made_of: Any, url: str, text: str) -> None:
    with pytest.raises(InvalidInput, match="retry_timeout_s"):
        made_of.from_url(f"{url}namespace=n&retry_timeout_s={text}")


def test_an_address_in_brackets_may_follow_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer releases of Python refuse that."""

    def strict(url: str) -> Any:
        before, bracket, _ = url.partition("//")[2].rpartition("@")[2].partition("[")
        if bracket and before:
            raise ValueError("Invalid IPv6 URL")
        return urlsplit(url)

    monkeypatch.setattr(server_settings, "urlsplit", strict)
    split = server_settings.split_url("amqp://a%40b:p%2Fw@one:1,[::1]:2,three/vhost?prefetch=5")

    assert split == ("a@b", "p/w", ["one:1", "[::1]:2", "three"], "/vhost", "prefetch=5")
    ports = [server_settings.parsed_address(each, 3) for each in split.addresses]
    assert ports == [("one", 1), ("::1", 2), ("three", 3)]


@pytest.mark.parametrize("host", [f"scheme://me:{ODD}@broker:1/0", f"me:{ODD}@broker"])
@pytest.mark.parametrize("client", [RedisClient, RabbitMQClient, PostgreSQLClient])
def test_a_url_that_is_given_as_a_host_is_refused_and_not_shown(client: Any, host: str) -> None:
    """It may have a password (SEC-3)."""
    with pytest.raises(InvalidInput, match="pass the URL to from_url") as refused:
        client(host)
    assert "ss:w" not in str(refused.value)


def test_another_process_would_find_the_jobs(tmp_path: Path) -> None:
    """The path is absolute: the process may work in another folder."""
    with SQLiteClient(tmp_path / "jobs.db", namespace="a") as client:
        jobs = Orchestrator(client)
        jobs.register(JobSchema("inspect", JobInput))
        jobs.publish("inspect", {})
        with Orchestrator(client.url) as there:
            assert there.counts("inspect").ready == 1


class NoURL(LocalClient):
    make_url = OrchestratorBackend.make_url


class NoStoreURL(RedisResultStore):
    make_url = ResultStore.make_url


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (LocalClient, "use SQLiteClient or a broker"),
        (lambda: LocalClient("shared"), "use SQLiteClient or a broker"),
        (NoURL, "NoURL has no URL: make the client in the other process"),
        (lambda: RabbitMQClient(results=NoStoreURL()), "NoStoreURL has no URL: make the store in the other"),
        (lambda: RedisClient(sentinels=[("localhost", 1)], ssl=True), "make the client by its arguments"),
    ],
)
def test_a_client_that_no_url_reaches_says_so(make: Any, remedy: str) -> None:
    with make() as client, pytest.raises(UnsupportedCapability, match=remedy):
        client.url  # noqa: B018
