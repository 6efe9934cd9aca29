"""From an object or a URL to the backend it means, and from there to its consumer backend."""

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import Consumer, LocalClient, LocalConsumerBackend, Orchestrator
from mindtrace.jobs.domain.errors import (
    AdapterNotInstalled,
    Closed,
    InvalidName,
    JobsError,
    UnknownBackend,
)

Install = Callable[..., None]
REGISTERED = (
    "amqp://, amqps://, memory://, postgres://, postgresql://, redis+sentinel://, redis://, "
    "rediss://, sqlite://"
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a third party's distribution ``acme-jobs`` with one adapter, as pip would."""

    def install(source: str, entry: str, more: str = "") -> None:
        info = tmp_path / "acme_jobs-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme-jobs\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[mindtrace.jobs.adapters]\n{entry}\n{more}")
        tmp_path.joinpath("acme_jobs.py").write_text(source)
        monkeypatch.delitem(sys.modules, "acme_jobs", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("acme_jobs", None)


def test_a_backend_is_taken_as_it_is(client: LocalClient) -> None:
    """An object of the port needs no detection, and no registration."""
    assert Orchestrator(client).backend is client


@pytest.mark.parametrize("url", ["memory://", "memory://shared", "memory://shared/"])
def test_a_url_names_a_backend(url: str) -> None:
    """The scheme chooses the adapter, which reads the rest."""
    with Orchestrator(url) as orchestrator:
        assert isinstance(orchestrator.backend, LocalClient)


def test_a_consumer_gets_the_consumer_backend_of_its_orchestrator(make_consumer: Any) -> None:
    """``connect`` detects it once, and shows it."""
    assert type(make_consumer().consumer_backend) is LocalConsumerBackend


def test_a_backend_of_a_third_party_brings_its_own(far: Orchestrator, make_consumer: Any) -> None:
    """The backend's own class knows which that is."""
    assert type(make_consumer(to=far).consumer_backend).__name__ == "LineConsumer"


def test_a_class_instead_of_an_instance_is_told_so() -> None:
    """The commonest slip gets the mend."""
    with pytest.raises(UnknownBackend, match=r"LocalClient is a class: pass an instance, LocalClient\(…\)"):
        Orchestrator(LocalClient)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            7,
            "int is not a backend: pass an OrchestratorBackend, such as LocalClient(), or a URL; registered: "
            + REGISTERED,
        ),
        (int, "int is not a backend"),
        (b"memory://", "bytes is not a backend"),
        (
            "",
            "a backend URL starts with a scheme, such as sqlite:///jobs.db or redis://localhost:6379/0; "
            f"registered: {REGISTERED}",
        ),
        ("localhost:6379", "a backend URL starts with a scheme"),
        ("://x", "a backend URL starts with a scheme"),
        ("nosuch://x", "no adapter for nosuch:// is installed; registered: " + REGISTERED),
    ],
)
def test_what_is_no_backend_is_refused(backend: Any, message: str) -> None:
    """The message says what it was and what is registered."""
    with pytest.raises(UnknownBackend) as raised:
        Orchestrator(backend)

    assert message in str(raised.value)


def test_a_namespace_is_a_name() -> None:
    """What follows ``memory://`` is held to the rule for names."""
    with pytest.raises(InvalidName, match="memory:// namespace: use 1 to 128 characters"):
        Orchestrator("memory://a/b")


def test_a_third_partys_scheme_is_found(install: Install) -> None:
    """An entry point is all that it takes, and nothing is imported before its scheme is asked for."""
    install(
        "from mindtrace.jobs import LocalClient\n"
        "class AcmeClient(LocalClient): pass\n"
        "def make(url): return AcmeClient(url.removeprefix('acme://'))\n",
        "acme = acme_jobs:make",
    )

    with pytest.raises(UnknownBackend, match=re.escape(f"registered: acme://, {REGISTERED}")):
        Orchestrator("nosuch://")
    assert "acme_jobs" not in sys.modules

    with Orchestrator("acme://queues") as orchestrator:
        assert type(orchestrator.backend).__name__ == "AcmeClient"


