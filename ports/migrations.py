"""The optional port of backends and stores whose tables change with a release."""

from collections.abc import Sequence
from typing import NamedTuple


class Migration(NamedTuple):
    """One change of the tables, in one transaction."""

    target: str
    """What it changes, for messages. Contains no credentials (SEC-3)."""
    version: int
    """The version that the tables have afterwards."""
    sql: str
    """The same as a script, for those who change tables by hand."""


class Migrates:
    """What may have tables that a release must bring up to date."""

    def pending_migrations(self) -> Sequence[Migration] | None:
        """Return the migrations that the tables lack, oldest first; change nothing.

        Returns:
            None if nothing here is ever migrated in this way.
        """
        return None

    def migrate(self) -> Sequence[Migration]:
        """Bring the tables to this release's version, and return the migrations that this took.

        Several processes may do this at once: each migration is applied once.

        Raises:
            MigrationNeeded: this user may not change the tables.
            BrokerUnsuitable: a newer release made them so that this one can't use them.
        """
        return ()
