"""The base class of a harness: how the suite makes and breaks one adapter."""

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
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

    def count_stored(self, backend: OrchestratorBackend) -> int | None:
        """Count what the broker stores for the namespace of ``backend``, such as rows, or keys and fields.

        Whatever is counted, it must not add up while jobs come and go (CON-2). This is optional.

        Returns:
            The number; None, as here, if the harness can't tell.
        """
        return None

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        """Break the connection just as ``backend`` asks for its next change, which never reaches the broker.

        The client learns no more than by :meth:`cut_reply`: it has sent a request, and the connection broke.
        This is optional: without it, the suite can't see whether what never arrived is answered as done.

        Returns:
            Whether the request will be lost; False, as here, if the harness can't do that.
        """
        return False

    def cut_off(self, backend: OrchestratorBackend) -> AbstractContextManager[object] | None:
        """Keep ``backend`` and its consumers away from the broker while the context is open.

        Each of their calls is to give up within about a second, so shorten what the adapter retries for. This
        is optional: without it, the suite can't see what a call answers that gave up.

        Returns:
            The context; None, as here, if the harness can't do that.
        """
        return None

    def refuse(self, backend: OrchestratorBackend) -> AbstractContextManager[object] | None:
        """Have the broker refuse whatever ``backend`` asks it to write while the context is open.

        A broker does so that is full or read-only: it answers, and keeps nothing. Calls that only read, and
        those that only remove, may be answered as always. This is optional: without it, the suite can't see
        whether a refusal is taken for a confirm.

        Returns:
            The context; None, as here, if the harness can't do that.
        """
        return None

    def open_connection(self, backend: OrchestratorBackend) -> Any:
        """Open a caller's own connection to where the queues of ``backend`` are, in a transaction (PUB-7).

        It has the methods ``commit``, ``rollback`` and ``close``, as connections of Python's drivers have.
        An adapter with the capability ``transactional_publish`` needs this.
        """
        raise NotImplementedError(
            f"{type(backend).__name__} declares transactional_publish: define {type(self).__name__}"
            ".open_connection, so that the suite can prove it"
        )

    def make_without_polling(self, namespace: str) -> OrchestratorBackend | None:
        """Connect a client as :meth:`make` does, whose consumers and callers never look by themselves.

        While they wait, they look when they are woken, and at the moment of a delay or a lease that they know
        of. A poll that comes once an hour is as good as none. If the adapter looks again soon after a wait
        began, that goes, too. This is optional: without it, the suite can't see a lost wake-up that a poll
        makes up for.

        Returns:
            The client; None, as here, if the harness can't do that.
        """
        return None

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
