"""Purges, deletions and listings while workers are at it."""

import random
import threading
import time

from conditions import LIMIT_S, eventually
from mindtrace.jobs.domain.errors import QueueNotFound
from mindtrace.jobs.ports import OrchestratorBackend

from ..recording_worker import REJECTED, SCHEMA
from .experiment import QUEUE, Experiment
from .matrix import row
from .server_targets import ServerTarget
from .targets import ThreadWorker


@row("20 purges while workers receive", "ADM-2", "ADM-3", "I1", "I2", "I4")
def test_what_a_purge_says_it_dropped_never_runs_and_the_rest_does_once(experiment: Experiment) -> None:
    experiment.publish(200)
    experiment.start_worker(prefetch=5)
    with experiment.producing():
        for _ in range(20):
            experiment.wait_until_run(10)
            time.sleep(random.uniform(0, 0.02))
            experiment.audit.dropped += experiment.backend.purge(QUEUE)
    experiment.publish(20)
    experiment.wait_until_drained()
    assert experiment.check().ran_again == 0
    assert experiment.audit.dropped


@row("a queue is deleted while its workers receive", "ADM-3", "LSE-4", "I1", "I2")
def test_nothing_of_a_deleted_queue_comes_back(experiment: Experiment) -> None:
    old = {job.id for job in experiment.publish(200)}
    worker = experiment.start_worker(prefetch=5, job_s=0.005)
    experiment.wait_until_run(20)
    experiment.backend.delete(QUEUE)
    eventually(lambda: worker.has_ended, "its worker gives up")
    if isinstance(worker, ThreadWorker):
        assert isinstance(worker.error, QueueNotFound)
        worker.error = None
    before = len(experiment.started)

    experiment.orchestrator.register(SCHEMA)
    experiment.audit.unconfirmed |= old
    experiment.audit.confirmed -= old
    experiment.publish(20)
    experiment.start_worker(prefetch=5)
    experiment.wait_until_drained()
    assert experiment.check().done == 20
    assert not {run.job_id for run in experiment.started.runs()[before:]} & old


@row("25 listings of dead letters, by two at once", "DLQ-1", "CON-1", "I1")
def test_dead_letters_stay_as_they_are_however_often_they_are_listed(experiment: Experiment) -> None:
    ids = [job.id for job in experiment.publish(30, note=REJECTED)]
    experiment.start_worker(prefetch=5)
    eventually(lambda: experiment.backend.counts(QUEUE).dead == 30, "all are dead")
    listed: list[list[str]] = []

    def read(backend: OrchestratorBackend, times: int) -> None:
        for turn in range(times):
            offset = turn % 10
            letters = backend.dead_letters(QUEUE, offset=offset)
            listed.append(ids[:offset] + [letter.id for letter in letters])

    with experiment.target.client(experiment.namespace) as other:
        beside = threading.Thread(target=read, args=(other, 13))
        beside.start()
        read(experiment.backend, 6)
        if isinstance(experiment.target, ServerTarget):
            experiment.target.close_connections()
        read(experiment.backend, 6)
        beside.join(LIMIT_S)
    assert listed == [ids] * 25
    assert experiment.check(dead=30).ran_again == 0
