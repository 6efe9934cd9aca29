"""The interface of a library that is measured: it connects, sends jobs, and has a worker.

Peers run in their own environments, so this needs the standard library only. A peer's module makes its
application when it is imported, as these libraries want it, from :data:`PLACE`.
"""

import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import urlsplit

from .job import KINDS

AT_MOST_ONCE = "at most once"
AT_LEAST_ONCE = "at least once"
CONFIRMED = "every publish confirmed"
FAILS_ON_CRASH = "a crash fails the job"


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs go: the broker, the queue, and its type where there is a choice."""

    broker: str
    url: str
    queue: str
    queue_type: str
    concurrency: int

    @classmethod
    def from_environment(cls) -> "Place":
        names = ("BENCH_BROKER", "BENCH_URL", "BENCH_QUEUE", "BENCH_QUEUE_TYPE")
        words = (os.environ.get(name, "") for name in names)
        return cls(*words, int(os.environ.get("BENCH_CONCURRENCY", "1")))

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


PLACE = Place.from_environment()


@dataclass(frozen=True, slots=True)
class About:
    """What is measured, and at which settings."""

    library: str
    guarantee: str
    settings: str
    distributions: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    python: str = ""

    def with_versions(self) -> "About":
        found = {name: version(name) for name in self.distributions}
        python = ".".join(map(str, sys.version_info[:3]))
        return About(self.library, self.guarantee, self.settings, self.distributions, found, python)


class Peer(ABC):
    """A library. ``open``, ``send``, ``send_batch`` and ``close`` may as well be coroutines."""

    about: About
    worker: list[str] | None = None
    """The command that starts its worker in a process of its own; None has :meth:`work` run in one."""
    in_process = False
    """Whether only the process that publishes sees its jobs, so that its worker is a thread there."""
    has_batches = False
    kinds: tuple[str, ...] = KINDS
    wakes = True
    """Whether its worker waits for jobs, so that it makes sense to ask how soon it sees one."""

    def open(self) -> None:  # noqa: B027 - not every library needs it
        """Connect, and declare the queue."""

    @abstractmethod
    def send(self, kind: str) -> None:
        """Publish one job."""

    async def publish(self, x: float, y: float) -> str:
        """Publish one no-op job from a coroutine, and return its id: for the libraries of web services."""
        raise NotImplementedError

    def send_batch(self, kind: str, count: int) -> None:
        """Publish so many jobs by one call, where the library has one."""
        raise NotImplementedError

    def work(self) -> None:
        """Run jobs until the process is ended."""
        raise NotImplementedError

    def drain(self, count: int) -> None:
        """Run so many jobs in this process: for this project, which is measured beside other trees of it."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - not every library needs it
        """Disconnect."""
