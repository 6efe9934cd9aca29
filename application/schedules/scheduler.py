"""The scheduler: publishes the jobs of schedules when they are due, beside any number of others."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ...domain.errors import BackendUnavailable, Closed, InvalidInput, JobsError
from ...domain.wording import quantity
from ...ports import Guard, OrchestratorBackend, PublishStatus, Record, SlotOutcome
from ..broker.guarded_publish import publish_guarded
from ..consuming.outages import RECONNECT
from ..consuming.stop_request import StopRequest
from .record import PREFIX, Schedule, decode, encode, make_message, moment

if TYPE_CHECKING:
    from .admin import ScheduleAdmin

_CLOSE_S = 5.0
_CATCH_UP_S = 0.5
"""For how long slots that were missed are published before all schedules are looked at again."""
_LOGGER = logging.getLogger("mindtrace.jobs.scheduler")


class Scheduler:
    """Publishes the jobs of all schedules of an orchestrator's backend when they are due.

    Any number of schedulers may run, in any processes: each slot is published once (CRD-4). RabbitMQ with a
    store of another system may publish a slot again, once in 30 seconds, if a scheduler dies or stands still
    in the midst of it, or while the broker confirms nothing. A slot is never published early, by the clock of
    the store. If the store is away, no job is published, and the scheduler waits for it.

    :meth:`run` publishes until :meth:`stop`. As a context manager it does so on a thread::

        with Scheduler(orchestrator):
            consumer.consume()

    Args:
        orchestrator: Whose schedules to run. It needs no schema of their jobs.
        logger: Where it tells what it publishes.
        poll_s: How soon it notices schedules that others define or change, in seconds.

    Raises:
        UnsupportedCapability: the backend has no coordination store.
        InvalidInput: ``orchestrator`` is none.
    """

    def __init__(
        self, orchestrator: "ScheduleAdmin", *, logger: logging.Logger = _LOGGER, poll_s: float = 1.0
    ) -> None:
        if not isinstance(getattr(orchestrator, "backend", None), OrchestratorBackend):
            raise InvalidInput(
                f"Scheduler({orchestrator!r:.80}): pass an Orchestrator, as in Scheduler(Orchestrator(url))"
            )
        orchestrator.backend.capabilities.require_coordination("schedules need")
        orchestrator.has_scheduler = True
        self._backend = orchestrator.backend
        self._max_body_bytes = orchestrator.max_body_bytes
        self._observer = orchestrator.observer
        self._logger = logger
        self._poll_s = poll_s
        self._stopping = StopRequest(lambda: None)
        self._failures = 0
        """How many passes have failed in a row."""
        self._failure: str | None = None
        """Why the last one did, if it failed."""
        self._problems: dict[str, str] = {}
        """By key, why a schedule can't be run."""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, name="mindtrace-jobs-scheduler", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Stop, and wait for the slot that is being published, for 5 seconds at most."""
        self.stop()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def stop(self) -> None:
        """Make :meth:`run` return after the slot that it is publishing. Any thread may call this."""
        self._stopping.set()

    def run(self) -> None:
        """Publish what is due until :meth:`stop`, or until the backend is closed."""
        try:
            self._run_passes()
        except Closed:
            self._logger.warning("the scheduler ends: its backend was closed")
        finally:
            self._stopping.clear()

    def _run_passes(self) -> None:
        while not self._stopping.is_set:
            self._stopping.wait(self._try_pass())

    def _try_pass(self) -> float:
        """Publish what is due now, and return in how many seconds to look again."""
        try:
            wait_s = self._pass()
        except Closed:
            raise
        except Exception as error:  # each pass begins with what the store says, so another may succeed
            self._failures += 1
            self._tell_failure(error)
            return RECONNECT.delay_s(self._failures)
        if self._failures:
            tries = quantity(self._failures, "try", "tries")
            self._logger.warning("schedules: backend is back after %s", tries)
            self._failures = 0
            self._failure = None
        return wait_s

    def _pass(self) -> float:
        store = self._backend.coordination
        now = moment(store.now())  # first: what is read later is at least as new
        records = store.scan(PREFIX)
        self._problems = {key: why for key, why in self._problems.items() if key in records}
        wait_s, behind = self._run_due(records, now)
        give_up_s = monotonic() + _CATCH_UP_S
        while behind and monotonic() < give_up_s:  # these alone: to read all for each slot takes long
            _, behind = self._run_due(store.get(behind), now)
        return wait_s

    def _run_due(self, records: Mapping[str, Record], now: datetime) -> tuple[float, list[str]]:
        """Publish a slot of each schedule that is due.

        Returns:
            In how many seconds to look again, and which schedules have further slots that are due.
        """
        wait_s, behind = self._poll_s, []
        for key, record in records.items():
            if self._stopping.is_set:
                return wait_s, []
            queue = ""
            try:
                schedule = decode(key, record.value)
                queue = schedule.queue
                if schedule.paused:
                    continue
                if schedule.next_slot > now:
                    wait_s = min(wait_s, (schedule.next_slot - now).total_seconds())
                elif self._advance(key, record, schedule, now):
                    wait_s = 0.0
                    if schedule.when.misfire == "all":
                        behind.append(key)
            except (BackendUnavailable, Closed):
                raise
            except Exception as error:  # of this schedule: the others go on
                self._tell(key, error)
                self._observe(queue, SlotOutcome.FAILED)
            else:
                self._problems.pop(key, None)
        return wait_s, behind

    def _advance(self, key: str, record: Record, schedule: Schedule, now: datetime) -> bool:
        """Publish the slot of a schedule that is due, and move it on; say whether this scheduler did so."""
        slot, following = schedule.due(now)
        if slot is None:
            skipping = encode(replace(schedule, next_slot=following))
            if self._backend.coordination.put(key, skipping, expected=record.version) is None:
                return False
            since = schedule.next_slot.isoformat()
            self._logger.warning("schedule %s: skipped the slots since %s", schedule.name, since)
            self._observe(schedule.queue, SlotOutcome.MISSED)
            return True
        message = make_message(schedule, slot, now, max_bytes=self._max_body_bytes)
        moved = encode(replace(schedule, next_slot=following, last_slot=slot))
        guard = Guard(key, record.version, moved)
        outcome = publish_guarded(self._backend, schedule.queue, message, guard, keeps_doubt=True)
        if outcome is None:  # another scheduler was first, or somebody changed the schedule
            return False
        if outcome.status is PublishStatus.REJECTED:
            raise outcome.error or JobsError(f"job {message.id} was rejected by the backend")
        if outcome.status is PublishStatus.UNKNOWN:
            self._logger.warning(
                "schedule %s: it isn't known whether its slot %s was published; the store will tell",
                schedule.name,
                slot.isoformat(),
            )
            return False
        if not self._backend.capabilities.guarded_publish:
            self._move_on(key, slot)
        self._log_published(schedule, slot, message.id, (now - slot).total_seconds())
        if slot > schedule.next_slot:
            self._observe(schedule.queue, SlotOutcome.MISSED)
        self._observe(schedule.queue, SlotOutcome.PUBLISHED)
        return True

    def _move_on(self, key: str, slot: datetime) -> None:
        """Move a schedule on that somebody changed while its slot was published, or the slot had two jobs."""
        store = self._backend.coordination
        while (record := store.get([key]).get(key)) is not None:
            schedule = decode(key, record.value)
            if schedule.next_slot > slot:
                return
            moved = replace(schedule, next_slot=schedule.slot_after(slot), last_slot=slot)
            if store.put(key, encode(moved), expected=record.version) is not None:
                return

    def _observe(self, queue: str, outcome: SlotOutcome) -> None:
        if self._observer is not None:
            self._observer.slot(queue, outcome)

    def _log_published(self, schedule: Schedule, slot: datetime, job_id: str, late_s: float) -> None:
        self._logger.info(
            "schedule %s: published its slot %s as job %s of %s, %.3f s late",
            schedule.name,
            slot.isoformat(),
            job_id,
            schedule.queue,
            late_s,
            extra={
                "job": {
                    "id": job_id,
                    "queue": schedule.queue,
                    "schedule": schedule.name,
                    "slot": slot.isoformat(),
                    "late_s": round(late_s, 6),
                }
            },
        )

    def _tell_failure(self, error: Exception) -> None:
        """Log why a pass failed, once for as long as it stays so."""
        is_away = isinstance(error, BackendUnavailable)
        failure = "away" if is_away else f"{type(error).__name__}: {error}"
        if failure == self._failure:
            return
        self._failure = failure
        if is_away:
            self._logger.warning("schedules: backend unavailable, retrying until it is back: %s", error)
        elif isinstance(error, JobsError):
            self._logger.error("the scheduler failed, and tries again: %s", error)
        else:
            self._logger.error("the scheduler failed, and tries again", exc_info=error)

    def _tell(self, key: str, error: Exception) -> None:
        """Log why a schedule can't be run, once for as long as it stays so."""
        is_ours = isinstance(error, JobsError)
        problem = str(error) if is_ours else f"{type(error).__name__}: {error}"
        if self._problems.get(key) != problem:
            self._problems[key] = problem
            name, traceback = key.removeprefix(PREFIX), None if is_ours else error
            self._logger.error("schedule %s can't be run: %s", name, problem, exc_info=traceback)
