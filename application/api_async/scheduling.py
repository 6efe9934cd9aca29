"""Schedules from coroutines: as :class:`Schedules`, awaited."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel

from ...domain import JobSchema
from ...domain.model_types import InT
from ..api.orchestrator import Orchestrator
from ..registration.registry import QueueRef

if TYPE_CHECKING:
    from ...domain.schedule import Misfire
    from ..schedules.record import Schedule

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")


class Call(Protocol):
    """Calls a function with the orchestrator in a thread."""

    def __call__(self, method: Callable[[Orchestrator], AnswerT], /) -> Awaitable[AnswerT]:
        """Call it."""


class AsyncSchedules:
    """The schedules of a backend. Each method does what the one of :class:`Schedules` does, awaited."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def list(self) -> "tuple[Schedule, ...]":
        """Return all schedules, by name."""
        return await self._call(lambda orchestrator: orchestrator.schedules.list())

    async def pause(self, name: str) -> "Schedule":
        """Publish no more jobs of a schedule until :meth:`resume`."""
        return await self._call(lambda orchestrator: orchestrator.schedules.pause(name))

    async def resume(self, name: str) -> "Schedule":
        """End the pause of a schedule; see :meth:`Schedules.resume`."""
        return await self._call(lambda orchestrator: orchestrator.schedules.resume(name))

    async def run(self, name: str) -> str:
        """Publish a job of a schedule now, and return its id."""
        return await self._call(lambda orchestrator: orchestrator.schedules.run(name))

    async def remove(self, name: str) -> None:
        """Remove a schedule. Jobs that were published stay."""
        await self._call(lambda orchestrator: orchestrator.schedules.remove(name))


class AsyncScheduleAdmin(ABC):
    """The base of :class:`AsyncOrchestrator`: its methods for periodic jobs."""

    @abstractmethod
    async def _call(
        self,
        method: Callable[Concatenate[Orchestrator, P], AnswerT],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> AnswerT: ...

    @property
    def schedules(self) -> AsyncSchedules:
        """The schedules of this backend: list, pause, resume, run and remove them."""
        return AsyncSchedules(self._call)

    @overload
    async def schedule(
        self,
        name: str,
        queue_name: JobSchema[InT, Any],
        payload: InT | Mapping[str, Any] | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        timezone: str = "UTC",
        misfire: "Misfire" = "latest",
        grace_s: float = 60.0,
        priority: int | None = None,
    ) -> "Schedule": ...
    @overload
    async def schedule(
        self,
        name: str,
        queue_name: str,
        payload: BaseModel | Mapping[str, Any] | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        timezone: str = "UTC",
        misfire: "Misfire" = "latest",
        grace_s: float = 60.0,
        priority: int | None = None,
    ) -> "Schedule": ...
    async def schedule(
        self,
        name: str,
        queue_name: QueueRef,
        payload: BaseModel | Mapping[str, Any] | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        timezone: str = "UTC",
        misfire: "Misfire" = "latest",
        grace_s: float = 60.0,
        priority: int | None = None,
    ) -> "Schedule":
        """Define a schedule; see :meth:`Orchestrator.schedule`."""

        def define(orchestrator: Orchestrator) -> "Schedule":
            return orchestrator.schedule(
                name,
                queue_name,
                payload,
                cron=cron,
                every=every,
                timezone=timezone,
                misfire=misfire,
                grace_s=grace_s,
                priority=priority,
            )

        return await self._call(define)
