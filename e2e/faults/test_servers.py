"""Brokers that die, restart, run full, forget, or close the connections of all."""

import random
import time
from functools import partial
from pathlib import Path

import pytest

from conditions import eventually
from mindtrace.jobs import Orchestrator, PublishStatus
from mindtrace.jobs.domain.errors import BackendError, BrokerUnsuitable

from ..recording_worker import REJECTED, SCHEMA
from .experiment import PRODUCER_RETRY_TIMEOUT_S, QUEUE, Experiment
from .matrix import NO_LIMIT, NO_SERVER, ONLY_REDIS, row
from .server_targets import RedisTarget, ServerTarget
from .targets import ProcessTarget, Target


def server_of(experiment: Experiment) -> ServerTarget:
    target: Target = experiment.target
    assert isinstance(target, ServerTarget)
    return target


@row("SIGKILL of a broker that syncs", "PUB-1", "CON-1", "DLQ-4", "I1", "I3", "I8", not_on=NO_SERVER)
def test_what_was_confirmed_survives_the_death_of_the_broker(experiment: Experiment) -> None:
    target, lease_s = server_of(experiment), 6.0
    target.sync_metadata()
    experiment.publish(5, note=REJECTED)
    experiment.publish(50)
    worker = experiment.start_worker(prefetch=5, lease_s=lease_s)
    eventually(lambda: experiment.backend.counts(QUEUE).dead == 5, "some are dead")
    with experiment.producing():
        for outage_s in (0.1 * PRODUCER_RETRY_TIMEOUT_S, 1.5 * PRODUCER_RETRY_TIMEOUT_S):  # of the producer
            experiment.wait_until_run(100)
            with experiment.fault_on(worker, in_flight=5):
                target.server.kill()
                time.sleep(outage_s)
                target.server.start()
        experiment.wait_until_run(100)
    experiment.wait_until_drained()
    assert experiment.check(dead=5).done >= 300


@row(
    "SIGKILL of 8 workers and, 3 times, of a broker that syncs",
    "PUB-1",
    "LSE-1",
    "CON-1",
    "I1",
    "I3",
    "I8",
    not_on=NO_SERVER,
)
def test_killing_workers_and_the_broker_in_turn_loses_no_job(experiment: Experiment) -> None:
    target, lease_s, seed = server_of(experiment), 6.0, random.randrange(10**6)
    chance = random.Random(seed)
    target.sync_metadata()
    deaths_of_the_broker = chance.sample(range(8), 3)
    for number in range(8):
        experiment.refill(200)
        worker = experiment.start_worker(prefetch=5, lease_s=lease_s, publish_when_empty=True)
        with experiment.producing():
            experiment.wait_until_run(10)
            time.sleep(chance.uniform(0, 0.2))
            if number in deaths_of_the_broker:
                with experiment.fault_on(worker, in_flight=5):
                    target.server.kill()
                    target.server.start()
                    experiment.wait_until_run(1)
        with experiment.fault_on(worker, in_flight=5):
            worker.kill()
    experiment.start_worker(prefetch=5, lease_s=lease_s, publish_when_empty=True)
    experiment.wait_until_drained()
    print(f"seed {seed}: {experiment.check()}")


def held_by(pid: int) -> tuple[int, int]:
    """How many threads and descriptors a process has."""
    threads, descriptors = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("task", "fd"))
    return threads, descriptors


def confirms_one(experiment: Experiment, by: Orchestrator | None = None) -> bool:
    """Publish one more job, and say whether it was confirmed."""
    before = len(experiment.audit.confirmed)
    experiment.publish(1, by=by)
    return len(experiment.audit.confirmed) > before


