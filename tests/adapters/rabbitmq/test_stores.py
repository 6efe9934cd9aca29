"""The stores that a client has beside RabbitMQ, by what it says of itself without connecting."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from mindtrace.jobs import CoordinationStore, LocalClient, RabbitMQClient, ResultStore, Verdict
from mindtrace.jobs.adapters.rabbitmq.coordination import BorrowedCoordinationStore
from mindtrace.jobs.domain.errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    Closed,
    InvalidInput,
    UnsupportedCapability,
)
from mindtrace.jobs.ports import EndedJob, JobResult, Migration

NOBODYS_PORT = 1


@pytest.fixture
def lender() -> Iterator[LocalClient]:
    with LocalClient() as client:
        yield client


@pytest.fixture
def store(lender: LocalClient) -> CoordinationStore:
    return lender.coordination


class Tables:
    """What a store in a database says of its tables."""

    missing: Sequence[Migration] = ()
    host = "host"
    is_closed = False

    def pending_migrations(self) -> Sequence[Migration]:
        return self.missing

    def migrate(self) -> Sequence[Migration]:
        made, self.missing = self.missing, ()
        return made

    def make_url(self, *, with_passwords: bool = False) -> str:
        return f"there://{'secret@' if with_passwords else ''}{self.host}?a=1&b=2"

    def close(self) -> None:
        self.is_closed = True


class ResultsInTables(Tables, ResultStore):
    def put(self, queue: str, ended: Sequence[EndedJob]) -> None: ...

    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        return None

    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None: ...


class RecordsInTables(Tables, BorrowedCoordinationStore):
    error: BackendError | None = None

    def now(self) -> float:
        if self.error is not None:
            raise self.error
        return super().now()


@pytest.fixture
def results() -> ResultsInTables:
    return ResultsInTables()


@pytest.fixture
def records(store: CoordinationStore) -> RecordsInTables:
    return RecordsInTables(store, "")


FIRST, SECOND = Migration("there", 1, "one"), Migration("there", 2, "two")


def test_a_client_with_a_store_has_coordination_and_publishes_in_two_steps(store: CoordinationStore) -> None:
    """And has no results, which are another store's (CRD-1, CRD-4)."""
    with RabbitMQClient(store=store) as client:
        capabilities = client.capabilities
        assert (capabilities.coordination, capabilities.guarded_publish) == (True, False)
        assert not capabilities.results
        client.coordination.put("k", b"v")
        assert client.coordination.get(["k"])["k"].value == b"v"


def test_a_client_without_one_says_how_to_get_one() -> None:
    with RabbitMQClient() as client:
        assert not client.capabilities.coordination
        with pytest.raises(UnsupportedCapability, match=r"amqp://host\?store=redis://host"):
            client.coordination  # noqa: B018


def test_namespaces_of_one_store_never_meet(store: CoordinationStore) -> None:
    """Nor do they meet a client whose own store it is (CON-2)."""
    with RabbitMQClient(store=store, namespace="one") as one, RabbitMQClient(store=store) as two:
        one.coordination.put("k", b"1")
        two.coordination.put("k", b"2")
        store.put("k", b"3")
        assert one.coordination.scan("").keys() == two.coordination.scan("").keys() == {"k"}
        assert one.coordination.get(["k"])["k"].value == b"1"
    with RabbitMQClient(store=store, namespace="one") as again:
        assert again.coordination.get(["k"])["k"].value == b"1"


def test_a_store_that_was_handed_over_is_its_owners_to_close(store: CoordinationStore) -> None:
    """The client's view of it is closed with the client (CON-2)."""
    with RabbitMQClient(store=store) as client:
        view = client.coordination
    client.close()

    with pytest.raises(Closed, match="this RabbitMQClient is closed"):
        view.now()
    assert store.scan("") == {}


