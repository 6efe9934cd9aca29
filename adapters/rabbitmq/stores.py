"""The stores that a client has beside RabbitMQ: for results, and for coordination."""

from collections.abc import Sequence
from itertools import chain
from logging import Logger
from typing import Any

from ...domain.errors import AccessDenied, InvalidInput, JobsError
from ...ports import CoordinationStore, Finding, Migration, ResultStore
from ...ports.findings import good, wrong
from .coordination import BorrowedCoordinationStore
from .results import Results
from .topology import namespace_prefix


class Stores:
    """What RabbitMQ itself can't keep, each in the store that was given for it, if any.

    Args:
        results: For results. It is closed with this.
        coordination: For schedules, unique jobs and pauses.
        namespace: The client's, whose records no other namespace sees (CON-2).
        logger: Where an outage of the result store is told.

    Raises:
        InvalidInput: one is something else.
    """

    def __init__(
        self,
        results: ResultStore | None,
        coordination: CoordinationStore | None,
        namespace: str,
        logger: Logger,
    ) -> None:
        _check("results", results, ResultStore, "RedisResultStore")
        _check("store", coordination, CoordinationStore, "RedisCoordinationStore")
        self._given = {"results": results, "store": coordination}
        self.results = None if results is None else Results(results, logger)
        self.coordination = (
            None
            if coordination is None
            else BorrowedCoordinationStore(coordination, namespace_prefix(namespace))
        )
        self.owns_coordination = False
        """Whether the coordination store is closed with this."""

    def urls(self, *, with_passwords: bool) -> dict[str, str]:
        """Return the URL of each store, by the word that names it in the URL of a client.

        ``store`` alone names the place of results as well.
        """
        urls = {
            word: store.make_url(with_passwords=with_passwords)
            for word, store in self._given.items()
            if store is not None
        }
        if "store" in urls and urls.get("results") == urls["store"]:
            del urls["results"]
        return urls

    def pending_migrations(self) -> Sequence[Migration] | None:
        """Return what the tables of all stores lack. Stores in one place share their tables."""
        pending = [store.pending_migrations() for store in self._given.values() if store is not None]
        known = [migrations for migrations in pending if migrations is not None]
        return list(dict.fromkeys(chain(*known))) if known else None

    def migrate(self) -> Sequence[Migration]:
        """Bring the tables of all stores to this release's version."""
        made = [store.migrate() for store in self._given.values() if store is not None]
        return tuple(chain(*made))

    def diagnose(self) -> list[Finding]:
        """Check that the coordination store answers."""
        if self.coordination is None:
            return []
        try:
            self.coordination.now()
        except AccessDenied as error:
            return [wrong("store", str(error), "correct the user and password in store=, or what it may do")]
        except JobsError as error:
            return [wrong("store", str(error), "start the coordination store, or correct the URL in store=")]
        return [good("store", "the coordination store answers")]

    def close(self) -> None:
        """Close the stores that belong to the client."""
        if self.results is not None:
            self.results.close()
        if self.coordination is not None:
            self.coordination.close()
        if self.owns_coordination and (store := self._given["store"]) is not None:
            store.close()


def _check(word: str, store: object, port: type[Any], example: str) -> None:
    if store is not None and not isinstance(store, port):
        raise InvalidInput(
            f"{word}: pass a {port.__name__}, such as {example}(…), not {type(store).__name__}"
        )
