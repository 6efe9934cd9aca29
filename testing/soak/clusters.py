"""Clusters to soak: their leaders are killed, stand still, and are restarted, and others take over."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from brokers.postgresql_pair import PostgreSQLPair
from brokers.private_server import PrivateServer
from brokers.rabbitmq_cluster import RabbitMQCluster
from brokers.redis_sentinels import RedisSentinels

from .environment import RABBITMQ_OPTIONS, Environment, ServerFault, StartEnvironment, killed
from .jobs import SCHEMA

_AWAY_S = (5.0, 15.0)
_STILL_S = (15.0, 40.0)
"""Longer than a lease, and than it takes until another leads."""
_QUEUE = f"mtj:default/{SCHEMA.name}"
"""What RabbitMQ knows the queue of the jobs as."""


@contextmanager
def redis(folder: Path) -> Iterator[Environment]:
    """A master that confirms nothing while no replica keeps up, with replicas and Sentinels."""
    cluster = _redis(folder)
    with ExitStack() as stack:
        stack.callback(cluster.close)
        cluster.start()
        yield Environment(cluster.url(), folder, stack, 2, list(_redis_faults(cluster, "master")))


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Environment]:
    """Three nodes, and a coordination store that is a cluster, too."""
    (folder / "store").mkdir()
    cluster, store = RabbitMQCluster(folder), _redis(folder / "store")
    with ExitStack() as stack:
        stack.callback(cluster.close)
        cluster.start()
        stack.callback(store.close)
        store.start()
        faults = [*_rabbitmq_faults(cluster), *_redis_faults(store, "store's master")]
        url = f"{cluster.url}?{RABBITMQ_OPTIONS}"
        yield Environment(url, folder, stack, 3, faults, store_url=store.url())


@contextmanager
def postgresql(folder: Path) -> Iterator[Environment]:
    """A primary and a synchronous standby. Its failover may take the leases of the last moment along."""
    pair = PostgreSQLPair(folder)
    with ExitStack() as stack:
        stack.callback(pair.close)
        pair.start()
        yield Environment(pair.url("mindtrace_jobs"), folder, stack, 2, list(_postgresql_faults(pair)))


def _redis(folder: Path) -> RedisSentinels:
    return RedisSentinels(
        folder, appendonly="yes", appendfsync="everysec", min_replicas_to_write=1, min_replicas_max_lag=10
    )


def _redis_faults(cluster: RedisSentinels, role: str) -> Iterator[ServerFault]:
    @contextmanager
    def master(suffers: Callable[[PrivateServer], AbstractContextManager[None]]) -> Iterator[None]:
        leading = cluster.master()
        with suffers(leading):
            cluster.wait_until_another_leads(leading)
            yield
        cluster.wait_until_whole()

    @contextmanager
    def all_restarted() -> Iterator[None]:
        for server in (*cluster.servers, *cluster.sentinels):
            server.restart()
            cluster.wait_until_whole()
        yield

    yield ServerFault(f"{role} killed", lambda: master(killed), _AWAY_S)
    yield ServerFault(f"{role} frozen", lambda: master(frozen), _STILL_S)
    yield ServerFault(f"{role} and all others restarted", all_restarted)


def _rabbitmq_faults(cluster: RabbitMQCluster) -> Iterator[ServerFault]:
    @contextmanager
    def leader(suffers: Callable[[PrivateServer], AbstractContextManager[None]]) -> Iterator[None]:
        with suffers(cluster.leader(_QUEUE)):
            yield

    @contextmanager
    def majority_killed() -> Iterator[None]:
        with killed(cluster.nodes[1]), killed(cluster.nodes[2]):
            yield

    @contextmanager
    def all_restarted() -> Iterator[None]:
        cluster.restart_one_by_one()
        yield

    yield ServerFault("leader killed", lambda: leader(killed), _AWAY_S)
    yield ServerFault("leader frozen", lambda: leader(frozen), _STILL_S)
    yield ServerFault("majority killed", majority_killed, _AWAY_S)
    yield ServerFault("nodes restarted one by one", all_restarted)


def _postgresql_faults(pair: PostgreSQLPair) -> Iterator[ServerFault]:
    @contextmanager
    def replaced(fails: Callable[[], None]) -> Iterator[None]:
        old = pair.primary
        fails()
        pair.fail_over()
        yield
        old.kill()  # or there would be two, once it goes on
        pair.rejoin()

    @contextmanager
    def all_restarted() -> Iterator[None]:
        for server in (pair.standby, pair.primary):
            server.restart()
            pair.wait_until_synchronous()
        yield

    yield ServerFault("primary killed", lambda: replaced(lambda: pair.primary.kill()), _AWAY_S)
    yield ServerFault("primary frozen", lambda: replaced(lambda: pair.primary.pause()), _STILL_S)
    yield ServerFault("standby frozen", lambda: frozen(pair.standby), _AWAY_S)
    yield ServerFault("both restarted", all_restarted)


@contextmanager
def frozen(server: PrivateServer) -> Iterator[None]:
    """Have a server stand still, its connections open, and then let it go on."""
    server.pause()
    yield
    server.resume()


CLUSTERS: dict[str, StartEnvironment] = {
    "redis": redis,
    "rabbitmq": rabbitmq,
    "postgresql": postgresql,
}
