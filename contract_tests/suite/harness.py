"""The base class of a harness: how the suite makes and breaks one adapter."""

import time
from abc import ABC, abstractmethod
from typing import Any

from ..ports import ConsumerBackend, OrchestratorBackend


class Harness(ABC):
    """How to make, break and clean up one adapter. Four methods are required; the rest has defaults."""

    lease_s: float = 0.5
    """The shortest lease, in seconds, that the adapter keeps on an idle machine.

    Where the machine is too slow for it, a check that keeps a lease is repeated with a longer one.
    """

    timeout_s: float = 30.0
    """Seconds that the suite waits, on a busy machine, for something that should happen at once."""

    wake_s: float = 0.5
    """Seconds within which who waits on an idle machine has what it waits for, once that is there (RCV-2).

    The suite wakes a few times, and demands that one of them is as fast: a poll behind a notification that
    doesn't arrive is slower each time, a busy machine only now and then.
    """

    secrets: tuple[str, ...] | None = ()
    """Passwords that :meth:`make` connects with, which must show up nowhere (SEC-3).

    None if it connects without any. The suite warns of an empty tuple, with which SEC-3 proves nothing.
    """

    virtual_time: bool = False
    """Whether the broker's clock stands still but for :meth:`advance`."""

    @classmethod
    def backend_name(cls) -> str:
        """What reports call the adapter: the class's name without ``Harness``."""
        return cls.__name__.removesuffix("Harness")

    @abstractmethod
    def make(self, namespace: str) -> OrchestratorBackend:
        """Connect a new client to ``namespace``; two clients of one namespace share its queues."""

    @abstractmethod
    def crash(self, consumer: ConsumerBackend) -> None:
        """Let ``consumer`` die as SIGKILL would: without settling, releasing or closing anything."""

    @abstractmethod
    def sever(self, backend: OrchestratorBackend) -> None:
        """Break every connection of ``backend`` and of its consumers, without telling them."""

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        """Have the broker carry out the next change that ``backend`` asks for, and lose the reply.

        The connection breaks with it. This is optional: without it, the suite can't see whether a request
        whose reply was lost is repeated blindly.

        Returns:
            Whether the reply will be lost; False, as here, if the harness can't do that.
        """
        return False

    def open_connection(self, backend: OrchestratorBackend) -> Any:
        """Open a caller's own connection to where the queues of ``backend`` are, in a transaction (PUB-7).

        It has the methods ``commit``, ``rollback`` and ``close``, as connections of Python's drivers have.
        An adapter with the capability ``transactional_publish`` needs this.
        """
        raise NotImplementedError(
            f"{type(backend).__name__} declares transactional_publish: define {type(self).__name__}"
            ".open_connection, so that the suite can prove it"
        )

    @abstractmethod
    def destroy(self, namespace: str) -> None:
        """Remove all that is left of ``namespace``; nobody is connected to it any more."""

    def close(self) -> None:  # noqa: B027 - most harnesses hold nothing
        """Give back what the harness itself holds, such as a server that it started: the suite is done."""

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on the broker's clock: by waiting, or by moving a clock that stands still."""
        time.sleep(seconds)

    def now(self) -> float:
        """Seconds on a clock that runs as the broker's does."""
        return time.monotonic()

    def redelivery_s(self, lease_s: float) -> float:
        """Seconds after a crash by which the jobs of a consumer that leased for ``lease_s`` are back."""
        return lease_s + 0.2
