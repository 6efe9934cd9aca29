"""Keep an outage from ending leases: while the server is away, no worker can extend one (LSE-3, RTY-3).

A restart, a failover and a cut network all end connections. A full disk and a locked table don't: the server
refuses what workers send. In both cases, the first client that is back lets the leases of its queues begin
anew, and the workers have time to come back as well: a lease that runs out after that means that its worker
died.
"""

from collections.abc import Callable, Set

from .connection import Connection
from .errors import RefusedByServer
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
    UPDATE {s}.request SET began = cut_short.over, ends = cut_short.over + (ends - began)
    FROM cut_short WHERE request.ctid = cut_short.at
"""
"""A worker extends a lease when a third of it is gone: it stands longer than a shorter outage. No worker can
have extended a lease before the server started, or while this client couldn't reach it. A lease that began
later isn't touched, as its worker may have died since. One that another transaction has locked is extended
or ended by that one. If a lease begins in the future, the server's clock was set back, and the lease would
last for too long."""
_WHILE_AWAY = "(r.ends - r.began) / 3 <= {away_s} * interval '1 s'"
_WHILE_REFUSED = "clock_timestamp() - r.began >= (r.ends - r.began) * 2 / 3"
"""How long the server had refused before it refused something to this client, nobody knows. But a lease that
wasn't extended until its last third is that of a worker that was refused, or has died."""


class LeaseProtection:
    """Lets the leases of a client's queues begin anew after an outage.

    Args:
        schema: The schema of the tables.
        keys: Returns the keys of the queues that the client consumes.
    """

    def __init__(self, schema: str, keys: Callable[[], Set[int]]) -> None:
        self._schema = quoted(schema)
        self._keys = keys

    def __call__(self, connection: Connection, away_s: float | None) -> None:
        """Do so over a new connection, for a new consumer, or where the server has refused a consumer.

        Args:
            connection: A connection that nothing was received over since.
            away_s: For how many seconds the client couldn't reach the server; None if it could, and was
                refused.

        Raises:
            ConnectionBroke: the connection broke.
            RefusedByServer: another try may succeed.
        """
        keys = ", ".join(map(str, self._keys()))
        if not keys:
            return
        is_cut_short = _WHILE_REFUSED if away_s is None else _WHILE_AWAY.format(away_s=away_s)
        try:
            connection.run_script(
                _PROTECT.format(s=self._schema, keys=keys, is_cut_short=is_cut_short), _TIMEOUT_S
            )
        except RefusedByServer as error:
            if error.is_outage:
                raise  # the request itself will say more of anything else
