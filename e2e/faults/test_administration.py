"""Purges, deletions and listings while workers are at it."""

import random
import threading
import time

from mindtrace.jobs.domain.errors import QueueNotFound
from mindtrace.jobs.ports import OrchestratorBackend

from ..worker import REJECTED, SCHEMA
from ..workers import eventually
from .rigs import LIMIT_S, ServerRig, ThreadWorker
from .table import row
from .trial import QUEUE, Trial


@row("20 purges while workers receive", "ADM-2", "ADM-3", "I1", "I2", "I4")
def test_what_a_purge_says_it_dropped_never_runs_and_the_rest_does_once(trial: Trial) -> None:
    trial.publish(200)
    trial.start_worker(prefetch=5)
    with trial.producing():
        for _ in range(20):
            trial.ran(10)
            time.sleep(random.uniform(0, 0.02))
            trial.account.dropped += trial.backend.purge(QUEUE)
    trial.publish(20)
    trial.expect_worked_off()
    assert trial.check().ran_again == 0
    assert trial.account.dropped


@row("a queue is deleted while its workers receive", "ADM-3", "LSE-4", "I1", "I2")
def test_nothing_of_a_deleted_queue_comes_back(trial: Trial) -> None:
    old = {job.id for job in trial.publish(200)}
    worker = trial.start_worker(prefetch=5, job_s=0.005)
    trial.ran(20)
    trial.backend.delete(QUEUE)
    eventually(lambda: worker.has_ended, LIMIT_S, "its worker gives up")
    if isinstance(worker, ThreadWorker):
        assert isinstance(worker.error, QueueNotFound)
        worker.error = None
    before = len(trial.started)

    trial.orchestrator.register(SCHEMA)
    trial.account.unconfirmed |= old
    trial.account.confirmed -= old
    trial.publish(20)
    trial.start_worker(prefetch=5)
    trial.expect_worked_off()
    assert trial.check().done == 20
    assert not {run.job_id for run in trial.started.runs()[before:]} & old


@row("25 listings of dead letters, by two at once", "DLQ-1", "CON-1", "I1")
def test_dead_letters_stay_as_they_are_however_often_they_are_listed(trial: Trial) -> None:
    ids = [job.id for job in trial.publish(30, note=REJECTED)]
    trial.start_worker(prefetch=5)
    eventually(lambda: trial.backend.counts(QUEUE).dead == 30, LIMIT_S, "all are dead")
    listed: list[list[str]] = []

    def read(backend: OrchestratorBackend, times: int) -> None:
        for turn in range(times):
            offset = turn % 10
            letters = backend.dead_letters(QUEUE, offset=offset)
            listed.append(ids[:offset] + [letter.id for letter in letters])

    with trial.rig.client(trial.namespace) as other:
        beside = threading.Thread(target=read, args=(other, 13))
        beside.start()
        read(trial.backend, 6)
        if isinstance(trial.rig, ServerRig):
            trial.rig.cut()
        read(trial.backend, 6)
        beside.join(LIMIT_S)
    assert listed == [ids] * 25
    assert trial.check(dead=30).ran_again == 0
