"""The tables, and how a file of an earlier release becomes one of this.

A live job has one row in ``job``, which nothing changes on the straight way from publish to ack, and one row
in the table of the state that it is in: ``ready``, ``delay``, ``lease`` or ``dead``. Each of the first three
is one B-tree in the order in which it is read, so that the next job, what is due and what was leased too long
are found at its beginning, however many wait. Moments are microseconds by the file's clock.

A release refuses a file of a later version than its own. So the version changes only with what an older
release would do wrong; tables that it can leave alone are added beside, and both releases use the file.
"""

import sqlite3
from collections.abc import Mapping

from ...domain.errors import BrokerUnsuitable

APPLICATION_ID = 0x4D544A51  # "MTJQ"
OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""

_FIRST = (
    # One row. `boot` and `base`: see clock.py. `ticket`: the last number given out to a job or to a place.
    "CREATE TABLE file (boot TEXT NOT NULL, base INTEGER NOT NULL, ticket INTEGER NOT NULL)",
    # Keys are never used again, so that nothing of a deleted queue can belong to its successor. A queue that
    # is being deleted has no namespace any more. `ended` counts the jobs that ended without a result.
    """CREATE TABLE queue (
        key INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT, name TEXT NOT NULL, kind TEXT NOT NULL,
        ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
        leased INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
        ended INTEGER NOT NULL DEFAULT 0, moment INTEGER NOT NULL DEFAULT 0,
        UNIQUE (namespace, name))""",
    """CREATE TABLE job (
        seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 1, number INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0, history TEXT, body BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX job_id ON job (queue, id)",
    # `rank` is the place in the queue's order, smallest first; a job that comes back keeps it (ORD-4).
    """CREATE TABLE ready (
        queue INTEGER NOT NULL, rank INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (queue, rank)) WITHOUT ROWID""",
    """CREATE TABLE delay (
        queue INTEGER NOT NULL, due INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (queue, due, seq)) WITHOUT ROWID""",
    # A receipt stands for a job and the number of its delivery: no two deliveries share both (LSE-4).
    """CREATE TABLE lease (
        queue INTEGER NOT NULL, ends INTEGER NOT NULL, seq INTEGER NOT NULL, number INTEGER NOT NULL,
        rank INTEGER NOT NULL, PRIMARY KEY (queue, ends, seq)) WITHOUT ROWID""",
    """CREATE TABLE dead (
        death INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, seq INTEGER NOT NULL,
        reason TEXT NOT NULL, error TEXT NOT NULL, died INTEGER NOT NULL)""",
    "CREATE INDEX dead_queue ON dead (queue)",
    "CREATE UNIQUE INDEX dead_job ON dead (seq)",
    """CREATE TABLE result (
        seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, expires INTEGER NOT NULL,
        body BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX result_id ON result (queue, id)",
    "CREATE INDEX result_expires ON result (queue, expires)",
    # A ring: the last jobs of a queue that ended without a result.
    """CREATE TABLE ended (
        queue INTEGER NOT NULL, slot INTEGER NOT NULL, id TEXT NOT NULL,
        PRIMARY KEY (queue, slot)) WITHOUT ROWID""",
)

_SECOND = (
    # How far the running job has come, as far as its handler reported it; ends with the lease.
    "ALTER TABLE lease ADD COLUMN progress TEXT",
)

_THIRD = (
    # Until when a dead letter is kept; NULL is for ever.
    "ALTER TABLE dead ADD COLUMN expires INTEGER",
    "CREATE INDEX dead_expires ON dead (queue, expires) WHERE expires IS NOT NULL",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD)
"""What makes each version of the one before it; a new file goes through all."""

ADDED_TABLES: Mapping[str, tuple[str, ...]] = {
    # A record's number is its version; numbers are never used again. `ends` is NULL for one that stays.
    "record": (
        """CREATE TABLE record (
            version INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, key TEXT NOT NULL,
            value BLOB NOT NULL, ends INTEGER)""",
        "CREATE UNIQUE INDEX record_key ON record (namespace, key)",
        "CREATE INDEX record_ends ON record (ends) WHERE ends IS NOT NULL",
    ),
    # Those who have a place of a limit, and those who wait for one, the lowest number first. `watch` is told
    # when one who waits is next.
    "place": (
        """CREATE TABLE place (
            number INTEGER PRIMARY KEY, namespace TEXT NOT NULL, key TEXT NOT NULL, holder TEXT NOT NULL,
            is_taken INTEGER NOT NULL, ends INTEGER NOT NULL, watch TEXT NOT NULL)""",
        "CREATE UNIQUE INDEX place_holder ON place (namespace, key, holder)",
        "CREATE INDEX place_line ON place (namespace, key, is_taken)",
        "CREATE INDEX place_ends ON place (ends)",
    ),
    # Of each rate, until when its turns are reserved.
    "turn": (
        "CREATE TABLE turn (namespace TEXT NOT NULL, key TEXT NOT NULL, ends INTEGER NOT NULL)",
        "CREATE UNIQUE INDEX turn_key ON turn (namespace, key)",
        "CREATE INDEX turn_ends ON turn (ends)",
    ),
    # The leased jobs that were asked to be cancelled, and for how long to remember that they were (µs).
    "cancel": (
        "CREATE TABLE cancel (seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, ttl INTEGER NOT NULL)",
        "CREATE INDEX cancel_queue ON cancel (queue)",
    ),
}
"""The tables of coordination and of cancelling, by name; releases before them go on without."""


def version_of(db: sqlite3.Connection, path: str) -> int:
    """The version of the file's tables; 0 where it has yet to be given any.

    Raises:
        BrokerUnsuitable: it is another application's, or a newer release's.
    """
    ((application,),) = db.execute("PRAGMA application_id").fetchall()
    ((version,),) = db.execute("PRAGMA user_version").fetchall()
    if application != APPLICATION_ID:
        ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if tables or application or version:
            raise BrokerUnsuitable(f"{path} is another application's database: name a file of its own")
        return 0
    if version > len(MIGRATIONS):
        raise BrokerUnsuitable(
            f"{path} was made by a newer release: its tables are of version {version}, and this release "
            f"knows {len(MIGRATIONS)}; upgrade mindtrace-jobs"
        )
    return int(version)


def is_current(db: sqlite3.Connection, path: str) -> bool:
    """Tell whether the file has this release's tables; errors as of :func:`version_of`."""
    return version_of(db, path) == len(MIGRATIONS) and not missing_tables(db)


def missing_tables(db: sqlite3.Connection) -> list[str]:
    """Name the tables that this release adds beside those of the file's version, and that it hasn't yet."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return [name for name in ADDED_TABLES if not db.execute(query, (name,)).fetchone()]


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Give the file the tables of this release, in the transaction that is under way."""
    version = version_of(db, path)
    for statements in (*MIGRATIONS[version:], *(ADDED_TABLES[name] for name in missing_tables(db))):
        for statement in statements:
            db.execute(statement)
    if version < len(MIGRATIONS):
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
