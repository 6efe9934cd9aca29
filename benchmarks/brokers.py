"""The brokers of a run, started for it alone."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))

from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis

BROKERS = ("memory", "sqlite", "redis", "rabbitmq")
SERVERS = {"redis": PrivateRedis, "rabbitmq": PrivateRabbitMQ}


@contextmanager
def private_brokers(names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Start servers of our own, Redis without persistence, and yield their URLs by their names."""
    urls = {"memory": "memory://", "sqlite": "sqlite://"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-brokers-")))
        for name, kind in SERVERS.items():
            if name in names:
                (folder / name).mkdir()
                server = kind(folder / name).start()
                stack.callback(server.kill)
                urls[name] = server.address.url
        yield {name: urls[name] for name in names}
