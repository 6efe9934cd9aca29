"""Workers and producers that die, sleep, or have another idea of the time."""

import random
import signal
import subprocess
import sys
import time

from brokers.proxy import Disruption
from conditions import eventually
from job_audit import Fault
from mindtrace.jobs import job_from_schema

from ..recording_worker import SCHEMA, Numbered
from ..worker_process import WorkerProcess
from .experiment import QUEUE, Experiment
from .matrix import NO_PROCESSES, NO_SERVER, ONE_CLOCK, row
from .server_targets import ServerTarget
from .supervised import FOLDER, PREFETCH, supervised
from .targets import ProcessTarget

CRASHING = "crashing_consumer:CrashingConsumer"
KILLER = "kill me"
"""As ``crashing_consumer.py`` understands it."""


def rest_of(experiment: Experiment, *, again: int) -> None:
    """Let another worker do what is left: so many jobs run again, and no more."""
    experiment.start_worker(prefetch=1, job_s=0.01)
    experiment.wait_until_drained()
    assert experiment.check().ran_again == again


def die_at(experiment: Experiment, point: str, *, in_flight: int) -> None:
    """Work on one job at a time, and die when ``point`` is passed the fourth time."""
    experiment.publish(20)
    doomed = experiment.start_worker(
        prefetch=1, lease_s=experiment.target.lease_s, job_s=0.01, signal_at=point, signal_after=4
    )
    eventually(lambda: doomed.has_ended, "it dies")
    with experiment.fault_on(doomed, in_flight=in_flight):
        doomed.kill()
    assert len(experiment.started) == (3 if point == "received" else 4)
    rest_of(experiment, again=in_flight)


@row("SIGKILL of a worker that has received a job", "LSE-1", "I1", "I2", not_on=NO_PROCESSES)
def test_a_worker_that_dies_with_what_it_received_leaves_it_to_another(experiment: Experiment) -> None:
    die_at(experiment, "received", in_flight=0)


