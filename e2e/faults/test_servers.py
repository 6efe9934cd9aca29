"""Brokers that die, restart, run full, forget, or close the connections of all."""

import time
from functools import partial
from pathlib import Path

import pytest

from mindtrace.jobs import Orchestrator, PublishStatus
from mindtrace.jobs.domain.errors import BackendError, BrokerUnsuitable

from ..worker import REJECTED, SCHEMA
from ..workers import eventually
from .rigs import LIMIT_S, ProcessRig, RedisRig, Rig, ServerRig
from .table import NO_LIMIT, NO_SERVER, ONLY_REDIS, row
from .trial import PATIENCE_S, QUEUE, Trial


def server_of(trial: Trial) -> ServerRig:
    rig: Rig = trial.rig
    assert isinstance(rig, ServerRig)
    return rig


@row("SIGKILL of a broker that syncs", "PUB-1", "CON-1", "DLQ-4", "I1", "I3", "I8", not_on=NO_SERVER)
def test_what_was_confirmed_survives_the_death_of_the_broker(trial: Trial) -> None:
    rig, lease_s = server_of(trial), 6.0
    rig.settle_in()
    trial.publish(5, note=REJECTED)
    trial.publish(50)
    worker = trial.start_worker(prefetch=5, lease_s=lease_s)
    eventually(lambda: trial.backend.counts(QUEUE).dead == 5, LIMIT_S, "some are dead")
    with trial.producing():
        for outage_s in (0.1 * PATIENCE_S, 1.5 * PATIENCE_S):  # of the producer
            trial.ran(100)
            with trial.harming(worker, in_hand=5):
                rig.server.kill()
                time.sleep(outage_s)
                rig.server.start()
        trial.ran(100)
    trial.expect_worked_off()
    assert trial.check(dead=5).done >= 300


def held_by(pid: int) -> tuple[int, int]:
    """How many threads and descriptors a process has."""
    threads, descriptors = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("task", "fd"))
    return threads, descriptors


def confirms_one(trial: Trial, by: Orchestrator | None = None) -> bool:
    """Publish one more job, and say whether it was confirmed."""
    before = len(trial.account.confirmed)
    trial.publish(1, by=by)
    return len(trial.account.confirmed) > before


@row("20 graceful restarts of the broker", "CON-1", "CON-2", "I1", not_on=NO_SERVER)
def test_restarts_leak_no_thread_and_no_descriptor_of_a_worker(trial: Trial) -> None:
    rig = server_of(trial)
    trial.publish(5)
    worker = trial.start_worker(prefetch=5, lease_s=1.0)  # which ends after each restart
    seen = []
    for _ in range(20):
        with trial.harming(worker, in_hand=5):
            rig.restart()
            eventually(partial(confirms_one, trial), LIMIT_S, "the broker is back")
        trial.expect_worked_off()
        seen.append(held_by(worker.pid))
    # A pool has as many connections as were ever used at once; a leak would show with each restart.
    most_threads, most_descriptors = (max(each) for each in zip(*seen[:5], strict=True))

    def holds_no_more() -> bool:
        threads, descriptors = held_by(worker.pid)
        return threads <= most_threads and descriptors <= most_descriptors + 2

    eventually(holds_no_more, LIMIT_S, f"it holds no more than after the first five of {seen}")
    trial.check()


@row("the server closes every connection, 10 times", "CON-1", "LSE-4", "I1", "I3", "I4", not_on=NO_SERVER)
def test_closed_connections_lose_nothing(trial: Trial) -> None:
    rig = server_of(trial)
    trial.publish(20)
    worker = trial.start_worker(prefetch=5, lease_s=rig.lease_s)
    with trial.producing():
        for _ in range(10):
            trial.ran(20)
            with trial.harming(worker, in_hand=5):
                rig.cut()
    trial.expect_worked_off()
    trial.check()


@row("SCRIPT FLUSH, all the time", "CON-1", "I1", "I3", not_on=ONLY_REDIS)
def test_flushed_scripts_lose_nothing_and_repeat_nothing(trial: Trial) -> None:
    rig = trial.rig
    assert isinstance(rig, RedisRig)
    trial.publish(20)
    trial.start_worker()
    with trial.producing():
        for _ in range(50):
            rig.forget_scripts()
            trial.ran(5)
    trial.expect_worked_off()
    assert trial.check().ran_again == 0


@row("no room is left at the broker", "PUB-4", "PUB-6", "CNT-1", "I1", "I2", not_on=NO_LIMIT)
def test_a_full_broker_refuses_publishers_and_still_serves_workers(trial: Trial) -> None:
    rig = trial.rig
    assert isinstance(rig, ProcessRig)
    trial.publish(50, note="x" * 1000)
    client = trial.stack.enter_context(rig.client(trial.namespace, retry_timeout_s=3.0))
    producer = trial.producer(client)
    with rig.full(client):
        jobs = trial.jobs(100, note="x" * 5000)
        outcomes = producer.publish_batch(QUEUE, jobs)
        assert not [one for one in outcomes if one.status is PublishStatus.ACCEPTED]
        assert all(isinstance(one.error, BackendError) for one in outcomes)
        trial.account.unconfirmed.update(o.id for o in outcomes if o.status is PublishStatus.UNKNOWN)
        trial.start_worker(prefetch=5, job_s=0)
        trial.expect_worked_off()
    eventually(partial(confirms_one, trial, producer), LIMIT_S, "there is room again")
    trial.expect_worked_off()
    totals = trial.check()
    assert totals.confirmed >= 50
    assert totals.ran_again == 0


@row("the broker is set up to evict", "I1", not_on=ONLY_REDIS)
def test_a_server_that_would_evict_jobs_is_refused_with_the_mend(trial: Trial) -> None:
    rig = trial.rig
    assert isinstance(rig, RedisRig)
    trial.publish(10)
    for policy in ("allkeys-lru", "allkeys-random"):
        with (
            rig.configured(maxmemory="100mb", maxmemory_policy=policy),
            rig.client("evicted") as client,
            pytest.raises(BrokerUnsuitable, match=f"is {policy}; set it to noeviction"),
        ):
            Orchestrator(client).register(SCHEMA)
    trial.start_worker()
    trial.expect_worked_off()
    trial.check()
