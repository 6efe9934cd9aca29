"""A cluster of RabbitMQ that a test has to itself."""

from pathlib import Path
from typing import Any, Self

from background import Background
from conditions import LIMIT_S, eventually
from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient

from .rabbitmq_server import PrivateRabbitMQ, new_cookie, new_node

_SIZE = 3


class RabbitMQCluster:
    """Three nodes, each of which a test may stop, kill, pause and start again.

    Args:
        folder: Where they keep their files; must exist.
        settings: As those of :class:`PrivateRabbitMQ`.

    Raises:
        NoServer: RabbitMQ isn't installed.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        names, cookie = [new_node() for _ in range(_SIZE)], new_cookie()
        found = {f"cluster_formation__classic_config__nodes__{n}": name for n, name in enumerate(names, 1)}
        discovery = {"cluster_formation__peer_discovery_backend": "classic_config", **found}
        self.nodes: list[PrivateRabbitMQ] = []
        for number, name in enumerate(names):
            files = folder / str(number)
            files.mkdir()
            self.nodes.append(PrivateRabbitMQ(files, node=name, cookie=cookie, **(discovery | settings)))

    def start(self) -> Self:
        """Start the nodes, all at once: each waits for the others before it answers."""
        with Background(join_s=LIMIT_S) as threads:
            starting = [threads.submit(node.start) for node in self.nodes]
        for each in starting:
            each.result()
        return self

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def client(self, namespace: str = "default", **options: Any) -> RabbitMQClient:
        """Connect a client of ours, to the first node that answers."""
        hosts = [(node.address.host, node.address.port) for node in self.nodes]
        return self.nodes[0].client(namespace, **({"hosts": hosts} | options))

    @property
    def url(self) -> str:
        """The URL of a client of ours."""
        hosts = ",".join(f"{node.address.host}:{node.address.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/%2F"

    def leader(self, queue: str) -> PrivateRabbitMQ:
        """Return the node that leads a queue, by the queue's name at RabbitMQ."""
        named = self.leaders(self.nodes[0])[queue]
        return next(node for node in self.nodes if node.name == named)

    def restart_one_by_one(self) -> None:
        """Restart all nodes, as in an upgrade: each queue keeps its majority."""
        for node in self.nodes:
            eventually(lambda node=node: not node.is_critical(), "the others have caught up")  # type: ignore[misc]
            node.restart()

    def leaders(self, by: PrivateRabbitMQ) -> dict[str, str]:
        """Return the name of the node that leads each queue, as the node ``by`` knows it."""
        lines = by.control("list_queues", "name", "leader", "--no-table-headers").splitlines()
        return dict(line.split("\t") for line in lines)
