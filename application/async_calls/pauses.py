"""Pauses for coroutines."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from ..orchestrator import Orchestrator
from ..pausing.records import Pause
from ..registry import QueueRef

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")


class AsyncPauseAdmin(ABC):
    """A base of :class:`AsyncOrchestrator`: its methods for pauses."""

    @abstractmethod
    async def _call(
        self,
        method: Callable[Concatenate[Orchestrator, P], AnswerT],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> AnswerT:
        """Call a method of the orchestrator in a thread."""

    async def pause(self, queue_name: QueueRef, reason: str | None = None) -> Pause:
        """Pause a queue: within a second no consumer starts another job; see :meth:`Orchestrator.pause`."""
        return await self._call(Orchestrator.pause, queue_name, reason)

    async def resume(self, queue_name: QueueRef) -> bool:
        """Let the consumers of a queue go on, within a second; return whether it was paused."""
        return await self._call(Orchestrator.resume, queue_name)

    async def paused(self, queue_name: QueueRef) -> Pause | None:
        """Say since when a queue is paused, and why; None if it isn't."""
        return await self._call(Orchestrator.paused, queue_name)
