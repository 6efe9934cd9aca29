"""A Redis that a test has to itself, with replicas and the Sentinels that have one take over."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from redis.exceptions import RedisError

from conditions import eventually
from mindtrace.jobs.adapters.redis import RedisClient

from .redis_server import PrivateRedis

SERVICE = "jobs"
"""What the Sentinels know the servers as."""
_REPLICAS = 2
_SENTINELS = 3
_MAJORITY = 2
_DOWN_AFTER_MS = 3000
_FAILOVER_MS = 15_000


class RedisSentinels:
    """A master, two replicas and three Sentinels, each of which a test may stop, kill and pause.

    Args:
        folder: Where they keep their files; must exist.
        options: Configuration of the servers, as of :class:`PrivateRedis`.

    Raises:
        NoServer: Redis isn't installed.
    """

    def __init__(self, folder: Path, **options: str | int) -> None:
        self._folder = folder
        first = self._server("server-0", "", **options)  # with a file, into which the Sentinels write
        follows = f"replicaof 127.0.0.1 {first.address.port}\n"
        replicas = [self._server(f"server-{n + 1}", follows, **options) for n in range(_REPLICAS)]
        self.servers = [first, *replicas]
        watches = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {first.address.port} {_MAJORITY}\n"
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} {_FAILOVER_MS}\n"
        )
        self.sentinels = [self._server(f"sentinel-{n}", watches, sentinel=True) for n in range(_SENTINELS)]

    def _server(self, name: str, config: str, **options: Any) -> PrivateRedis:
        folder = self._folder / name
        folder.mkdir()
        return PrivateRedis(folder, config=config, **options)

    def start(self) -> Self:
        """Start all, and wait until the replicas follow and the Sentinels know of all."""
        for server in (*self.servers, *self.sentinels):
            server.start()
        self.wait_until_whole()
        return self

    def close(self) -> None:
        """End all for good."""
        for server in (*self.servers, *self.sentinels):
            server.close()

    def url(self, database: int = 0) -> str:
        """The URL of a client of ours."""
        at = ",".join(f"{each.address.host}:{each.address.port}" for each in self.sentinels)
        return f"redis+sentinel://{at}/{SERVICE}/{database}"

    def client(self, **options: Any) -> RedisClient:
        """Connect a client of ours, to the server that the Sentinels name."""
        sentinels = [(each.address.host, each.address.port) for each in self.sentinels]
        return RedisClient(sentinels=sentinels, sentinel_service=SERVICE, **options)

    def master(self) -> PrivateRedis:
        """Return the server that the first Sentinel names."""
        named = _port_named_by(self.sentinels[0])
        return next(server for server in self.servers if server.address.port == named)

    def wait_until_another_leads(self, than: PrivateRedis) -> None:
        """Wait until all Sentinels name another server."""
        eventually(
            lambda: than.address.port not in map(_port_named_by, self.sentinels), "another server takes over"
        )

    def wait_until_whole(self) -> None:
        """Wait until all Sentinels name one master, and know that its replicas follow it."""
        eventually(self._is_whole, "the Sentinels know of a master and its replicas")

    def _is_whole(self) -> bool:
        with suppress(RedisError):  # such as one that is loading its data
            named = set(map(_port_named_by, self.sentinels))
            return len(named) == 1 and _has_replicas(self.master()) and all(map(_knows_all, self.sentinels))
        return False


def _port_named_by(sentinel: PrivateRedis) -> int:
    with sentinel.admin() as admin:
        _, port = admin.sentinel_get_master_addr_by_name(SERVICE)
    return int(port)


def _has_replicas(server: PrivateRedis) -> bool:
    with server.admin() as admin:
        said = admin.info("replication")
    states = [said.get(f"slave{number}", {}).get("state") for number in range(_REPLICAS)]
    return said["role"] == "master" and states == ["online"] * _REPLICAS


def _knows_all(sentinel: PrivateRedis) -> bool:
    with sentinel.admin() as admin:
        known = admin.sentinel_master(SERVICE)
    return (known["num-slaves"], known["num-other-sentinels"]) == (_REPLICAS, _SENTINELS - 1)
