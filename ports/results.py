"""The port for results that a broker can't keep itself."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from .base import Closing
from .values import JobResult


class EndedJob(NamedTuple):
    """A job that ended, and for how many seconds to remember it."""

    id: str
    result: JobResult
    ttl_s: float


class ResultStore(Closing):
    """Keeps how jobs ended, beside a broker that has no place for it. Any thread may call any method.

    A store and a broker can't be changed in one step. Adapters store a result once its job is settled and
    never before (RES-2), so that a worker killed in between leaves a job that is done and has no result.
    They name a queue so that no other of theirs is called the same, whichever namespace it is in (CON-2).
    """

    @abstractmethod
    def put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        """Remember how jobs of ``queue`` ended, and wake whoever waits for one of them.

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    @abstractmethod
    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        """Say how a job ended, waiting up to ``timeout_s`` seconds for it to end (RES-1); None where unknown.

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    @abstractmethod
    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None:
        """Remember nothing of these jobs; of all of the queue's by default (ADM-3).

        Raises:
            BackendUnavailable: the store can't be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the store; again is a no-op."""
