"""What a client does on each new connection, before anything else is sent over it.

A restart of the server, a failover and a cut network all end connections. So this is where a client learns
that it may have been away, and its workers with it.
"""

from collections.abc import Sequence

from redis.exceptions import ReadOnlyError, ResponseError

from ....domain.errors import BrokerUnsuitable
from ..scripts import PROTECT_LEASES
from .channel import Execute
from .evaluate import evaluate

_OLDEST = (7, 0)


_WRITES_REFUSED = ("NOREPLICAS", "MISCONF")
"""How an error begins that a server may answer to writes alone."""


def refuses_writes(error: Exception) -> bool:
    """Return whether a server that answers this may answer what only reads."""
    return isinstance(error, ReadOnlyError) or str(error).startswith(_WRITES_REFUSED)


class OnConnect:
    """Refuses a server that would lose jobs, and keeps an outage from ending leases.

    While a server is away, no worker can extend a lease. So the first client that is back lets all leases of
    its queues stand for as long as a new one, and the workers have time to come back as well: a lease that
    runs out after that means that its worker died.

    Args:
        address: What to call the server in messages; no credentials.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._run_id = ""
        """Tells the server of the last connection from one that was restarted, or took its place."""
        self._leases: dict[tuple[str, ...], int] = {}
        """How long the leases of each queue with consumers are, in milliseconds, by the script's keys."""

    def __call__(self, execute: Execute, away_s: float) -> bool:
        """Look at the server behind a new connection.

        Args:
            execute: Sends commands over it.
            away_s: For how many seconds this client couldn't reach the server.

        Returns:
            Whether the outage is over for all leases: from now on they stand for as long as new ones, or
            there are none.

        Raises:
            BrokerUnsuitable: the server is too old, part of a cluster, or would drop jobs when it is full.
        """
        answers = execute(("INFO", "server"), ("INFO", "memory"))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        lines = b"".join(answers).decode("utf-8", "replace").splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        self._refuse_unsuitable(about)
        run_id = about.get("run_id", "")
        is_another, is_over = run_id != self._run_id, True
        for keys, lease_ms in list(self._leases.items()):
            # A worker extends a lease when a third of it is gone: it stands longer than a shorter outage.
            if is_another or away_s * 1000 >= lease_ms / 3:
                try:
                    evaluate(execute, PROTECT_LEASES, keys, [run_id, str(lease_ms), "1"])
                except ResponseError as error:
                    if refuses_writes(error):  # nor can a lease end now; the next connection tries again
                        return False
                    raise
            else:
                is_over = False
        self._run_id = run_id
        return is_over

    def protect_leases(self, execute: Execute, keys: Sequence[str], lease_ms: int) -> None:
        """Do so for a queue that gets a consumer, now and with each new connection."""
        self._leases[tuple(keys)] = max(lease_ms, self._leases.get(tuple(keys), 0))
        evaluate(execute, PROTECT_LEASES, keys, [self._run_id, str(lease_ms), "0"])

    def unprotect_leases(self, keys: Sequence[str]) -> None:
        """Stop doing so for a queue that was deleted."""
        self._leases.pop(tuple(keys), None)

    def _refuse_unsuitable(self, about: dict[str, str]) -> None:
        version = tuple(int(part) for part in about["redis_version"].split(".")[:2])
        if version < _OLDEST and "valkey_version" not in about:
            raise BrokerUnsuitable(
                f"Redis {about['redis_version']} at {self._address}: version {_OLDEST[0]} or newer is needed"
            )
        if about.get("redis_mode") == "cluster":
            raise BrokerUnsuitable(
                f"Redis at {self._address} runs in cluster mode, which isn't supported: use a single server "
                "or Sentinel; of a managed service, an instance with cluster mode disabled"
            )
        policy = about.get("maxmemory_policy", "noeviction")
        if int(about.get("maxmemory", 0)) and policy.startswith("allkeys"):
            raise BrokerUnsuitable(
                f"Redis at {self._address} would drop jobs and results when its memory is full: its "
                f"maxmemory-policy is {policy}; set it to noeviction, with CONFIG SET and in its "
                "configuration file"
            )
