"""The dead jobs of a queue in memory."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

from ...ports import Dead, DeadLetter
from .order import StoredJob


class DeadLetters(dict[str, tuple[StoredJob, DeadLetter]]):
    """The dead jobs and their letters by id, oldest first. The caller holds the queue's lock."""

    def add(self, job: StoredJob, dead: Dead, now: float) -> None:
        """Keep a job that died just now."""
        letter = DeadLetter(
            id=job.id,
            body=job.body,
            reason=dead.reason,
            error=dead.error,
            attempt=job.attempt,
            crashes=job.crashes,
            died_at=datetime.fromtimestamp(now, UTC),
            history=job.history,
        )
        self[job.id] = (job, letter)

    def page(self, limit: int, offset: int) -> list[DeadLetter]:
        """List some of the letters."""
        return [letter for _, letter in islice(self.values(), offset, offset + limit)]

    def take(self, ids: Iterable[str] | None) -> list[StoredJob]:
        """Remove the jobs of these ids, or all, and return them."""
        wanted = list(self) if ids is None else [id_ for id_ in dict.fromkeys(ids) if id_ in self]
        return [self.pop(id_)[0] for id_ in wanted]
