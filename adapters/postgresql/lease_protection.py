"""Keep an outage from ending leases: while the server is away, no worker can extend one (LSE-3, RTY-3).

A restart, a failover and a cut network all end connections. So the first client that is back lets the leases
of its queues begin anew, and the workers have time to come back as well: a lease that runs out after that
means that its worker died.
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
          WHEN (r.ends - r.began) / 3 <= {away_s} * interval '1 s' THEN clock_timestamp()
          WHEN r.began < pg_postmaster_start_time() THEN pg_postmaster_start_time()
        END AS over
      ) outage
      WHERE r.queue = ANY ('{{{keys}}}') AND r.places <> '{{}}'
        AND outage.over + (r.ends - r.began) > clock_timestamp()
        AND outage.over - r.began > (r.ends - r.began) / 10
      FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE {s}.request SET began = cut_short.over, ends = cut_short.over + (ends - began)
    FROM cut_short WHERE request.ctid = cut_short.at
"""
"""A worker extends a lease when a third of it is gone: it stands longer than a shorter outage. No worker can
have extended a lease before the server started, or while this client couldn't reach it. A lease that began
later isn't touched, as its worker may have died since. One that another transaction has locked is extended
or ended by that one."""


class LeaseProtection:
    """Lets the leases of a client's queues begin anew after an outage.

    Args:
        schema: The schema of the tables.
        keys: Returns the keys of the queues that the client consumes.
    """

    def __init__(self, schema: str, keys: Callable[[], Set[int]]) -> None:
        self._schema = quoted(schema)
        self._keys = keys

    def __call__(self, connection: Connection, away_s: float) -> None:
        """Do so over a new connection, or for a new consumer.

        Args:
            connection: A connection that nothing was received over yet.
            away_s: For how many seconds the client couldn't reach the server.

        Raises:
            ConnectionBroke: the connection broke.
            RefusedByServer: another try may succeed.
        """
        keys = ", ".join(map(str, self._keys()))
        if not keys:
            return
        try:
            connection.run_script(_PROTECT.format(s=self._schema, keys=keys, away_s=away_s), _TIMEOUT_S)
        except RefusedByServer as error:
            if error.is_passing:
                raise  # the request itself will say more of anything else
