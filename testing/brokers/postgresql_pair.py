"""A primary of PostgreSQL and its synchronous standby, which a test may stall, promote or break."""

from pathlib import Path
from typing import Any, Self

from conditions import eventually
from mindtrace.jobs import PostgreSQLClient

from .postgresql_server import FOLLOWER, PrivatePostgreSQL


class PostgreSQLPair:
    """A primary that confirms nothing that its standby doesn't have.

    Args:
        folder: Where their logs are kept; must exist.
        settings: Settings of both, as of :class:`PrivatePostgreSQL`.

    Raises:
        NoServer: PostgreSQL isn't installed.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        servers = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            servers.append(PrivatePostgreSQL(folder / name, **settings))
        self.primary, self.standby = self._servers = servers

    def start(self) -> Self:
        """Start them, and wait until the standby follows."""
        self.primary.start()
        self._follow()
        return self

    def close(self) -> None:
        """End both for good."""
        for server in self._servers:
            server.close()

    def url(self, namespace: str | None = None) -> str:
        """The URL of whichever takes jobs: of ours with a namespace, of libpq without."""
        hosts = ",".join(f"127.0.0.1:{server.address.port}" for server in self._servers)
        also = "" if namespace is None else f"&namespace={namespace}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write{also}"

    def client(self, **options: Any) -> PostgreSQLClient:
        """Connect a client of ours to whichever takes jobs."""
        return self.primary.client(
            more_hosts=[("127.0.0.1", self.standby.address.port)],
            libpq={"target_session_attrs": "read-write"},
            durability="replicated",
            **options,
        )

    def fail_over(self) -> None:
        """Have the standby take over; what was the primary is to be dead before :meth:`rejoin`."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Make the old primary, which is dead, the standby of the new one, and wait until it follows."""
        self._follow()

    def wait_until_synchronous(self) -> None:
        """Wait until nothing is confirmed that the standby doesn't have."""
        eventually(self._is_synchronous, "the standby follows")

    def _follow(self) -> None:
        self.standby.follow(self.primary)
        self.standby.start()
        with self.primary.connect() as admin:
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{FOLLOWER}'")
            admin.execute("SELECT pg_reload_conf()")
        self.wait_until_synchronous()

    def _is_synchronous(self) -> bool:
        with self.primary.connect() as admin:
            return admin.execute("SELECT sync_state FROM pg_stat_replication").fetchall() == [("sync",)]
