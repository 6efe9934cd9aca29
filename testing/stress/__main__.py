"""Have many threads use one client for all it can do, and demand that every answer is right.

    PYTHONPATH=testing .venv/bin/python -m stress --threads 32 --seconds 60 rabbitmq

Each backend is private: memory, a file, or a server of its own.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from mindtrace.jobs import OrchestratorBackend
from mindtrace.jobs.application.broker.backends import detect_backend

from .load import run

_RETRY_TIMEOUT_S = 60.0
"""Calls of one client take turns at some things, and a busy machine makes the turns long."""
_SETTLED_S = 2.0
"""How long a RabbitMQ that was just started gets, to be as it is later."""


@contextmanager
def _served(server: PrivateRedis | PrivateRabbitMQ | PrivatePostgreSQL) -> Iterator[OrchestratorBackend]:
    try:
        server.start()
        time.sleep(_SETTLED_S)
        with server.client(retry_timeout_s=_RETRY_TIMEOUT_S) as client:
            yield client
    finally:
        server.close()


BACKENDS: dict[str, Callable[[Path], AbstractContextManager[OrchestratorBackend]]] = {
    "memory": lambda folder: detect_backend("memory://"),
    "sqlite": lambda folder: detect_backend(f"sqlite:///{folder / 'jobs.db'}"),
    "redis": lambda folder: _served(PrivateRedis(folder)),
    "rabbitmq": lambda folder: _served(PrivateRabbitMQ(folder)),
    "postgresql": lambda folder: _served(PrivatePostgreSQL(folder)),
}


def main() -> int:
    """Stress each backend that is named, print what it was told, and return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__.split("\n")[0])
    parser.add_argument(
        "backends", nargs="*", metavar="BACKEND", help=f"of {', '.join(BACKENDS)}; all by default"
    )
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if unknown := set(options.backends) - set(BACKENDS):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(BACKENDS)}")
    wrong = 0
    for name in options.backends or BACKENDS:
        with tempfile.TemporaryDirectory(prefix="stress-") as folder, BACKENDS[name](Path(folder)) as client:
            end = time.monotonic() + options.seconds
            log, found = run(client, options.threads, lambda _steps: time.monotonic() >= end)  # noqa: B023
        calls = ", ".join(f"{call} {times}" for call, times in sorted(log.calls.items()))
        print(f"{name}: {log.calls.total()} calls: {calls}")
        print(
            f"{name}: {len(log.accepted)} jobs, {len(log.charged)} charged with a crash, "
            f"{len(found)} answers wrong"
        )
        for line in found[:20]:
            print(f"  {line:.300}")
        wrong += bool(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
