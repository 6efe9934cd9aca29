"""The statements that the adapter runs, for one schema."""

from .caller_statement import CallerStatement
from .connection import Statement
from .schema import quoted


def _call(schema: str, function: str, parameters: int) -> Statement:
    places = ", ".join(f"${number}" for number in range(1, parameters + 1))
    return Statement(f"SELECT * FROM {quoted(schema)}.{function}({places})", parameters)  # noqa: S608


class Statements:
    """What the adapter asks of the server; the functions stand in ``sql/functions/``.

    Those that read jobs are never prepared, and search for the rows of a list one by one (ADR 87). Tables and
    types are named with their schemas: a temporary table comes first where there is none.

    Args:
        schema: Where the tables are.
    """

    def __init__(self, schema: str) -> None:
        name = quoted(schema)
        self.publish = _call(schema, "publish", 8)
        self.settle_and_take = _call(schema, "settle_and_take", 25)
        self.settle_publish_and_take = _call(schema, "settle_publish_and_take", 31)
        self.extend = _call(schema, "extend", 11)
        self.cancel_jobs = _call(schema, "cancel_jobs", 3)
        self.purge = _call(schema, "purge", 2)
        self.redrive_or_discard = _call(schema, "redrive_or_discard", 5)
        self.delete_queue = _call(schema, "delete_queue", 1)
        self.drop_deleted = _call(schema, "drop_deleted", 1)
        self.mend_places = _call(schema, "mend_places", 2)
        self.was_carried_out = _call(schema, "was_carried_out", 1)
        self.announce_caller = _call(schema, "announce_caller", 1)
        self.publish_guarded = _call(schema, "publish_guarded", 12)
        self.get_records = _call(schema, "get_records", 1)
        self.scan_records = _call(schema, "scan_records", 2)
        self.put_record = _call(schema, "put_record", 4)
        self.delete_record = _call(schema, "delete_record", 2)
        self.take_places = _call(schema, "take_places", 10)
        self.count_places = _call(schema, "count_places", 3)
        unsynced = "set_config('synchronous_commit', 'off', true)"  # it needn't wait for the disk (ADR 91)
        leave = f"{quoted(schema)}.leave_places($1, $2, $3, $4)"
        self.leave_places = Statement(f"SELECT {unsynced}, {leave}", 4)
        self.reserve_turns = _call(schema, "reserve_turns", 5)
        self.now = Statement("SELECT extract(epoch FROM clock_timestamp())::pg_catalog.float8", 0)

        def sql(text: str, parameters: int) -> Statement:
            return Statement(text.replace("{s}", name), parameters)

        def look(text: str, parameters: int) -> Statement:
            return Statement(text.replace("{s}", name), parameters, is_planned_anew=True)

        # On connections of callers, by their drivers.
        self.has_publish_in_transaction = _HAS_PUBLISH_IN_TRANSACTION
        self.place_of_connection = _PLACE_OF_CONNECTION
        self.publish_in_transaction = CallerStatement(
            f"SELECT {name}.{_PUBLISH_NAMED}", f"SELECT {name}.{_PUBLISH_NUMBERED}"
        )

        self.forget_publishes = sql("DELETE FROM {s}.request WHERE token = ANY ($1)", 1)
        self.forget_requests = sql(
            "DELETE FROM {s}.request WHERE token = ANY ($1)"
            " AND EXISTS (SELECT FROM {s}.request WHERE token = $2)",
            2,
        )
        self.declare = sql(
            "WITH made AS (INSERT INTO {s}.queue (name, kind) VALUES ($1, $2)"
            " ON CONFLICT (name) DO NOTHING RETURNING kind)"
            " SELECT kind FROM made UNION ALL SELECT kind FROM {s}.queue WHERE name = $1",
            2,
        )
        self.find_queue = sql("SELECT key FROM {s}.queue WHERE name = $1", 1)
        self.list_queues = sql("SELECT name, kind FROM {s}.queue WHERE name IS NOT NULL ORDER BY name", 0)
        self.counts = look(_COUNTS, 1)
        self.first_ready = look(_FIRST_READY, 1)
        self.dead_letters = look(_DEAD_LETTERS, 3)
        self.last_death = look(
            "SELECT q.key, (SELECT max(death) FROM {s}.job WHERE queue = q.key AND death IS NOT NULL)"
            " FROM {s}.queue q WHERE q.name = $1",
            1,
        )
        self.results = look(_RESULTS, 2)
        self.status = look(_STATUS, 2)
        self.progress = look(_PROGRESS, 1)
        self.report = _call(schema, "report_progress", 5)


_FIND_FUNCTION = (
    "SELECT pg_catalog.array_agg(p.proname::pg_catalog.text) FROM pg_catalog.pg_proc p"
    " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    " WHERE p.proname = 'publish_in_transaction' AND n.nspname = ANY "
)

_HAS_PUBLISH_IN_TRANSACTION = CallerStatement(
    _FIND_FUNCTION + "(%(schemas)s::pg_catalog.text[])", _FIND_FUNCTION + "($1::pg_catalog.text[])"
)

_SAY_PLACE = (
    "SELECT ARRAY[pg_catalog.concat(pg_catalog.quote_literal(pg_catalog.current_database()), ' at ',"
    " coalesce(pg_catalog.host(pg_catalog.inet_server_addr()), 'a Unix socket'), ', port ',"
    " pg_catalog.current_setting('port'))]"
)

_PLACE_OF_CONNECTION = CallerStatement(_SAY_PLACE, _SAY_PLACE)

_PUBLISH_NAMED = (
    "publish_in_transaction((%(queues)s::pg_catalog.text[])[1], %(ids)s::pg_catalog.text[],"
    " %(bodies)b::pg_catalog.bytea[], %(priorities)s::int[], %(delays)s::pg_catalog.float8[])"
    "::pg_catalog.text[]"
)

