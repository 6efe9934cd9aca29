"""Publishes what a soak does beside its jobs, cancels some, defines a schedule, and pauses a queue."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindtrace.jobs import CancelOutcome, JobSchema, Orchestrator, PublishStatus, job_from_schema
from mindtrace.jobs.domain.errors import BackendUnavailable

from .coordinated import (
    CANCELLED,
    CHAINED,
    CROWDED,
    EVERY,
    KEYS,
    LIMITED,
    SCHEDULE,
    SCHEMAS,
    SINGLE,
    TICKS,
    UNIQUE,
    Keyed,
    Log,
)

_MOST_WAITING = 100
_CROWD = 150
"""How many jobs wait in the crowded queue."""
_CROWDED_S = 0.2
"""How long each of them takes."""
_PAUSED_S = 3.5
_DELAYS_S = (0.0, 0.0, 0.5, 2.0)
"""Of jobs that are cancelled: some wait then, some run, and some are done."""


class CoordinatedPublisher:
    """A part of the publisher: :meth:`step` is called all the time, and :meth:`end` at the end.

    Args:
        orchestrator: Where the queues are.
        folder: Where the log is.
        rng: What to choose by.
    """

    def __init__(self, orchestrator: Orchestrator, folder: Path, rng: random.Random) -> None:
        self._orchestrator, self._log, self._rng = orchestrator, Log(folder), rng
        self._paused_s: float | None = None
        self._next_pause_s = time.monotonic() + 5.0
        for schema in SCHEMAS:
            orchestrator.register(schema)
        first = orchestrator.schedule(SCHEDULE, TICKS, {}, every=EVERY, misfire="all").next_slot
        self._log.note("scheduled", TICKS.name, first.isoformat())

    def step(self) -> None:
        """Publish some jobs, and cancel half of those that are for that; pause or resume if it is time."""
        try:
            self._pause_or_resume()
            for schema in (LIMITED, SINGLE, UNIQUE, CHAINED):
                if self._orchestrator.count_queue_messages(schema.name) < _MOST_WAITING:
                    self._publish(schema)
            self._crowd()
            if self._orchestrator.backend.capabilities.cancel:
                self._cancel_half(self._publish(CANCELLED, self._rng.choice(_DELAYS_S)))
        except BackendUnavailable:
            pass

    def end(self) -> None:
        """End the pause, so that all jobs can run."""
        while self._paused_s is not None:
            self._paused_s = 0.0
            try:
                self._pause_or_resume()
            except BackendUnavailable:
                time.sleep(0.5)

    def _publish(self, schema: JobSchema[Any, Any], delay_s: float = 0.0) -> list[str]:
        """Publish a job of each key, and return the ids of those that were confirmed."""
        confirmed: list[str] = []
        for key in KEYS:
            job = job_from_schema(schema, Keyed(key=key, work_s=self._rng.choice((0.0, 0.005, 0.05))))
            outcome = self._orchestrator.publish_batch(job.schema_name, [job], delay_s=delay_s)[0].outcome
            if outcome.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE) and not outcome.standing:
                self._log.note("published", job.schema_name, job.id, key)
                confirmed.append(job.id)
        return confirmed

    def _crowd(self) -> None:
        """Have many more jobs wait for places than a consumer keeps."""
        missing = _CROWD - self._orchestrator.count_queue_messages(CROWDED.name)
        if missing < _CROWD // 5:
            return
        jobs = [
            job_from_schema(CROWDED, Keyed(key=self._rng.choice(KEYS), work_s=_CROWDED_S))
            for _ in range(missing)
        ]
        outcomes = [handle.outcome for handle in self._orchestrator.publish_batch(CROWDED.name, jobs)]
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE):
                self._log.note("published", CROWDED.name, job.id, job.payload.key)

    def _cancel_half(self, ids: Sequence[str]) -> None:
        for id_ in ids[::2]:
            self._log.note("asked", CANCELLED.name, id_)  # first: if no answer comes, it may be cancelled
            if self._orchestrator.cancel(CANCELLED, id_) is CancelOutcome.CANCELLED:
                self._log.note("cancelled", CANCELLED.name, id_)

    def _pause_or_resume(self) -> None:
        now = time.monotonic()
        if self._paused_s is not None:
            if now - self._paused_s >= _PAUSED_S:
                self._log.note("resumed", LIMITED.name)  # first: from here on a job may start
                self._orchestrator.resume(LIMITED.name)
                self._paused_s = None
        elif now >= self._next_pause_s:
            self._orchestrator.pause(LIMITED.name, "now and then")
            self._log.note("paused", LIMITED.name)
            self._paused_s = time.monotonic()
            self._next_pause_s = now + self._rng.uniform(8.0, 15.0)