@row("SIGKILL of a worker in the middle of a job", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_a_worker_that_dies_in_the_middle_of_a_job_leaves_it_to_another(experiment: Experiment) -> None:
    die_at(experiment, "mid-job", in_flight=1)


@row("SIGKILL of a worker whose job has had its effect", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_a_worker_that_dies_before_it_settles_has_its_job_run_again(experiment: Experiment) -> None:
    die_at(experiment, "effect done", in_flight=1)


@row("SIGKILL of a worker that has settled a job", "SET-1", "I1", "I4", not_on=NO_PROCESSES)
def test_what_was_settled_by_a_worker_that_dies_is_never_run_again(experiment: Experiment) -> None:
    die_at(experiment, "settled", in_flight=0)


@row("SIGKILL of a worker whose settlement is under way", "SET-1", "I1", "I4", not_on=NO_SERVER)
def test_what_a_worker_settled_before_it_died_counts_though_it_never_heard_so(experiment: Experiment) -> None:
    target = experiment.target
    assert isinstance(target, ServerTarget)
    with target.proxy() as proxy:
        experiment.publish(200)  # more than it can do before the proxy is told
        doomed = experiment.start_worker(via=proxy, prefetch=1, lease_s=target.lease_s, job_s=0.05)
        proxy.disrupt_next(target.settle_bytes, Disruption.SILENCE)
        eventually(lambda: proxy.disrupted, "a settlement is sent, and its answer swallowed")
        with experiment.fault_on(doomed, in_flight=0):
            doomed.kill()
        rest_of(experiment, again=0)


@row("SIGKILL of workers at random moments", "LSE-1", "I1", "I2", "I3", "I8", not_on=NO_PROCESSES)
def test_killing_workers_loses_no_job_and_repeats_only_what_was_in_hand(experiment: Experiment) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    for _ in range(5):
        experiment.refill(500)
        doomed = experiment.start_worker(prefetch=5, lease_s=experiment.target.lease_s, job_s=0.005)
        time.sleep(chance.uniform(0, 0.2))
        with experiment.fault_on(doomed, in_flight=5):
            doomed.kill()
    experiment.start_worker(prefetch=5, lease_s=experiment.target.lease_s)
    experiment.wait_until_drained()
    print(f"seed {seed}: {experiment.check()}")


@row("SIGKILL of workers with a hundred jobs under way", "LSE-1", "I1", "I2", "I3", not_on=NO_PROCESSES)
def test_killing_workers_that_run_a_hundred_jobs_at_once_loses_no_job(experiment: Experiment) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    for tasks in (0, 1) * 4:
        experiment.refill(2000)
        lease_s = experiment.target.lease_s
        doomed = experiment.start_worker(concurrency=100, tasks=tasks, lease_s=lease_s, job_s=0.05)
        time.sleep(chance.uniform(0, 0.2))
        with experiment.fault_on(doomed, in_flight=2000):  # those at hand, too: how many, its speed decides
            doomed.kill()
    experiment.start_worker(concurrency=100, tasks=1, lease_s=experiment.target.lease_s)
    experiment.wait_until_drained()
    print(f"seed {seed}: {experiment.check()}")


@row("SIGSTOP of a worker past its lease, then SIGCONT", "LSE-2", "LSE-4", "I3", "I4", not_on=NO_PROCESSES)
def test_a_worker_that_slept_past_its_lease_is_told_so_and_another_did_its_jobs(
    experiment: Experiment,
) -> None:
    lease_s = experiment.target.lease_s
    experiment.publish(10)
    sleeper = experiment.start_worker(
        prefetch=2, lease_s=lease_s, job_s=0.2, signal_at="mid-job", signal_after=2, signal_name="SIGSTOP"
    )
    assert isinstance(sleeper, WorkerProcess)
    eventually(lambda: sleeper.is_stopped, "it sleeps in the middle of a job")
    with experiment.fault_on(sleeper, in_flight=2):
        other = experiment.start_worker(prefetch=2, lease_s=10.0, job_s=0.2)
        experiment.wait_until_drained()
        sleeper.send(signal.SIGCONT)
        mine = sleeper.end()
    others = other.end()
    assert mine["lost"] >= 1
    assert others["lost"] == 0
    assert mine["done"] + others["done"] == 10
    assert experiment.check().done == 10


@row("SIGKILL of a producer in the middle of a batch", "PUB-1", "PUB-5", "I1", "I2", not_on=NO_PROCESSES)
def test_what_a_producer_was_told_of_before_it_died_is_there_and_may_be_published_again(
    experiment: Experiment,
) -> None:
    target, size = experiment.target, 20
    assert isinstance(target, ProcessTarget)
    for life in range(3):
        words = [
            sys.executable,
            str(FOLDER / "batch_producer.py"),
            target.url(experiment.namespace),
            str(life),
            str(size),
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as producer:
            assert producer.stdout is not None
            producer.stdout.readline()
            time.sleep(random.uniform(0, 0.05))
            producer.kill()
            confirmed = 1 + len(producer.stdout.read().splitlines())
        ids = [f"{life}-{batch}-{number}" for batch in range(confirmed + 1) for number in range(size)]
        experiment.audit.confirmed.update(ids[:-size])
        experiment.audit.unconfirmed.update(ids[-size:])
        if experiment.backend.capabilities.dedupe:
            again = [job_from_schema(SCHEMA, Numbered(number=life), id=id_) for id_ in ids[-2 * size :]]
            experiment.send(again, experiment.orchestrator)
            assert not experiment.audit.unconfirmed
    experiment.start_worker(job_s=0, prefetch=50)
    experiment.wait_until_drained()
    assert experiment.check().ran_again == 0


@row("the clock of a worker is an hour off", "LSE-3", "LSE-5", "DLY-1", "I3", "I7", not_on=ONE_CLOCK)
def test_workers_whose_clocks_are_off_keep_their_leases_and_start_nothing_early(
    experiment: Experiment,
) -> None:
    """Each job takes longer than a lease, so the heartbeats of both must extend theirs."""
    lease_s = 3.0
    workers = [
        experiment.start_worker(
            publish_when_empty=True, clock_off_s=off_s, prefetch=1, lease_s=lease_s, job_s=lease_s * 1.5
        )
        for off_s in (3600.0, -3600.0)
    ]
    published_s = time.monotonic()
    late = experiment.orchestrator.publish(QUEUE, Numbered(number=5), delay_s=1.5)
    experiment.audit.confirmed.add(late)
    eventually(lambda: late in {run.job_id for run in experiment.started.runs()}, "it runs")
    assert time.monotonic() - published_s >= 1.5
    experiment.wait_until_drained()
    assert [worker.end()["lost"] for worker in workers] == [0, 0]
    assert experiment.check().ran_again == 0


@row("a job that kills its worker", "RTY-3", "DLQ-1", "I1", "I6", not_on=NO_PROCESSES)
def test_a_job_that_kills_its_worker_ends_dead_and_the_workers_go_on(experiment: Experiment) -> None:
    (killer,) = experiment.publish(1, note=KILLER)
    experiment.publish(20)
    with supervised(experiment, CRASHING) as supervisor:
        eventually(lambda: experiment.backend.counts(QUEUE).dead == 1, "it is given up")
        experiment.publish(20)
        experiment.wait_until_drained()
        assert supervisor.poll() is None
    runs = experiment.started.runs()
    killed = [run.pid for run in runs if run.job_id == killer.id]
    end = len(experiment.received)
    experiment.audit.faults += [Fault(frozenset([pid]), end, end, in_flight=PREFETCH) for pid in killed]
    (letter,) = experiment.backend.dead_letters(QUEUE)
    assert (letter.id, letter.reason) == (killer.id, "crash budget exhausted")
    assert len(killed) == 2
    experiment.check(dead=1)
