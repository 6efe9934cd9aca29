"""What an orchestrator does with schedules: define them, and give access to them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel

from ...domain import JobSchema
from ...domain.errors import InvalidInput
from ...domain.model_types import InT
from ...ports import Observer, OrchestratorBackend
from ...ports.base_classes import Closeable
from ..registration.registry import QueueRef, SchemaRegistry

if TYPE_CHECKING:  # what is imported here takes long, and few use it
    from ...domain.schedule import Misfire
    from .record import Schedule
    from .schedules import Schedules


class ScheduleAdmin(Closeable):
    """A base of :class:`Orchestrator`: its methods for periodic jobs."""

    backend: OrchestratorBackend
    max_body_bytes: int
    schema_registry: SchemaRegistry
    observer: Observer | None
    has_scheduler = False
    """Whether a :class:`Scheduler` was made for this, so that none is missing."""

    @property
    def schedules(self) -> "Schedules":
        """The schedules of this backend: list, pause, resume, run and remove them.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
        """
        from .schedules import Schedules

        return Schedules(self)

    @overload
    def schedule(
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
    def schedule(
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
    def schedule(
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
        """Define a schedule: a job is published at each of its slots, by a :class:`Scheduler` in any process.

        The same definition again, for example by each worker that starts, changes nothing. Another definition
        of the same name takes its place: a pause stays. If its slots are others, those of the old one that
        are due are published as the old ``misfire`` says, and the slot after them is the first after now.

        Args:
            name: The schedule's name, unique in the backend's namespace: at most 100 characters.
            queue_name: A registered queue: its name or its schema.
            payload: The payload of each job, validated now; by default that of a model's defaults.
            cron: Five fields: minute, hour, day of month, month, day of week; see :class:`Cron`.
            every: In place of ``cron``: the distance between two slots, a second or more; see :class:`Every`.
            timezone: The time zone of ``cron``, such as ``"Europe/Vienna"``.
            misfire: What becomes of slots that passed while no scheduler ran: ``"skip"`` publishes none of
                them, ``"latest"`` the last, ``"all"`` each.
            grace_s: With ``"skip"``: how many seconds late a slot is still published.
            priority: 0 to 9, higher first, on a priority queue.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
            InvalidInput: a value is out of range, or not one of ``cron`` and ``every`` was given.
            InvalidPayload: the payload doesn't fit the schema.
            QueueNotFound: nothing was registered under this name.
            BodyTooLarge: the definition takes more than 60,000 bytes.
        """
        from ...domain.schedule import Cron, Every

        if cron is not None and every is None:
            when: Cron | Every = Cron(cron, timezone, misfire=misfire, grace_s=grace_s)
        elif every is not None and cron is None:
            if timezone != "UTC":
                raise InvalidInput(f"schedule {name!r}: timezone= goes with cron=, and every= needs none")
            when = Every(every, misfire=misfire, grace_s=grace_s)
        else:
            raise InvalidInput(f"schedule {name!r}: give either cron= or every=")
        return self.schedules.define(name, queue_name, payload, when, priority=priority)
