"""What a server's own account of itself says about the jobs in it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from time import time

from ...domain.errors import BackendUnavailable, JobsError
from ...domain.wording import quantity
from ...ports import Durability, Finding
from ...ports.findings import doubtful, good, wrong
from ..shared.server_settings import is_loopback
from .connection import Connection, Statement
from .errors import ConnectFailed, ConnectionBroke, RefusedByServer
from .schema import OLDEST_SERVER, files, find_version, has_schema, quoted
from .session import Session
from .settings import DURABILITIES

_TIMEOUT_S = 10.0
_NEARLY = 0.9
_LONG_S = 60
_SHORT_MS = 5000
_OFF_S = 5.0
_BEGIN_LATER = (
    "SELECT count(*) FROM {s}.request WHERE began > clock_timestamp() + interval '1 s' AND places <> '{}'"
)
_KEPT = {
    "off": Durability.EVERY_SECOND,
    "local": Durability.FSYNC,
    "on": Durability.FSYNC,
    "remote_write": Durability.FSYNC,
    "remote_apply": Durability.FSYNC,
}
_TABLES = (
    *("queue", "job", "request", "result", "ended", "asked"),
    *("shared_record", "place_key", "place", "rate", "coordination_sweep"),
)
"""What a user must be able to change."""
_SEQUENCES = ("block", "death", "ending", "coordination")
_PID = "pg_backend_pid()"
_ASKS = 5

_RESTORED = """
    SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM {s}.queue q WHERE EXISTS (
      SELECT FROM generate_series(0::bigint, 9::bigint << 56, 1::bigint << 56) AS l (lowest), LATERAL (
        SELECT FROM {s}.job WHERE queue = q.key AND place < l.lowest + (1::bigint << 56)
          AND place >= l.lowest + pg_snapshot_xmax(pg_current_snapshot())::pg_catalog.text::bigint LIMIT 1
      ) restored
    )
"""
"""The queues with jobs whose places are ids of transactions that haven't begun yet."""
_MEND = "SELECT {s}.mend_places(name) FROM {s}.queue; see docs/postgresql.md, Dump and restore"

Check = Callable[["_Look"], Iterator[Finding]]


