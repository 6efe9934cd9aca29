"""Keeps an outage from ending leases: no worker can extend a lease then (LSE-3, RTY-3).

A restart, a failover and a cut network end connections. With a full disk or a locked table, connections stay,
and the server refuses the workers' requests. After either kind of outage, the first client that gets through
restarts the leases of its queues, so that the other workers have time to come back. If a lease ends after
that, its worker has died.
"""

from collections.abc import Callable, Set

from .connection import Connection
from .errors import Outage, RefusedByServer
from .schema import quoted

_TIMEOUT_S = 10.0

_PROTECT = """
    WITH cut_short AS MATERIALIZED (
      SELECT r.ctid AS at, outage.over FROM {s}.request r
      CROSS JOIN LATERAL (
        SELECT CASE
          WHEN {is_cut_short} OR r.began > clock_timestamp() THEN clock_timestamp()
          WHEN r.began < pg_postmaster_start_time() THEN pg_postmaster_start_time()
        END AS over
      ) outage
      WHERE r.queue = ANY ('{{{keys}}}') AND r.places <> '{{}}'
        AND outage.over + (r.ends - r.began) > clock_timestamp()
        AND (outage.over - r.began > (r.ends - r.began) / 10 OR outage.over < r.began)
      FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE {s}.request
    SET began = cut_short.over, ends = cut_short.over + (ends - began), spared = {is_spared}
    FROM cut_short WHERE request.ctid = cut_short.at
"""
"""Restarts the leases that an outage has cut short, each with its full length.

- No worker could extend a lease before the server started, or while this client couldn't reach the server.
- A worker extends a lease when a third of it is over. So a lease outlasts an outage that is shorter than
  that.
- A lease that began after the outage isn't touched: its worker may have died since.
- A lease that another transaction has locked is skipped: that transaction extends or ends it.
- If a lease begins in the future, the server's clock was set back. The lease would last too long.
"""
_WHILE_AWAY = "(r.ends - r.began) / 3 <= {away_s} * interval '1 s'"
_WHILE_REFUSED = "clock_timestamp() - r.began >= (r.ends - r.began) * 2 / 3"
"""Nobody knows for how long the server had refused requests before it refused one of this client. But if a
lease wasn't extended before its last third, its worker was refused as well, or has died."""
_UNLESS_SPARED = """
    {while_refused} AND (NOT r.spared OR EXISTS (
      SELECT FROM unnest(r.places, r.seqs) AS held (place, seq) JOIN {s}.job j
        ON j.queue = r.queue AND j.place = held.place AND j.seq = held.seq AND j.token = r.token
      WHERE NOT EXISTS (SELECT FROM {s}.job WHERE job.ctid = j.ctid FOR UPDATE SKIP LOCKED)
    ))
"""
"""Perhaps only one request is refused, again and again, as somebody has locked what it needs. So a lease is
restarted once, or each time while somebody has locked one of its jobs. A worker that lives extends it then,
under a new token; one that doesn't has died."""


class LeaseProtection:
    """Restarts the leases of a client's queues after an outage.

    Args:
        schema: The schema of the tables.
        keys: Returns the keys of the queues that the client consumes.
    """

    def __init__(self, schema: str, keys: Callable[[], Set[int]]) -> None:
        self._schema = quoted(schema)
        self._keys = keys

    def __call__(self, connection: Connection, outage: Outage) -> None:
        """Restart them: over a new connection, for a new consumer, or after the server refused a consumer.

        Args:
            connection: A connection over which no job was received since the outage.
            outage: For how many seconds the client couldn't reach the server; or what the server refused
                a request by.

        Raises:
            ConnectionBroke: the connection broke.
            RefusedByServer: another try may succeed.
        """
        keys = ", ".join(map(str, self._keys()))
        if not keys:
            return
        script = _PROTECT.format(
            s=self._schema,
            keys=keys,
            is_cut_short=self._is_cut_short(outage),
            is_spared="true" if isinstance(outage, RefusedByServer) else "spared",
        )
        try:
            connection.run_script(script, _TIMEOUT_S)
        except RefusedByServer as error:
            if error.is_outage:
                raise  # any other error will come again with the request itself, and say more

    def _is_cut_short(self, outage: Outage) -> str:
        """Return the condition for a lease that its worker couldn't extend."""
        if not isinstance(outage, RefusedByServer):
            return _WHILE_AWAY.format(away_s=outage)
        if outage.may_concern_one:
            return _UNLESS_SPARED.format(s=self._schema, while_refused=_WHILE_REFUSED)
        return _WHILE_REFUSED
