"""What a client makes sure of with each new connection, before anything else is sent over it.

A restart of the server, a failover and a network that was cut all end connections. So this is where a client
learns that it may have been away, and its workers with it.
"""

from collections.abc import Sequence

from ...domain.errors import BrokerUnsuitable
from .connections import Ask
from .scripts import RESUME, evaluate

_OLDEST = (7, 0)


class Greeting:
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
        """What tells the server that was met last from one that was restarted, or took its place."""
        self._leases: dict[tuple[str, ...], int] = {}
        """How long the leases of each queue with consumers are, in milliseconds, by the script's keys."""

    def __call__(self, ask: Ask, away_s: float) -> None:
        """Greet the server behind a new connection.

        Args:
            ask: Sends commands over it.
            away_s: For how many seconds this client has tried in vain to reach the server.

        Raises:
            BrokerUnsuitable: the server is too old, part of a cluster, or would drop jobs when it is full.
        """
        answers = ask(("INFO", "server"), ("INFO", "memory"))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        lines = b"".join(answers).decode("utf-8", "replace").splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        self._refuse_unsuitable(about)
        run_id = about.get("run_id", "")
        is_another = run_id != self._run_id
        for keys, lease_ms in list(self._leases.items()):
            # A worker extends a lease when a third of it is gone: it stands longer than a shorter outage.
            if is_another or away_s * 1000 >= lease_ms / 3:
                evaluate(ask, RESUME, keys, [run_id, lease_ms, 1])
        self._run_id = run_id

    def resume(self, ask: Ask, keys: Sequence[str], lease_ms: int) -> None:
        """Do the same for a queue that gets a consumer now, and from now on with each new connection."""
        self._leases[tuple(keys)] = max(lease_ms, self._leases.get(tuple(keys), 0))
        evaluate(ask, RESUME, keys, [self._run_id, lease_ms, 0])

    def forget(self, keys: Sequence[str]) -> None:
        """Do it no more for a queue that was deleted."""
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