class _Look:
    """Asks one connection, in texts."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self.session = session

    def text(self, expression: str, *parameters: str) -> str:
        """Return the value of an expression as text."""
        statement = Statement(f"SELECT ({expression})::pg_catalog.text", len(parameters))
        sent = [parameter.encode() for parameter in parameters]
        return (self.connection.execute(statement, sent, _TIMEOUT_S).value(0, 0) or b"").decode()

    def setting(self, name: str) -> str:
        """Return a setting of the server; empty where it has none of that name."""
        return self.text("current_setting($1, true)", name)

    def number(self, expression: str, *parameters: str) -> int:
        """Return the value of an expression as a whole number."""
        return int(float(self.text(expression, *parameters) or 0))


def diagnose(session: Session, declared: Durability) -> list[Finding]:
    """Look at a server that can be reached, as far as the user may.

    Args:
        session: The way to it.
        declared: What the client says that the server survives.
    """

    def work(connection: Connection) -> list[Finding]:
        look = _Look(connection, session)
        findings = [*_version(look), *_encryption(look), *_durability(look, declared)]
        for check in (
            _hosts,
            _settings,
            _clock,
            _pooler,
            _clients,
            _snapshots,
            _schema,
            _privileges,
            _rows,
            _tables,
        ):
            try:
                findings += check(look)
            except RefusedByServer as error:
                findings.append(doubtful("access", f"a look was refused: {error}", "let the user see it"))
        return findings

    try:
        return session.work(work)
    except BackendUnavailable as error:
        return [wrong("reachable", str(error), "look at the server's log")]
    except JobsError as error:
        return [wrong("access", str(error), "grant what docs/postgresql.md says, Privileges")]


def _version(look: _Look) -> Iterator[Finding]:
    version = look.setting("server_version")
    if look.connection.server_version < OLDEST_SERVER:
        yield wrong("version", f"PostgreSQL {version} is too old", "upgrade it to 14 or newer")
    else:
        yield good("version", f"PostgreSQL {version}")
    if look.text("pg_is_in_recovery()") == "true":
        remedy = "name all servers in the URL, with target_session_attrs=read-write"
        yield wrong("role", "this is a standby: it takes no jobs", remedy)
    elif look.setting("default_transaction_read_only") == "on":
        remedy = "ALTER ROLE … SET default_transaction_read_only = off"
        yield wrong("role", "this user's transactions are read-only: it takes no jobs", remedy)


def _hosts(look: _Look) -> Iterator[Finding]:
    """Look at each of several hosts: one of them takes jobs, and the others could take over."""
    settings = look.session.settings
    if len(settings.hosts) < 2 or "hostaddr" in settings.libpq:
        return
    if settings.libpq.get("target_session_attrs", "any") not in ("read-write", "primary"):
        remedy = "add target_session_attrs=read-write to the URL"
        yield doubtful("hosts", "the first host that answers is used, though it may be a standby", remedy)
    taking = []
    for host in settings.hosts:
        try:
            if _takes_jobs(look.session, host):
                taking.append(settings.of(host).address)
        except (ConnectFailed, ConnectionBroke, RefusedByServer) as error:
            what = f"{settings.of(host).address} can't be looked at: {error}"
            yield doubtful("hosts", what, "have it run, or leave it out of the URL")
    if len(taking) > 1:
        what = f"{' and '.join(taking)} take jobs: what is confirmed at one is lost once the other stays"
        yield wrong("hosts", what, "stop the one that was replaced, and make it a standby of the other")
    elif taking:
        yield good("hosts", f"{taking[0]} takes jobs, and no other of {len(settings.hosts)} hosts")


def _takes_jobs(session: Session, host: tuple[str, int]) -> bool:
    """Ask one of several hosts whether it is a primary that takes writes."""
    connection = session.connect(host)
    try:
        look = _Look(connection, session)
        is_standby = look.text("pg_is_in_recovery()") == "true"
        return not is_standby and look.setting("default_transaction_read_only") != "on"
    finally:
        connection.close()


def _encryption(look: _Look) -> Iterator[Finding]:
    plain = [h for h, _ in look.session.settings.hosts if not h.startswith("/") and not is_loopback(h)]
    is_encrypted = look.text("SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()") == "true"
    if plain and not is_encrypted:
        yield doubtful("encryption", f"jobs travel to {plain[0]} in plain text", "use sslmode=verify-full")


def _durability(look: _Look, declared: Durability) -> Iterator[Finding]:
    syncs = look.setting("fsync") != "off"
    if not syncs:
        yield wrong("fsync", "fsync is off: a crash of the machine can lose all data", "set fsync = on")
    commit = look.setting("synchronous_commit")
    found = _KEPT.get(commit, Durability.FSYNC)
    if look.setting("synchronous_standby_names") and commit in ("on", "remote_apply"):
        found = Durability.REPLICATED
    what = f"synchronous_commit is {commit}, which is durability {found.value!r}"
    if DURABILITIES.index(found) < DURABILITIES.index(declared):
        remedy = (
            "set synchronous_commit = on for this user, and standbys if need be; or declare what there is"
        )
        yield wrong("durability", f"{what}; the client declares {declared.value!r}", remedy)
    elif syncs:
        yield good("durability", what)


def _settings(look: _Look) -> Iterator[Finding]:
    if look.setting("autovacuum") == "off":
        remedy = "set autovacuum = on"
        yield wrong("autovacuum", "autovacuum is off: the tables grow, and get slower", remedy)
    else:
        yield good("autovacuum", "autovacuum is on")
    isolation = look.setting("default_transaction_isolation")
    if isolation != "read committed":
        remedy = "ALTER ROLE … SET default_transaction_isolation = 'read committed'"
        yield wrong("isolation", f"the default is {isolation}: consumers fail beside each other", remedy)
    for name in ("statement_timeout", "lock_timeout", "transaction_timeout"):  # the last is of PostgreSQL 17
        timeout_ms = look.number("SELECT setting FROM pg_catalog.pg_settings WHERE name = $1", name)
        if 0 < timeout_ms < _SHORT_MS:
            remedy = f"ALTER ROLE … SET {name} = '30s', or 0"
            yield doubtful("timeout", f"{name} cancels statements after {timeout_ms} ms", remedy)
    encoding = look.setting("server_encoding")
    if encoding not in ("UTF8", "SQL_ASCII"):
        what = f"the database's encoding is {encoding}: keys of limits with other characters are refused"
        yield doubtful("encoding", what, "use a database with the encoding UTF8")


def _clock(look: _Look) -> Iterator[Finding]:
    """Compare the server's clock, by which all times are kept, with this machine's."""
    before = time()
    theirs = float(look.text("extract(epoch FROM clock_timestamp())"))
    off_s = max(theirs - time(), before - theirs)
    what = f"the server's clock and this machine's differ by {max(0.0, off_s):,.1f} s"
    if off_s < _OFF_S:
        yield good("clock", what)
    else:
        yield doubtful("clock", what, "set the wrong one right; see docs/postgresql.md, The server's clock")


def _pooler(look: _Look) -> Iterator[Finding]:
    """Find out whether a pooler gives the same connection to several clients in turn."""
    mine, theirs = {look.number(_PID)}, set()
    if look.connection.reported_pid in mine:
        return
    with suppress(ConnectFailed, ConnectionBroke):  # a pool of one connection that is ours
        other = _Look(look.session.connect(), look.session)
        try:
            for _ in range(_ASKS):
                theirs.add(other.number(_PID))
                mine.add(look.number(_PID))
        finally:
            other.connection.close()
    if mine & theirs or len(mine) > 1:
        what = (
            "a pooler in transaction mode is in between: idle consumers aren't woken, and look every poll_s"
        )
        yield doubtful(
            "pooler",
            what,
            "set poll_s to a delay that you accept; or connect to the server itself, or in session mode",
        )
    else:
        yield good("pooler", "a pooler in session mode is in between")


def _clients(look: _Look) -> Iterator[Finding]:
    reserved = "current_setting('superuser_reserved_connections')::int"
    more_reserved = "coalesce(current_setting('reserved_connections', true)::int, 0)"  # PostgreSQL 16
    open_here = "FROM pg_catalog.pg_stat_database WHERE datname = current_database()"
    places = {
        "connections": (
            f"current_setting('max_connections')::int - {reserved} - {more_reserved}",
            "SELECT sum(numbackends) FROM pg_catalog.pg_stat_database",
            "raise max_connections, or run fewer workers",
        ),
        "connections of this database": (
            "SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()",
            f"SELECT numbackends {open_here}",
            "ALTER DATABASE … CONNECTION LIMIT …, or run fewer workers",
        ),
        "connections of this user": (
            "SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user",
            "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = current_user",
            "ALTER ROLE … CONNECTION LIMIT …, or run fewer workers",
        ),
    }
    for name, (limit_of, taken_of, remedy) in places.items():
        limit, taken = look.number(limit_of), look.number(taken_of)
        if limit >= 0 and taken >= _NEARLY * limit:
            yield wrong("connections", f"{taken} of {limit} {name} are taken", remedy)
        elif name == "connections":
            yield good("connections", f"{taken} of {limit} {name} are taken")


def _snapshots(look: _Look) -> Iterator[Finding]:
    age_s = look.text(
        "SELECT max(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_catalog.pg_stat_activity"
        " WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    if age_s and float(age_s) > _LONG_S:
        yield doubtful(
            "snapshots",
            f"a transaction is open for {float(age_s):,.0f} s: until it ends, no space is freed",
            "end it (pg_stat_activity, backend_xmin); set idle_in_transaction_session_timeout",
        )
    prepared_s = look.text(
        "SELECT max(extract(epoch FROM clock_timestamp() - prepared)) FROM pg_catalog.pg_prepared_xacts"
        " WHERE database = current_database()"
    )
    if prepared_s and float(prepared_s) > _LONG_S:
        yield doubtful(
            "snapshots",
            f"a prepared transaction waits for {float(prepared_s):,.0f} s: until it ends, no space is freed",
            "COMMIT PREPARED or ROLLBACK PREPARED it (pg_prepared_xacts)",
        )
    slots = look.number(
        "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE NOT active AND xmin IS NOT NULL"
    )
    if slots:
        what = f"{quantity(slots, 'replication slot')} that nobody uses keeps dead rows"
        yield doubtful("slots", what, "drop it with pg_drop_replication_slot")


def _schema(look: _Look) -> Iterator[Finding]:
    schema, newest = look.session.schema, files().version
    there = has_schema(look.connection, schema)
    version = find_version(look.connection, schema).number if there else 0
    what = f"schema {schema!r} has version {version}"
    if version >= newest:  # one that can't be used was refused before
        yield good("schema", what)
        return
    may = (
        "pg_has_role((SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = $1), 'USAGE')"
        if there
        else "has_database_privilege(current_database(), 'CREATE') AND $1 <> ''"
    )
    if not version:
        what = f"there are no tables in schema {schema!r} yet"
    if look.text(may, schema) == "true":
        yield good("schema", f"{what}; the first worker or publisher brings it to version {newest}")
    else:
        remedy = "run mindtrace-jobs migrate as its owner, see docs/postgresql.md, Privileges"
        yield wrong("schema", f"{what}, this release needs {newest}, and this user may not change it", remedy)


def _privileges(look: _Look) -> Iterator[Finding]:
    schema = look.session.schema
    if not has_schema(look.connection, schema):
        return
    if not find_version(look.connection, schema).number:
        return
    if look.text("has_schema_privilege($1, 'USAGE')", schema) != "true":
        yield wrong(
            "permissions", f"the user may not use schema {schema!r}", f"GRANT USAGE ON SCHEMA {schema}"
        )
        return
    missing = [
        f"{privilege} on {table}"
        for table in _TABLES
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if look.text("has_table_privilege($1, $2)", f"{quoted(schema)}.{table}", privilege) != "true"
    ]
    missing += [
        f"USAGE on {sequence}"
        for sequence in _SEQUENCES
        if look.text("has_sequence_privilege($1, 'USAGE')", f"{quoted(schema)}.{sequence}") != "true"
    ]
    if functions := look.text(
        "SELECT string_agg(proname, ', ' ORDER BY proname) FROM pg_catalog.pg_proc"
        " WHERE pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)"
        " AND NOT has_function_privilege(oid, 'EXECUTE')",
        schema,
    ):
        missing.append(f"EXECUTE on {functions}")
    if missing:
        remedy = "grant what docs/postgresql.md says, Privileges"
        yield wrong("permissions", f"the user lacks {', '.join(missing)}", remedy)
    else:
        yield good("permissions", "the user may do all that is needed")


def _rows(look: _Look) -> Iterator[Finding]:
    """Look for rows that another server, or another clock, has left."""
    schema = look.session.schema
    if not has_schema(look.connection, schema):
        return
    if find_version(look.connection, schema).number < files().version:  # what is looked for came with it
        return
    if restored := look.text(_RESTORED.replace("{s}", quoted(schema))):
        what = f"new jobs stand before those that were restored into this server: {restored}"
        yield wrong("places", what, _MEND.replace("{s}", quoted(schema)))
    if later := look.number(_BEGIN_LATER.replace("{s}", quoted(schema))):
        what = f"the server's clock was set back: {quantity(later, 'lease')} can't have begun yet"
        yield wrong("clock", what, "restart a worker; see docs/postgresql.md, The server's clock")


def _tables(look: _Look) -> Iterator[Finding]:
    schema = look.session.schema
    relation = f"{quoted(schema)}.job"
    if not has_schema(look.connection, schema) or not look.text("to_regclass($1)", relation):
        return
    options = look.text("SELECT reloptions FROM pg_catalog.pg_class WHERE oid = to_regclass($1)", relation)
    if "autovacuum_enabled=false" in options:
        remedy = f"ALTER TABLE {relation} RESET (autovacuum_enabled)"
        yield wrong("autovacuum", "autovacuum is off for the table of jobs", remedy)
    size = look.number("pg_total_relation_size(to_regclass($1))", relation)
    dead = look.number(
        "SELECT n_dead_tup FROM pg_catalog.pg_stat_all_tables WHERE relid = to_regclass($1)", relation
    )
    live = look.number(
        "SELECT n_live_tup FROM pg_catalog.pg_stat_all_tables WHERE relid = to_regclass($1)", relation
    )
    what = f"{size / 1e6:,.0f} MB, {live:,} live rows, {dead:,} dead ones"
    if dead > 1_000_000 and dead > 10 * live:
        yield doubtful("bloat", what, "look for open transactions; VACUUM the table of jobs")
    else:
        yield good("bloat", what)
