"""Runs handlers and moves the clock, from one event to the next."""

from collections.abc import Generator
from math import inf
from typing import NamedTuple, TypeAlias

from ..application.api.consumer import Consumer
from ..application.api.orchestrator import Orchestrator
from ..application.schedules.scheduler import Scheduler
from ..domain.envelope import open_envelope
from ..domain.errors import UsageError
from .backend import KitClient
from .history import History
from .virtual_clock import VirtualClock
from .workers import Worker

_MOVES = 10_000
"""After how many moves of the clock without a job that runs none is awaited any more."""
_LOOK_S = 1.0
"""How far the clock is moved if a job is ready, can't be taken, and nobody has said until when."""


class Run(NamedTuple):
    """A request to run the jobs of a consumer that are ready, and no more than ``most``."""

    consumer: Consumer
    most: int


Runs: TypeAlias = Generator[Run, int, int]
"""Requests one run after the other, gets how many attempts each made, and returns how many all made. So the
same steps serve a caller that blocks and one that awaits."""


class KitScheduler(Scheduler):
    """Publishes the jobs of schedules when a test says so, by the kit's clock.

    Args:
        orchestrator: Whose schedules to run.
        history: Where published jobs are noted.
    """

    def __init__(self, orchestrator: Orchestrator, history: History) -> None:
        super().__init__(orchestrator)
        self._orchestrator = orchestrator
        self._history = history

    def tick(self) -> int:
        """Publish the jobs of all slots that are due now, and return how many.

        ``drain`` and ``advance`` of the kit do so at each moment at which they stop.

        Raises:
            JobsError: a schedule can't be run; the message says why.
        """
        before = len(self._history.published)
        while self._pass() == 0.0:
            pass
        return len(self._history.published) - before

    def next_slot_s(self) -> float:
        """Return when the next slot is due, in seconds since 1970; infinity if no schedule runs."""
        slots = (each.next_slot for each in self._orchestrator.schedules.list() if not each.paused)
        return min((slot.timestamp() for slot in slots), default=inf)

    def _tell(self, key: str, error: Exception) -> None:
        """Fail the test, where a scheduler in a worker would log the error and go on."""
        raise error


class Drive:
    """Decides what runs next, and where the clock stops next.

    Args:
        orchestrator: The kit.
        client: Its backend.
        clock: Its clock.
        scheduler: Publishes the jobs of its schedules.
        history: Knows what happened to jobs.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        client: KitClient,
        clock: VirtualClock,
        scheduler: KitScheduler,
        history: History,
    ) -> None:
        self._orchestrator = orchestrator
        self._history = history
        self._client = client
        self._clock = clock
        self._scheduler = scheduler
        self.workers: list[Worker] = []

    def drain(self, most: int) -> Runs:
        """Run jobs, and move the clock on, until no job of a connected handler waits."""
        if not self.workers:
            raise UsageError(
                "drain() has no handler to run: connect one first, as in jobs.connect(Inspector)"
            )
        ran = yield from self._run_ready(most)
        idle_moves = 0
        while (moment_s := self._next_moment()) < inf:
            self._clock.move_to(min(moment_s, self._scheduler.next_slot_s()))
            ran_now = yield from self._run_ready(most - ran)
            ran += ran_now
            idle_moves = 0 if ran_now else idle_moves + 1
            if idle_moves > _MOVES:
                raise UsageError(f"drain() waits for ever: {self._waiting()}")
        return ran

    def advance(self, seconds: float, most: int) -> Runs:
        """Move the clock on by ``seconds``, and run on the way what becomes due."""
        until_s = self._clock.now() + seconds
        ran = yield from self._run_ready(most)
        while self._clock.now() < until_s:
            self._clock.move_to(min(self._next_moment(), self._scheduler.next_slot_s(), until_s))
            ran += yield from self._run_ready(most - ran)
        return ran

    def _run_ready(self, most: int) -> Runs:
        """Run what is ready now, and what that publishes, until nothing is."""
        ran = 0
        while True:
            self._scheduler.tick()
            before = ran
            for worker in self.workers:
                if not self._is_ready(worker.queue):
                    continue  # to start and stop a consumer takes a millisecond
                if (left := most - ran) <= 0:
                    raise UsageError(
                        f"max_attempts are over, and jobs still wait: {self._waiting()}; if so many are "
                        "meant, pass a greater max_attempts"
                    )
                ran += yield Run(worker.consumer, left)
                worker.restart_if_dead()
            if ran == before:
                return ran

    def _next_moment(self) -> float:
        """Return when a job that waits may go on at the earliest; infinity if none waits."""
        moments = [self._client.next_event(worker.queue) for worker in self.workers]
        store_s = self._client.store.next_change()
        for worker in self.workers:
            if self._is_ready(worker.queue):  # no job has its place or its turn, and a run gives them back
                moments.append(store_s if store_s < inf else self._clock.now() + _LOOK_S)
        return min(moments, default=inf)

    def _is_ready(self, queue: str) -> bool:
        return self._client.counts(queue).ready > 0 and self._orchestrator.paused(queue) is None

    def _waiting(self) -> str:
        """Say what waits in the queues of the connected handlers."""
        said = []
        for queue in dict.fromkeys(worker.queue for worker in self.workers):
            counts = self._client.counts(queue)
            states = f"{counts.ready} ready, {counts.delayed} delayed and {counts.in_flight} leased jobs"
            said.append(f"queue {queue} has {states}{self._first(queue)}")
        return "; ".join(said)

    def _first(self, queue: str) -> str:
        """Say which job is the next of a queue, and what happened to it last."""
        if (body := self._client.first_ready(queue)) is None:
            delayed = self._client.waits_for_clock(queue)
            return "" if delayed is None else f", first {delayed}"
        job_id = open_envelope(body).id
        events = self._history.of(job_id)
        last = f" ({events[-1]})" if events else ""
        return f", first job {job_id}{last}"
