"""The brokers of a run, started for it alone."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis

BROKERS = ("memory", "sqlite", "redis", "rabbitmq", "postgresql")
SERVERS = {"redis": PrivateRedis, "rabbitmq": PrivateRabbitMQ, "postgresql": PrivatePostgreSQL}


@contextmanager
def private_brokers(names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Start servers of our own, and yield their URLs by their names.

    Redis keeps nothing on disk; PostgreSQL has ``synchronous_commit=on``, for all alike.
    """
    urls = {"memory": "memory://", "sqlite": "sqlite://"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-brokers-")))
        for name, kind in SERVERS.items():
            if name in names:
                (folder / name).mkdir()
                server = kind(folder / name).start()
                stack.callback(server.close)
                urls[name] = server.url() if isinstance(server, PrivatePostgreSQL) else server.address.url
        yield {name: urls[name] for name in names}
