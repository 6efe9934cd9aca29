"""Keep an outage from ending leases: while the server is away, no worker can extend one (LSE-3, RTY-3).

A restart, a failover and a cut network all end connections. So the first client that is back lets all leases
of its queues stand for as long as a new one, and the workers have time to come back as well: a lease that
runs out after that means that its worker died.
"""

from collections.abc import Callable, Mapping

from .connection import Connection
from .errors import RefusedByServer
from .schema import quoted

_TIMEOUT_S = 10.0

_PROTECT = """
    UPDATE {s}.request SET ends = late.until
    FROM (
      SELECT r.token, l.until FROM (VALUES {leases}) AS q (key, lease_s, was_away)
      CROSS JOIN LATERAL (
        SELECT CASE WHEN q.was_away THEN clock_timestamp() ELSE pg_postmaster_start_time() END
          + q.lease_s * interval '1 s' AS until
      ) l
      JOIN {s}.request r ON r.queue = q.key AND r.ends < l.until - q.lease_s * interval '0.1 s'
      WHERE l.until > clock_timestamp() AND r.places <> '{{}}'
      FOR UPDATE OF r SKIP LOCKED
    ) late WHERE request.token = late.token
"""
"""No worker can have extended a lease before the server started, or while this client couldn't reach it. A
client that comes a little later finds the leases extended. A lease that another transaction has locked is
extended or ended by that one."""


class LeaseProtection:
    """Lets the leases of a client's queues stand after an outage.

    Args:
        schema: The schema of the tables.
        leases: Returns the keys of the queues that the client consumes, and how long their leases are, in
            seconds.
    """

    def __init__(self, schema: str, leases: Callable[[], Mapping[int, float]]) -> None:
        self._schema = quoted(schema)
        self._leases = leases

    def __call__(self, connection: Connection, away_s: float) -> None:
        """Do so over a new connection, or for a new consumer.

        Args:
            connection: A connection that nothing was received over yet.
            away_s: For how many seconds the client couldn't reach the server.

        Raises:
            ConnectionBroke: the connection broke.
            RefusedByServer: another try may succeed.
        """
        # A worker extends a lease when a third of it is gone: it stands longer than a shorter outage.
        rows = ", ".join(
            f"({key}, {lease_s!r}::float8, {away_s >= lease_s / 3})"
            for key, lease_s in self._leases().items()
        )
        if not rows:
            return
        try:
            connection.run_script(_PROTECT.format(s=self._schema, leases=rows), _TIMEOUT_S)
        except RefusedByServer as error:
            if error.is_passing:
                raise  # the request itself will say more of anything else
