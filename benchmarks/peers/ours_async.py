"""This project's ``AsyncOrchestrator``, as docs/fastapi.md shows it."""

from mindtrace.jobs import AsyncOrchestrator, JobSchema

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, PLACE, About, Peer
from .ours import EXTRAS, SETTINGS, Work

SCHEMA = JobSchema(name=PLACE.queue or "bench", input=Work)


class Measured(Peer):
    about = About(
        "this project, async",
        AT_LEAST_ONCE,
        SETTINGS[PLACE.broker],
        ("mindtrace-jobs", "pydantic", *EXTRAS.get(PLACE.broker, ())),
    )

    async def open(self) -> None:
        self.orchestrator = AsyncOrchestrator(PLACE.url)
        await self.orchestrator.register(SCHEMA)

    async def send(self, kind: str) -> None:
        await self.orchestrator.publish(SCHEMA, Work(kind=kind, x=jobs.X, y=jobs.Y))

    async def publish(self, x: float, y: float) -> str:
        return await self.orchestrator.publish(SCHEMA, Work(kind="no_op", x=x, y=y))

    async def close(self) -> None:
        await self.orchestrator.close()
