"""The ``BatchConsumer``: the base class of handlers that run many jobs in one call."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeAlias, Union, final

from ...domain import Job
from ...domain.batch_outcomes import Dead, Done, Retry
from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.errors import HandlerMissing, InvalidInput, UsageError
from ...domain.model_types import Answer, InT, OutT
from ...domain.then import Then
from ...ports import ConsumerBackend
from ..checks.consumer_checks import check_batch
from ..checks.handler_signature import check_handler, check_takes_job
from ..consuming.batch_executor import BatchExecutor
from ..consuming.batch_loop import BatchLoop
from ..consuming.executor import Executor
from ..consuming.loop import ConsumeLoop
from ..consuming.loop_factory import LoopSettings
from .consumer import Consumer
from .orchestrator import Orchestrator

JobOutcome: TypeAlias = Union[  # noqa: UP007
    OutT, Mapping[str, Any], Done[OutT], Then[OutT], Retry, Dead, Exception, None
]
"""What a handler of batches says of one job. An exception is what it would raise for that job alone."""
Outcomes: TypeAlias = Union[Sequence[JobOutcome[OutT]], Mapping[str, JobOutcome[OutT]]]  # noqa: UP007
BatchAnswer: TypeAlias = Union[Outcomes[OutT], Awaitable[Outcomes[OutT]]]  # noqa: UP007
"""What a handler of batches returns: one outcome for each job, in their order or by their ids."""


class BatchConsumer(Consumer[InT, OutT], Generic[InT, OutT]):
    """Runs the jobs of one schema in batches, for example on a GPU. Subclass it and define ``run_batch``.

    A batch has up to ``batch_size`` jobs: those that came within ``batch_wait_s`` seconds after its first.
    A full batch starts at once. ``run_batch`` may be an ``async def``. A consumer runs one batch at a time.

    If memory runs out, in Python or on the GPU, the batch is run in halves, and no attempt is spent. A job
    that was with two workers which died runs alone, in a batch of one, since it may have killed them. All
    else is as with :class:`Consumer`: retries, dead letters, results, leases, stopping.

    Args:
        job_type_name: As for :class:`Consumer`.

    Raises:
        HandlerMissing: the class doesn't define ``run_batch``, or defines ``run``.
        InvalidName: as for :class:`Consumer`.
        InvalidInput: likewise.
    """

    batch_size: ClassVar[int] = 32
    """How many jobs a batch has at most, unless ``connect`` is told otherwise; 1 to 10,000."""
    batch_wait_s: ClassVar[float] = 0.1
    """How many seconds a batch that isn't full waits for more jobs, unless ``connect`` is told otherwise."""

    _executor_class = BatchExecutor
    _wait_s = 0.0

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse a class without a usable ``run_batch``."""
        if cls.run is not BatchConsumer.run:
            raise HandlerMissing(f"{cls.__name__} runs batches: define run_batch(self, jobs) in place of run")
        check_handler(cls, "run_batch", what="jobs")
        made = super().__new__(cls, *args, **kwargs)
        check_takes_job(f"{cls.__name__}.run_batch", made.run_batch, what="jobs")
        return made

    @abstractmethod
    def run_batch(self, jobs: Sequence[Job[InT]]) -> BatchAnswer[OutT]:
        """Do the work of ``jobs``, and return one outcome for each: a list in their order, or a dict by id.

        If this raises, all jobs are retried by the retry policy, each with its own attempts. ``RetryLater``
        and ``Reject`` then apply to all. If it returns anything but one outcome for each, all are dead.

        Args:
            jobs: A tuple of at least one; each payload is a validated instance of the schema's input model.

        Returns:
            For each job its result, which is an instance of the output model, a dict that validates as one,
            or None; or :class:`Done`, :class:`Then`, :class:`Retry` or :class:`Dead`; or an exception, which
            counts as if it had been raised for that job alone.
        """

    @final
    def run(self, job: Job[InT]) -> Answer[OutT]:
        """Refuse: a handler of batches runs no single job.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{type(self).__name__} runs batches: call run_batch([job])")

    def connect(
        self,
        orchestrator: Orchestrator,
        *,
        batch_size: int | None = None,
        batch_wait_s: float | None = None,
        concurrency: int | None = None,
        lease_s: float = DEFAULT_LEASE_S,
        prefetch: int | None = None,
        poll_timeout_s: float = 5.0,
        timeout_s: float | None = None,
    ) -> None:
        """Connect to the orchestrator's backend, as :meth:`Consumer.connect`.

        Args:
            orchestrator: As for :class:`Consumer`.
            batch_size: How many jobs a batch has at most, 1 to 10,000; None is the class's ``batch_size``.
            batch_wait_s: How many seconds a batch waits for more jobs after its first; None is the class's
                ``batch_wait_s``.
            concurrency: 1 or None: a consumer runs one batch at a time.
            lease_s: As for :class:`Consumer`. Leases are also extended while a batch is collected.
            prefetch: No effect: a consumer takes the jobs of one batch at once.
            poll_timeout_s: As for :class:`Consumer`; it is the wait for the first job of a batch.
            timeout_s: As for :class:`Consumer`; it limits each call of ``run_batch``. Where jobs of a batch
                have their own, the shortest counts for all.

        Raises:
            InvalidInput: a setting is out of range, or ``concurrency`` is more than 1.
        """
        size = self.batch_size if batch_size is None else batch_size
        wait_s = self.batch_wait_s if batch_wait_s is None else batch_wait_s
        check_batch(size, wait_s)
        if (self.concurrency if concurrency is None else concurrency) != 1:
            raise InvalidInput(
                f"{type(self).__name__} runs one batch at a time: leave concurrency at 1, and use a larger "
                "batch_size or more processes"
            )
        self._size, self._wait_s = size, wait_s
        super().connect(
            orchestrator,
            concurrency=1,
            lease_s=lease_s,
            prefetch=size,
            poll_timeout_s=poll_timeout_s,
            timeout_s=timeout_s,
        )

    def is_lost(self, job: Job[InT]) -> bool:
        """Whether the lease of ``job``, of the running batch, was lost; ``lease_lost`` tells of any (LSE-4).

        Any thread may ask.
        """
        loop = None if self._connection is None else self._connection.loop
        return isinstance(loop, BatchLoop) and loop.is_lost(job.id)

    def is_cancelled(self, job: Job[InT]) -> bool:
        """Whether ``job``, of the running batch, is to be cancelled; ``cancelled`` tells of any (CAN-2).

        Unless its outcome is a result or :class:`Done`, it ends as cancelled. Any thread may ask.
        """
        loop = None if self._connection is None else self._connection.loop
        return isinstance(loop, BatchLoop) and loop.is_cancelled(job.id)

    def _bound_handler(self) -> Callable[[Any], Any]:
        return self.run_batch

    def _make_loop(self, backend: ConsumerBackend, executor: Executor, settings: LoopSettings) -> ConsumeLoop:
        assert isinstance(executor, BatchExecutor)  # noqa: S101 - as `_executor_class` says
        return BatchLoop(
            settings.queue,
            backend,
            executor,
            batch_size=self._size,
            wait_s=self._wait_s,
            logger=settings.logger,
            observer=settings.observer,
            permits=settings.permits,
            hooks=settings.hooks,
        )
