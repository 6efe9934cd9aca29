"""Describe the machine and the brokers of a run."""

import os
import platform
import subprocess
from pathlib import Path

import psycopg
from pika import BlockingConnection, URLParameters
from redis import Redis

_POSTGRESQL = """
    SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')
"""


def describe(urls: dict[str, str]) -> dict[str, str]:
    """The machine, its Python, and the brokers at these URLs."""
    found = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit(),
    }
    if "redis" in urls:
        with Redis.from_url(urls["redis"]) as server:
            found["redis"] = f"{server.info('server')['redis_version']}, no persistence"
    if "rabbitmq" in urls:
        with BlockingConnection(URLParameters(urls["rabbitmq"])) as connection:
            properties = connection._impl.server_properties
            found["rabbitmq"] = f"{properties['version']} on {properties['platform']}"
    if "postgresql" in urls:
        with psycopg.connect(urls["postgresql"]) as connection:
            row = connection.execute(_POSTGRESQL).fetchone()
        found["postgresql"] = "{}, synchronous_commit={}, fsync={}".format(*row)
    return found


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
