"""What a client does on each new connection, before anything else is sent over it.

A restart of the server, a failover and a cut network all end connections. So this is where a client learns
that it may have been away, and its workers with it.
"""

from collections.abc import Sequence
from time import monotonic

from redis.exceptions import ReadOnlyError, ResponseError

from ....domain.errors import BrokerUnsuitable
from ..scripts import PROTECT_LEASES
from .commands import Execute
from .evaluate import evaluate

_OLDEST = (7, 0)


_WRITES_REFUSED = ("NOREPLICAS", "MISCONF")
"""How the errors begin that a server may answer to writes only."""


def refuses_writes(error: Exception) -> bool:
    """Return whether a server that answers so to a write may still answer reads."""
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
        """Identifies the server of the last connection. A restarted server, or a successor, has another."""
        self._leases: dict[tuple[str, ...], int] = {}
        """How long the leases of each queue with consumers are, in milliseconds, by the script's keys."""
        self._away_since: dict[tuple[str, ...], float] = {}
        """By queue, since when its leases may not have been extended; absent if nothing failed since they
        were protected. Each queue has its own moment: short leases need protection sooner than long ones."""
        self.unwritten_since: float | None = None
        """Since when no write is known to have been carried out. None if nothing failed since the last write,
        or if all leases were protected from the failure."""

    def note_failure(self, moment: float) -> None:
        """Note that the server couldn't be reached, or took no write."""
        if self.unwritten_since is None:
            self.unwritten_since = moment
        for keys in list(self._leases):
            self._away_since.setdefault(keys, moment)

    def note_write(self) -> None:
        """Note that a write was carried out."""
        self.unwritten_since = None
        self._away_since.clear()

    def __call__(self, execute: Execute) -> None:
        """Look at the server behind a new connection.

        Args:
            execute: Sends commands over it.

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
        is_another, now = run_id != self._run_id, monotonic()
        for keys, lease_ms in list(self._leases.items()):
            # A worker extends a lease when a third of it is over. So a lease outlasts an outage that is
            # shorter.
            away_s = now - self._away_since.get(keys, now)
            if is_another or away_s * 1000 >= lease_ms / 3:
                try:
                    evaluate(execute, PROTECT_LEASES, keys, [run_id, str(lease_ms), "1"])
                except ResponseError as error:
                    # While the server refuses writes, no lease can end. The next connection tries again.
                    if refuses_writes(error):
                        return
                    raise
                self._away_since.pop(keys, None)
        self._run_id = run_id
        if not self._away_since:
            self.unwritten_since = None

    def protect_leases(self, execute: Execute, keys: Sequence[str], lease_ms: int) -> None:
        """Protect the leases of a queue that gets a consumer, now and with each new connection."""
        if tuple(keys) not in self._leases and self.unwritten_since is not None:
            self._away_since[tuple(keys)] = self.unwritten_since
        self._leases[tuple(keys)] = max(lease_ms, self._leases.get(tuple(keys), 0))
        evaluate(execute, PROTECT_LEASES, keys, [self._run_id, str(lease_ms), "0"])

    def unprotect_leases(self, keys: Sequence[str]) -> None:
        """Protect no leases of a queue that was deleted."""
        self._leases.pop(tuple(keys), None)
        self._away_since.pop(tuple(keys), None)

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
