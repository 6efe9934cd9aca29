"""A standby of a private PostgreSQL cluster, which a test may stall, promote or break."""

from pathlib import Path
from typing import Self

from .postgresql_server import PrivatePostgreSQL


class StandbyPostgreSQL(PrivatePostgreSQL):
    """A copy of another private cluster, made at its first start, that follows it.

    Args:
        folder: Where its log is kept; must exist.
        primary: The cluster to follow, which must run.
        settings: Settings, as of :class:`PrivatePostgreSQL`.

    Raises:
        NoServer: none is installed.
    """

    NAME = "standby"
    """What the primary knows it as, for ``synchronous_standby_names``."""

    def __init__(self, folder: Path, primary: PrivatePostgreSQL, **settings: str | int) -> None:
        super().__init__(folder, **settings)
        self._primary = primary

    def start(self) -> Self:
        """Start it, the first time as a copy of the primary, and wait until it serves readers."""
        if not self.data.exists():
            at = self._primary.address
            source = f"host={at.host} port={at.port} user={at.user} application_name={self.NAME}"
            how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
            self.run("pg_basebackup", f"--pgdata={self.data}", f"--dbname={source}", *how)
        super().start()
        return self

    def promote(self) -> None:
        """Make it a primary, and wait until it is."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self.data))
