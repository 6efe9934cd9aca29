"""What the handles of published jobs have in common, sync or not."""

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol

from ...domain.errors import JobsError
from ...domain.model_types import OutCo
from ...ports import PublishOutcome, PublishStatus
from ..checks.await_misuse import awaited
from ..failures.raised_errors import own_copy, rejection
from ..registration.registry import QueueRef


class HandleQueue(Protocol):
    """What a handle shows of its queue, which is a ``JobQueue`` or an ``AsyncJobQueue``."""

    ref: QueueRef
    """What names the queue to its orchestrator: its schema, or its name."""

    @property
    def name(self) -> str:
        """The name of the queue."""

    @property
    def orchestrator(self) -> object:
        """The orchestrator that made it."""


class ReadResult(NamedTuple):
    """What a caller gets for a job: what its handler returned, or the error in place of that."""

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        """Return the value, or raise the error; as often as it is asked."""
        if self.error is not None:
            raise own_copy(self.error)
        return self.value


class AnyHandle(Generic[OutCo]):
    """A job that was published: its id and its queue."""

    __slots__ = ("__weakref__", "_outcome", "_result", "id", "queue")

    def __init__(
        self,
        queue: HandleQueue,
        job_id: str,
        outcome: PublishOutcome | None = None,
    ) -> None:
        self.queue = queue
        """The queue of the job."""
        self.id = job_id
        """The job's id (PUB-2)."""
        self._outcome = outcome
        self._result: ReadResult | None = None

    def keep(self, result: ReadResult) -> None:
        """Remember how the job ended."""
        self._result = result

    def known_result(self) -> ReadResult | None:
        """Return how the job ended, if that is known without asking: also that it was never published."""
        if (error := self._rejection()) is not None:
            return ReadResult(error=error)
        return self._result

    def published_id(self) -> str:
        """Return the job's id.

        Raises:
            JobsError: the job was rejected; the error of its outcome.
        """
        if (error := self._rejection()) is not None:
            raise own_copy(error)
        return self.id

    def _rejection(self) -> JobsError | None:
        outcome = self._outcome
        if outcome is None or outcome.status is not PublishStatus.REJECTED:
            return None
        return rejection(outcome)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.queue.name!r}, {self.id!r})"


class AsyncHandle(AnyHandle[OutCo]):
    """The base of handles for coroutines."""

    __slots__ = ()


class Handle(AnyHandle[OutCo]):
    """The base of handles whose methods block."""

    __slots__ = ()

    if not TYPE_CHECKING:  # which refuse to await it

        def __await__(self) -> NoReturn:
            raise awaited("publish", f"job {self.id}")
