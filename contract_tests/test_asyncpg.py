"""The contract of a publish in a caller's transaction (PUB-7), whose connection is asyncpg's."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, ClassVar

import asyncpg
import pytest

from brokers.postgresql_server import Address
from mindtrace.jobs import OrchestratorBackend, PostgreSQLClient
from mindtrace.jobs.contract import run_contract
from mindtrace.jobs.ports import Message, PublishOutcome

from .test_postgresql import PostgreSQLHarness


class LoopThread:
    """An event loop in a thread of its own, for calls that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingConnection:
    """A connection of asyncpg in a transaction, with the methods of Python's drivers."""

    def __init__(self, loop: LoopThread, url: str) -> None:
        self.loop = loop
        self.asyncpgs = loop.call(asyncpg.connect(url))
        self._begin()

    def _begin(self) -> None:
        self._transaction = self.asyncpgs.transaction()
        self.loop.call(self._transaction.start())

    def commit(self) -> None:
        self.loop.call(self._transaction.commit())
        self._begin()

    def rollback(self) -> None:
        self.loop.call(self._transaction.rollback())
        self._begin()

    def close(self) -> None:
        self.loop.call(self.asyncpgs.close())


def publish_on_its_loop(
    client: PostgreSQLClient, connection: object, queue: str, messages: Sequence[Message]
) -> list[PublishOutcome]:
    """As ``publish_in``, on the loop of a connection of asyncpg."""
    is_ours = isinstance(connection, BlockingConnection)
    publish = client.publish_in_async(connection.asyncpgs if is_ours else connection, queue, messages)
    outcomes: list[PublishOutcome] = AsyncpgHarness.loop.call(publish)
    return outcomes


class AsyncpgHarness(PostgreSQLHarness):
    loop: ClassVar[LoopThread]

    def open_connection(self, backend: OrchestratorBackend) -> Any:
        return BlockingConnection(self.loop, self.address.url())


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


def test_a_transaction_of_asyncpg_is_joined_as_one_of_psycopg(
    postgresql_address: Address, loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    PostgreSQLHarness.address = postgresql_address
    AsyncpgHarness.loop = loop
    monkeypatch.setattr(PostgreSQLClient, "publish_in", publish_on_its_loop)
    harness = AsyncpgHarness()
    try:
        results = list(run_contract(harness, profile="quick", clauses={"PUB-7"}))
    finally:
        harness.close()
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    assert len(results) >= 9
