"""Cancels while workers or the server die: what was cancelled never runs, and all else does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from conditions import LIMIT_S, eventually
from mindtrace.jobs import CancelOutcome
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import ResultStatus

from ..coordinated_worker import CONCURRENCY, PLAIN
from .coordination import IN_FLIGHT, CoordinatedExperiment, server_of
from .matrix import NO_CANCEL, NO_PROCESSES, NO_SERVER, row

JOBS = 3 * CONCURRENCY


def end_all(experiment: CoordinatedExperiment) -> set[str]:
    """Wait until every job has ended, have the audit count the cancelled ones as dropped, and return them."""
    ids = sorted(experiment.audit.confirmed)
    results = experiment.jobs.backend.results
    eventually(lambda: len(results(PLAIN.name, ids)) == len(ids), "every job has ended")
    ended = results(PLAIN.name, ids).items()
    cancelled = {id_ for id_, result in ended if result.status is ResultStatus.CANCELLED}
    experiment.audit.dropped = len(cancelled)
    return cancelled


@row(
    "SIGKILL of a worker whose jobs are to be cancelled",
    "CAN-1",
    "CAN-2",
    "LSE-1",
    "I1",
    "I3",
    not_on=NO_PROCESSES,
)
def test_a_cancelled_job_of_a_dead_worker_runs_nowhere_else(coordinated: CoordinatedExperiment) -> None:
    coordinated.publish(PLAIN, ["a"] * JOBS)
    doomed = coordinated.start_worker(PLAIN)
    running = coordinated.wait_until_running(doomed, CONCURRENCY)
    others = coordinated.audit.confirmed - running
    wanted = [*sorted(running), *sorted(others)[:CONCURRENCY]]
    answers = coordinated.jobs.cancel_batch(PLAIN, wanted)
    assert set(answers[:CONCURRENCY]) == {CancelOutcome.REQUESTED}
    coordinated.kill(doomed)
    coordinated.start_worker(PLAIN).go()

    assert end_all(coordinated) == set(wanted)
    assert {run.job_id for run in coordinated.started.runs()} & set(wanted) == running
    assert coordinated.check(PLAIN).ran_again == 0


@row(
    "SIGKILL of the server while jobs are cancelled",
    "CAN-1",
    "CON-1",
    "I1",
    "I3",
    not_on=NO_SERVER | NO_CANCEL,
)
def test_what_was_cancelled_stays_so_when_the_server_dies(coordinated: CoordinatedExperiment) -> None:
    target = server_of(coordinated)
    coordinated.publish(PLAIN, ["a"] * 20)
    with cancelling(coordinated) as cancels:
        answered = lambda: cancels.answered(CancelOutcome.CANCELLED)  # noqa: E731
        eventually(answered, "some are cancelled while no worker is there that could be first")
        worker = coordinated.start_worker(PLAIN)
        worker.go()
        with coordinated.publishing(PLAIN, ["a"] * 20, publishers=2):
            for _ in range(2):
                coordinated.wait_until_run(IN_FLIGHT)
                coordinated.crash(target, [worker])
    cancelled = end_all(coordinated)
    assert not cancels.answered(CancelOutcome.UNKNOWN), "a confirmed job isn't known"
    assert answered() <= cancelled <= cancels.asked
    runs = coordinated.started.runs()
    excused = {id_ for fault in coordinated.audit.faults for id_ in fault.affected(runs)}
    assert not answered() & {run.job_id for run in runs} - excused
    coordinated.check(PLAIN)


class Cancels:
    """Which jobs were to be cancelled, and what was answered."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self._answers: dict[str, CancelOutcome] = {}

    def cancel_some(self, experiment: CoordinatedExperiment) -> None:
        """Cancel half of the jobs that were published last; those without an answer again."""
        ids = [job.id for job in list(experiment.published)[-20::2] if job.id not in self._answers]
        self.asked.update(ids)
        with suppress(BackendUnavailable):
            self._answers.update(zip(ids, experiment.jobs.cancel_batch(PLAIN, ids), strict=True))

    def answered(self, outcome: CancelOutcome) -> set[str]:
        """Return the jobs for which this was answered."""
        return {id_ for id_, answer in self._answers.items() if answer is outcome}


@contextmanager
def cancelling(experiment: CoordinatedExperiment) -> Iterator[Cancels]:
    """Cancel jobs all the time."""
    cancels, over = Cancels(), threading.Event()

    def cancel() -> None:
        while not over.wait(0.01):
            cancels.cancel_some(experiment)

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    try:
        yield cancels
    finally:
        over.set()
        thread.join(LIMIT_S)