@pytest.mark.parametrize(
    ("entry", "remedy"),
    [("acme = acme_jobs:make [fast]", "acme-jobs[fast]>=1.0"), ("acme = acme_jobs:make", "acme-jobs>=1.0")],
)
def test_a_missing_library_is_named_with_what_to_install(install: Install, entry: str, remedy: str) -> None:
    """The distribution and its extra come from the entry point itself."""
    install("import nosuchlibrary\n", entry)

    with pytest.raises(AdapterNotInstalled) as raised:
        Orchestrator("acme://host")

    assert str(raised.value) == f"acme:// needs nosuchlibrary: pip install '{remedy}'"
    assert raised.value.name == "nosuchlibrary"
    assert isinstance(raised.value, ImportError)


def test_an_adapter_that_makes_no_backend_is_refused(install: Install) -> None:
    """The message names the adapter, whose fault it is."""
    install("def make(url): return dict(url=url)\n", "acme = acme_jobs:make")

    with pytest.raises(
        UnknownBackend, match="adapter 'acme_jobs:make' must return an OrchestratorBackend, not dict"
    ):
        Orchestrator("acme://host")


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://user:hunter2@host/0",
        "user:hunter2@host",
        "hunter2",
        "redis:hunter2@host/0?next=http://x",
        "memory://user:hunter2@host",
        "acme://user:hunter2@host",
    ],
)
def test_a_password_is_never_shown(install: Install, url: str) -> None:
    """Not in the error, its causes or its traceback, wherever the URL breaks (SEC-3)."""
    install("import nosuchlibrary\n", "acme = acme_jobs:make")

    with pytest.raises(JobsError) as raised:
        Orchestrator(url)

    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


STORE = (
    "from mindtrace.jobs import LocalClient, ResultStore\n"
    "class Records:\n"
    "    def __init__(self, url): self.url = url\n"
    "class Store(ResultStore):\n"
    "    def __init__(self, url): self.url = url\n"
    "    def put(self, queue, ended): pass\n"
    "    def get(self, queue, job_id, *, timeout_s=0.0): return None\n"
    "    def forget(self, queue, ids=None): pass\n"
    "    def close(self): pass\n"
    "class Pair(LocalClient): pass\n"
    "def make(url, *, results=None, store=None):\n"
    "    pair = Pair()\n"
    "    pair.said, pair.stores = url, {'results': results, 'store': store}\n"
    "    return pair\n"
)
STORE_ENTRIES = (
    "[mindtrace.jobs.results]\nacme = acme_jobs:Store\n"
    "[mindtrace.jobs.coordination]\nacme = acme_jobs:Records\nother = acme_jobs:Records\n"
)
ENCODED = "acme%3A%2F%2Fu%3Ap%2540s%40there%3Fc%3D1%26d"
DECODED = "acme://u:p%40s@there?c=1&d"


def stores_of(backend: Any) -> dict[str, tuple[str, str]]:
    """The class and the URL of each store that an adapter was given."""
    given = {word: store for word, store in backend.stores.items() if store is not None}
    return {word: (type(store).__name__, store.url) for word, store in given.items()}


