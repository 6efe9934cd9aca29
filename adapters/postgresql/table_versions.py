"""Whether this release can work on the tables that are there; brings older ones up to date."""

import logging
from typing import NamedTuple

from ...domain.errors import AccessDenied, BrokerUnsuitable, MigrationNeeded
from ...ports import Migration
from ..shared.error_messages import not_declared
from .connection import Connection
from .schema import OLDEST_SERVER, Version, files, find_version, has_schema, migrate, missing, script
from .session import Session


class _Found(NamedTuple):
    server: int
    """The server's version, as PostgreSQL numbers it."""
    has_schema: bool
    version: Version


class Tables:
    """The tables of a client or a store; any thread may call.

    Every call raises BrokerUnsuitable where the server is too old, or a newer release has made the tables so
    that this one can't work on them.

    Args:
        session: The way to the server.
        logger: Logs that tables were made or changed.
    """

    def __init__(self, session: Session, logger: logging.Logger) -> None:
        self._session = session
        self._logger = logger
        self._is_current = False
        self._is_usable = False

    def check(self) -> None:
        """Refuse tables of a newer release, once; never change them."""
        if not self._is_usable:
            self._is_usable = self._find().version.number > 0

    def require(self, queue: str) -> None:
        """Bring older tables up to date, once.

        Raises:
            QueueNotFound: there are none, so that no queue was ever declared.
            MigrationNeeded: this user may not.
        """
        if self._is_current:
            return
        version = self._find().version
        if not version.number:
            raise not_declared(queue)
        self._update(version)

    def make(self) -> None:
        """Make the tables where there are none, and bring older ones up to date.

        Raises:
            MigrationNeeded: this user may not.
        """
        self._update(self._find().version)

    def make_once(self) -> None:
        """As :meth:`make`, where no call after the first asks the server."""
        if not self._is_current:
            self.make()

    def are_there(self) -> bool:
        """Tell whether there are any; never change them."""
        self.check()
        return self._is_usable

    def pending(self) -> list[Migration]:
        """Return the migrations that are missing; change nothing."""
        found = self._find()
        return self._migrations(found, missing(found.version.number))

    def migrate(self) -> list[Migration]:
        """Apply the migrations that are missing, and return those that this call applied.

        Raises:
            MigrationNeeded: this user may not.
        """
        found = self._find()
        return self._migrations(found, self._update(found.version))

    @property
    def name(self) -> str:
        """What the tables are called in messages."""
        return f"schema {self._session.schema!r} of {self._session.settings.address}"

    def _find(self) -> _Found:
        schema = self._session.schema

        def look(connection: Connection) -> _Found:
            there = has_schema(connection, schema)
            version = find_version(connection, schema) if there else Version(0, 0)
            return _Found(connection.server_version, there, version)

        found = self._session.work(look)
        if found.server < OLDEST_SERVER:
            raise BrokerUnsuitable(
                f"PostgreSQL {found.server // 10000}: this server is too old, 14 is needed"
            )
        if found.version.oldest_release > files().version:
            raise BrokerUnsuitable(
                f"{self.name} was made by a newer release: its version is {found.version.number}, and this "
                f"release knows {files().version}; upgrade mindtrace-jobs"
            )
        return found

    def _update(self, found: Version) -> list[int]:
        made: list[int] = []
        if found.number < files().version:
            try:
                made = self._session.work(lambda connection: migrate(connection, self._session.schema))
            except AccessDenied as error:
                raise self._refused(found, error) from error
            for version in made:
                self._logger.info("%s now has version %d", self.name, version)
        self._is_current = self._is_usable = True
        return made

    def _refused(self, found: Version, error: AccessDenied) -> MigrationNeeded:
        what = f"has version {found.number}" if found.number else "has no tables yet"
        return MigrationNeeded(
            f"{self.name} {what}, this release needs version {files().version}, and this user may not "
            "migrate it: run `mindtrace-jobs migrate` as its owner (docs/postgresql.md, Privileges)"
        )

    def _migrations(self, found: _Found, versions: list[int]) -> list[Migration]:
        """Return what makes these versions, each of the one before it, or the first one of nothing."""
        schema, before = self._session.schema, found.version.number
        made = []
        for version in versions:
            sql = script(schema, before, creates_schema=not before and not found.has_schema)
            made.append(Migration(self.name, version, sql))
            before = version
        return made