def test_stores_that_were_opened_for_a_url_are_closed_with_the_client(
    results: ResultsInTables, records: RecordsInTables
) -> None:
    """They have no other owner (CON-2)."""
    with RabbitMQClient.from_url("amqp://localhost", results=results, store=records):
        assert not results.is_closed
        assert not records.is_closed
    assert results.is_closed
    assert records.is_closed


def named(word: str, url: str) -> str:
    return f"&{word}={quote(url, safe='')}"


def test_the_url_has_those_of_the_stores(results: ResultsInTables, records: RecordsInTables) -> None:
    """With passwords only if asked (SEC-3)."""
    results.host = "elsewhere"
    with RabbitMQClient(results=results, store=records) as client:
        there, elsewhere = "there://host?a=1&b=2", "there://elsewhere?a=1&b=2"
        assert client.url.endswith("heartbeat_s=15" + named("results", elsewhere) + named("store", there))
        there, elsewhere = "there://secret@host?a=1&b=2", "there://secret@elsewhere?a=1&b=2"
        url = client.make_url(with_passwords=True)
        assert url.endswith("heartbeat_s=15" + named("results", elsewhere) + named("store", there))


def test_one_word_of_the_url_names_one_place_of_both(
    results: ResultsInTables, records: RecordsInTables
) -> None:
    """As the URL that such a client is made of."""
    with RabbitMQClient(results=results, store=records) as client:
        assert client.url.endswith("heartbeat_s=15" + named("store", "there://host?a=1&b=2"))
    with RabbitMQClient(results=results) as client:
        assert client.url.endswith("heartbeat_s=15" + named("results", "there://host?a=1&b=2"))


def test_tables_that_both_stores_share_are_migrated_once(
    results: ResultsInTables, records: RecordsInTables
) -> None:
    """What each lacks is missing, in order."""
    results.missing, records.missing = [FIRST], [FIRST, SECOND]
    with RabbitMQClient(results=results, store=records) as client:
        assert client.pending_migrations() == [FIRST, SECOND]
        results.missing = ()  # as each says after the other's migration
        assert client.migrate() == (FIRST, SECOND)
        assert client.pending_migrations() == []


def test_a_client_without_tables_has_nothing_to_migrate(store: CoordinationStore) -> None:
    for client in (RabbitMQClient(), RabbitMQClient(store=store)):
        with client:
            assert client.pending_migrations() is None
            assert client.migrate() == ()


@pytest.mark.parametrize(
    ("error", "verdict", "remedy"),
    [
        (None, Verdict.GOOD, ""),
        (BackendUnavailable("no answer"), Verdict.WRONG, "start the coordination store"),
        (AccessDenied("no answer"), Verdict.WRONG, "correct the user and password in store="),
        (BackendError("no answer"), Verdict.WRONG, "correct the URL in store="),
    ],
    ids=["there", "away", "denied", "refused"],
)
def test_the_doctor_asks_the_store(
    records: RecordsInTables, error: BackendError | None, verdict: Verdict, remedy: str
) -> None:
    """Also where the broker is away."""
    records.error = error
    with RabbitMQClient("127.0.0.1", NOBODYS_PORT, store=records, retry_timeout_s=0.1) as client:
        broker, found = client.diagnose()

    assert broker.verdict is Verdict.WRONG
    assert (found.verdict, found.subject) == (verdict, "store")
    assert remedy in found.remedy
    assert found.what == ("the coordination store answers" if error is None else "no answer")


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        (
            {"results": "redis://host"},
            r"results: pass a ResultStore, such as RedisResultStore\(…\), not str",
        ),
        ({"store": "redis://host"}, r"store: pass a CoordinationStore, such as RedisCoordinationStore\(…\)"),
        ({"store": ResultsInTables()}, "not ResultsInTables"),
    ],
    ids=["a URL for results", "a URL", "the other kind"],
)
def test_what_is_no_store_is_refused(stores: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        RabbitMQClient(**stores)