@pytest.mark.parametrize(
    ("url", "said", "stores"),
    [
        ("acme://host?results=acme://there", "acme://host", {"results": ("Store", "acme://there")}),
        (f"acme://host?a=1&results={ENCODED}&b=2", "acme://host?a=1&b=2", {"results": ("Store", DECODED)}),
        ("acme://host?a=1", "acme://host?a=1", {}),
        ("acme://host?storey=1&restore=2", "acme://host?storey=1&restore=2", {}),
        (
            f"acme://host?store={ENCODED}&b=2",
            "acme://host?b=2",
            {"results": ("Store", DECODED), "store": ("Records", DECODED)},
        ),
        (
            "acme://host?store=acme://here&results=acme://there",
            "acme://host",
            {"results": ("Store", "acme://there"), "store": ("Records", "acme://here")},
        ),
        ("acme://host?store=other://there", "acme://host", {"store": ("Records", "other://there")}),
    ],
)
def test_a_url_names_the_stores_of_its_backend(
    install: Install, url: str, said: str, stores: dict[str, tuple[str, str]]
) -> None:
    """By URLs of their own; an adapter is given both, and need know no other.

    A coordination store has the results, too, if it can, and nothing else says where they are.
    """
    install(STORE, "acme = acme_jobs:make", more=STORE_ENTRIES)

    backend: Any = Orchestrator(url).backend

    assert backend.said == said
    assert stores_of(backend) == stores


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "results=nosuch://:hunter2@host",
            "no result store for nosuch:// is installed; registered: acme://, postgres",
        ),
        ("results=hunter2", "results= must be a URL; registered: acme://, postgres"),
        ("results=", "results= must be a URL; registered: acme://, postgres"),
        (
            "store=nosuch://:hunter2@host",
            "no coordination store for nosuch:// is installed; registered: acme://, other://, postgres",
        ),
        ("store=hunter2", "store= must be a URL; registered: acme://, other://, postgres"),
    ],
)
def test_a_store_that_is_not_there_is_named_without_its_password(
    install: Install, query: str, message: str
) -> None:
    """With those that are (SEC-3)."""
    install(STORE, "acme = acme_jobs:make", more=STORE_ENTRIES)

    with pytest.raises(UnknownBackend) as raised:
        Orchestrator(f"acme://host?{query}")

    assert message in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_an_adapter_that_takes_no_store_reads_its_url_as_it_is(install: Install) -> None:
    """What it does with the word is its own affair."""
    install(
        "from mindtrace.jobs import LocalClient\n"
        "class AcmeClient(LocalClient): pass\n"
        "def make(url):\n"
        "    client = AcmeClient()\n"
        "    client.said = url\n"
        "    return client\n",
        "acme = acme_jobs:make",
    )

    backend: Any = Orchestrator("acme://host?results=nosuch://x&store=nosuch://y").backend

    assert backend.said == "acme://host?results=nosuch://x&store=nosuch://y"


def test_an_adapter_that_takes_one_kind_of_store_is_given_no_other(install: Install) -> None:
    """The other word stays in its URL."""
    only_store = STORE.replace("results=None, store=None", "store=None").replace(
        "results, 'store'", "None, 'store'"
    )
    install(only_store, "acme = acme_jobs:make", more=STORE_ENTRIES)

    backend: Any = Orchestrator("acme://host?results=acme://a&store=acme://b").backend

    assert backend.said == "acme://host?results=acme://a"
    assert stores_of(backend) == {"store": ("Records", "acme://b")}


def test_a_backend_made_of_a_url_is_closed_with_its_orchestrator(schema: Any) -> None:
    """It has no other owner (CON-2)."""
    with Orchestrator("memory://") as orchestrator:
        orchestrator.register(schema)
    orchestrator.close()

    with pytest.raises(Closed, match="LocalClient is closed"):
        orchestrator.publish("points", {})


def test_a_backend_that_was_handed_over_is_its_owners_to_close(client: LocalClient, schema: Any) -> None:
    """Other orchestrators may use it still."""
    with Orchestrator(client) as orchestrator:
        orchestrator.register(schema)

    assert orchestrator.publish("points", {})


def test_consumers_through_a_url_share_a_namespace(
    schema: Any, make_consumer: Callable[..., Consumer]
) -> None:
    """Two orchestrators of one URL are two doors to the same queues."""
    with Orchestrator("memory://shop") as shop, Orchestrator("memory://shop") as worker:
        shop.register(schema)
        shop.publish("points", {})

        assert make_consumer(to=worker).consume_until_empty() == 1