@pytest.mark.begins_first  # on RabbitMQ it takes longer than any other test
@row("8 graceful restarts of the broker", "CON-1", "CON-2", "I1", not_on=NO_SERVER)
def test_restarts_leak_no_thread_and_no_descriptor_of_a_worker(experiment: Experiment) -> None:
    target = server_of(experiment)
    experiment.publish(5)
    worker = experiment.start_worker(prefetch=5, lease_s=1.0)  # which ends after each restart
    seen = []
    for _ in range(8):
        with experiment.fault_on(worker, in_flight=5):
            target.restart()
            eventually(partial(confirms_one, experiment), "the broker is back")
            experiment.wait_until_drained()  # a lease that is so short may also be lost on a busy machine
        seen.append(held_by(worker.pid))
    # A pool has as many connections as were ever used at once; a leak would show with each restart.
    most_threads, most_descriptors = (max(each) for each in zip(*seen[:5], strict=True))

    def holds_no_more() -> bool:
        threads, descriptors = held_by(worker.pid)
        return threads <= most_threads and descriptors <= most_descriptors + 2

    eventually(holds_no_more, f"it holds no more than after the first five of {seen}")
    experiment.check()


@row("the server closes every connection, 10 times", "CON-1", "LSE-4", "I1", "I3", "I4", not_on=NO_SERVER)
def test_closed_connections_lose_nothing(experiment: Experiment) -> None:
    target = server_of(experiment)
    experiment.publish(20)
    worker = experiment.start_worker(prefetch=5, lease_s=target.lease_s)
    with experiment.producing():
        for _ in range(10):
            experiment.wait_until_run(20)
            with experiment.fault_on(worker, in_flight=5):
                target.close_connections()
    experiment.wait_until_drained()
    experiment.check()


@row("SCRIPT FLUSH, all the time", "CON-1", "I1", "I3", not_on=ONLY_REDIS)
def test_flushed_scripts_lose_nothing_and_repeat_nothing(experiment: Experiment) -> None:
    target = experiment.target
    assert isinstance(target, RedisTarget)
    experiment.publish(20)
    experiment.start_worker()
    with experiment.producing():
        for _ in range(50):
            target.forget_scripts()
            experiment.wait_until_run(5)
    experiment.wait_until_drained()
    assert experiment.check().ran_again == 0


@row("no room is left at the broker", "PUB-4", "PUB-6", "CNT-1", "I1", "I2", not_on=NO_LIMIT)
def test_a_full_broker_refuses_publishers_and_still_serves_workers(experiment: Experiment) -> None:
    target = experiment.target
    assert isinstance(target, ProcessTarget)
    experiment.publish(50, note="x" * 1000)
    client = experiment.stack.enter_context(target.client(experiment.namespace, retry_timeout_s=3.0))
    producer = experiment.producer(client)
    with target.out_of_space(client):
        jobs = experiment.jobs(100, note="x" * 5000)
        outcomes = [handle.outcome for handle in producer.publish_batch(QUEUE, jobs)]
        assert not [one for one in outcomes if one.status is PublishStatus.ACCEPTED]
        assert all(isinstance(one.error, BackendError) for one in outcomes)
        experiment.audit.unconfirmed.update(o.id for o in outcomes if o.status is PublishStatus.UNKNOWN)
        experiment.start_worker(prefetch=5, job_s=0)
        experiment.wait_until_drained()
    eventually(partial(confirms_one, experiment, producer), "there is room again")
    experiment.wait_until_drained()
    totals = experiment.check()
    assert totals.confirmed >= 50
    assert totals.ran_again == 0


@row("the broker is set up to evict", "I1", not_on=ONLY_REDIS)
def test_a_server_that_would_evict_jobs_is_refused_with_the_mend(experiment: Experiment) -> None:
    target = experiment.target
    assert isinstance(target, RedisTarget)
    experiment.publish(10)
    for policy in ("allkeys-lru", "allkeys-random"):
        with (
            target.configured(maxmemory="100mb", maxmemory_policy=policy),
            target.client("evicted") as client,
            pytest.raises(BrokerUnsuitable, match=f"is {policy}; set it to noeviction"),
        ):
            Orchestrator(client).register(SCHEMA)
    experiment.start_worker()
    experiment.wait_until_drained()
    experiment.check()