_PUBLISH_NUMBERED = (
    "publish_in_transaction(($1::pg_catalog.text[])[1], $2::pg_catalog.text[],"
    " ARRAY(SELECT pg_catalog.decode(b, 'base64') FROM pg_catalog.unnest($3::pg_catalog.text[])"
    " WITH ORDINALITY AS u (b, n) ORDER BY n),"
    " $4::pg_catalog.text[]::int[], $5::pg_catalog.text[]::pg_catalog.float8[])::pg_catalog.text[]"
)

_HELD = """
    {s}.request r, unnest(r.places, r.seqs) AS h (place, seq), LATERAL (
      SELECT id, progress FROM {s}.job
      WHERE queue = q.key AND place = h.place AND seq >= h.seq AND seq <= h.seq AND token = r.token
      ORDER BY seq LIMIT 1
    ) j
    WHERE r.queue = q.key AND r.ends > clock_timestamp()
"""
"""The leases of a queue that haven't ended."""

_COUNTS = f"""
    SELECT
      (SELECT count(*) FROM {{s}}.job WHERE queue = q.key AND place IS NOT NULL),
      (SELECT count(*) FROM {_HELD}),
      (SELECT count(*) FROM {{s}}.job WHERE queue = q.key AND due IS NOT NULL AND due > clock_timestamp()),
      (SELECT count(*) FROM {{s}}.job WHERE queue = q.key AND due IS NOT NULL),
      (SELECT count(*) FROM {{s}}.job WHERE queue = q.key AND death IS NOT NULL)
      - (SELECT count(*) FROM {{s}}.job WHERE queue = q.key AND dead_until IS NOT NULL
         AND dead_until <= clock_timestamp())
    FROM {{s}}.queue q WHERE q.name = $1
"""  # noqa: S608

_READY = """
      SELECT body FROM {s}.job j WHERE queue = q.key AND place IS NOT NULL AND (token IS NULL OR NOT EXISTS (
        SELECT FROM {s}.request r WHERE r.token = j.token AND r.ends > clock_timestamp()
      ))
"""

_FIRST_READY = f"""
    SELECT coalesce(
      CASE WHEN q.kind = 'stack' THEN ({_READY} ORDER BY place DESC, seq DESC LIMIT 1)
      ELSE ({_READY} ORDER BY place, seq LIMIT 1) END,
      (SELECT body FROM {{s}}.job WHERE queue = q.key AND due IS NOT NULL AND due <= clock_timestamp()
       ORDER BY due LIMIT 1)
    ) FROM {{s}}.queue q WHERE q.name = $1
"""  # noqa: S608

_DEAD_LETTERS = """
    SELECT j.id, j.body, j.reason, j.error, j.attempt, j.crashes,
      extract(epoch FROM j.died)::pg_catalog.float8, j.failed, j.failures, q.key
    FROM {s}.queue q LEFT JOIN LATERAL {s}.dead_letters(q.key, $2, $3) j ON true WHERE q.name = $1
    ORDER BY j.death
"""

_RESULTS = """
    SELECT a.id, j.id IS NOT NULL, j.error, r.id IS NOT NULL, CASE WHEN r.expires > clock_timestamp() THEN
    r.body END,
      j.death IS NOT NULL AND (j.dead_until IS NULL OR j.dead_until > clock_timestamp())
    FROM {s}.queue q
    LEFT JOIN LATERAL unnest($2::pg_catalog.text[]) AS a (id) ON true
    LEFT JOIN LATERAL (SELECT * FROM {s}.job WHERE queue = q.key AND id = a.id OFFSET 0) j ON true
    LEFT JOIN LATERAL (SELECT * FROM {s}.result WHERE queue = q.key AND id = a.id OFFSET 0) r
      ON j.id IS NULL OR j.death IS NOT NULL
    WHERE q.name = $1 AND (
      a.id IS NULL OR j.death IS NOT NULL OR r.id IS NOT NULL OR j.id IS NULL AND CASE
        WHEN pg_catalog.cardinality($2::pg_catalog.text[]) < 4 THEN EXISTS (
          SELECT FROM {s}.ended e
          WHERE e.queue = q.key AND e.number >= {s}.first_ended(q.key) AND e.ids @> ARRAY[a.id]
        )
        ELSE a.id IN (
          SELECT pg_catalog.unnest(e.ids) FROM {s}.queue o JOIN {s}.ended e ON e.queue = o.key
          WHERE o.name = $1 AND e.number >= {s}.first_ended(o.key)
        )
      END
    )
"""
"""The columns, for each job that may have ended: id, is live, error, has a result, the result, is dead.

A dead letter whose time is over counts as live, so that nothing is known of its end.

For one id the search stops at the job that is found. For many, the jobs that are remembered as ended are read
once: that subquery refers to neither ``q`` nor ``a``.
"""

_STATUS = """
    SELECT j.death IS NOT NULL,
    j.id IS NOT NULL AND (j.dead_until IS NULL OR j.dead_until > clock_timestamp()),
    j.token IS NOT NULL AND EXISTS (
      SELECT FROM {s}.request r WHERE r.token = j.token AND r.ends > clock_timestamp()
    )
    FROM {s}.queue q
    LEFT JOIN LATERAL (SELECT * FROM {s}.job WHERE queue = q.key AND id = $2 OFFSET 0) j ON true
    WHERE q.name = $1
"""

_PROGRESS = f"""
    SELECT q.key, p.id, p.progress FROM {{s}}.queue q
    LEFT JOIN LATERAL (SELECT j.id, j.progress FROM {_HELD} AND j.progress IS NOT NULL) p ON true
    WHERE q.name = $1
"""  # noqa: S608
