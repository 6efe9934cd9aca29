"""The statements, for one schema."""

from .connection import Statement
from .schema import quoted


def _call(schema: str, function: str, parameters: int) -> Statement:
    places = ", ".join(f"${number}" for number in range(1, parameters + 1))
    return Statement(f"SELECT * FROM {quoted(schema)}.{function}({places})", parameters)  # noqa: S608


class Statements:
    """What the adapter asks of the server; the functions are described in ``sql/``.

    Those that read jobs are never prepared, and search for the rows of a list one by one (ADR 87). Tables and
    types are named with their schemas: a temporary table comes first where there is none.

    Args:
        schema: Where the tables are.
    """

    def __init__(self, schema: str) -> None:
        name = quoted(schema)
        self.publish = _call(schema, "publish", 8)
        self.settle_and_take = _call(schema, "settle_and_take_after", 25)
        self.settle_publish_and_take = _call(schema, "settle_publish_and_take_after", 31)
        self.extend = _call(schema, "extend_after", 11)
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
        self.take_places = _call(schema, "take_places", 4)
        unsynced = "set_config('synchronous_commit', 'off', true)"  # it needn't wait for the disk (ADR 91)
        leave = f"{quoted(schema)}.leave_places($1, $2)"
        self.leave_places = Statement(f"SELECT {unsynced}, {leave}", 2)
        self.reserve_turns = _call(schema, "reserve_turns", 5)
        self.now = Statement("SELECT extract(epoch FROM clock_timestamp())::pg_catalog.float8", 0)

        def sql(text: str, parameters: int) -> Statement:
            return Statement(text.replace("{s}", name), parameters)

        def look(text: str, parameters: int) -> Statement:
            return Statement(text.replace("{s}", name), parameters, is_planned_anew=True)

        # On connections of callers, by the driver's own cursors.
        self.has_publish_in_transaction = _HAS_PUBLISH_IN_TRANSACTION
        self.publish_in_transaction = (
            f"SELECT {name}.publish_in_transaction(%(queue)s::pg_catalog.text, %(ids)s::pg_catalog.text[],"
            " %(bodies)b::pg_catalog.bytea[], %(priorities)s::int[], %(delays)s::pg_catalog.float8[])"
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


_HAS_PUBLISH_IN_TRANSACTION = (
    "SELECT count(*) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    " WHERE n.nspname = %(schema)s AND p.proname = 'publish_in_transaction'"
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
    FROM {{s}}.queue q WHERE q.name = $1
"""  # noqa: S608

_DEAD_LETTERS = """
    SELECT j.id, j.body, j.reason, j.error, j.attempt, j.crashes,
      extract(epoch FROM j.died)::pg_catalog.float8, j.failed, j.failures, q.key
    FROM {s}.queue q LEFT JOIN LATERAL (
      SELECT * FROM {s}.job WHERE queue = q.key AND death IS NOT NULL ORDER BY death LIMIT $2 OFFSET $3
    ) j ON true WHERE q.name = $1
    ORDER BY j.death
"""

_RESULTS = """
    SELECT a.id, j.id IS NOT NULL, j.error, r.id IS NOT NULL, CASE WHEN r.expires > clock_timestamp() THEN
    r.body END,
      j.death IS NOT NULL
    FROM {s}.queue q
    LEFT JOIN LATERAL unnest($2::pg_catalog.text[]) AS a (id) ON true
    LEFT JOIN LATERAL (SELECT * FROM {s}.job WHERE queue = q.key AND id = a.id OFFSET 0) j ON true
    LEFT JOIN LATERAL (SELECT * FROM {s}.result WHERE queue = q.key AND id = a.id OFFSET 0) r
      ON j.id IS NULL OR j.death IS NOT NULL
    WHERE q.name = $1 AND (
      a.id IS NULL OR j.death IS NOT NULL OR r.id IS NOT NULL OR j.id IS NULL AND EXISTS (
        SELECT FROM {s}.ended e
        WHERE e.queue = q.key AND e.number >= {s}.first_ended(q.key) AND e.ids @> ARRAY[a.id]
      )
    )
"""
"""Of each job that may have ended: id, is live, error, has a result, the result, is dead."""

_STATUS = """
    SELECT j.death IS NOT NULL, j.id IS NOT NULL, j.token IS NOT NULL AND EXISTS (
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
