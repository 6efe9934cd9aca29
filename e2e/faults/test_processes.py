"""Workers and producers that die, sleep, or have another idea of the time."""

import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brokers.account import Fault
from brokers.proxy import Spoil
from mindtrace.jobs import job_from_schema

from ..worker import SCHEMA, Numbered
from ..workers import WorkerProcess, eventually
from .rigs import LIMIT_S, ProcessRig, ServerRig
from .table import NO_PROCESSES, NO_SERVER, ONE_CLOCK, row
from .trial import QUEUE, Trial

COMMAND = Path(sysconfig.get_path("scripts"), "mindtrace-jobs")
FOLDER = Path(__file__).parents[1]
KILLER = "kill me"
"""As ``fragile.py`` understands it."""


def rest_of(trial: Trial, *, again: int) -> None:
    """Let another worker do what is left: so many jobs run again, and no more."""
    trial.start_worker(prefetch=1, job_s=0.01)
    trial.expect_worked_off()
    assert trial.check().ran_again == again


def die_at(trial: Trial, point: str, *, in_hand: int) -> None:
    """Work on one job at a time, and die when ``point`` is passed the fourth time."""
    trial.publish(20)
    doomed = trial.start_worker(prefetch=1, lease_s=trial.rig.lease_s, job_s=0.01, hit_at=point, hit_after=4)
    eventually(lambda: doomed.has_ended, LIMIT_S, "it dies")
    with trial.harming(doomed, in_hand=in_hand):
        doomed.kill()
    assert len(trial.started) == (3 if point == "received" else 4)
    rest_of(trial, again=in_hand)


@row("SIGKILL of a worker that has received a job", "LSE-1", "I1", "I2", not_on=NO_PROCESSES)
def test_a_worker_that_dies_with_what_it_received_leaves_it_to_another(trial: Trial) -> None:
    die_at(trial, "received", in_hand=0)


@row("SIGKILL of a worker in the middle of a job", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_a_worker_that_dies_in_the_middle_of_a_job_leaves_it_to_another(trial: Trial) -> None:
    die_at(trial, "mid-job", in_hand=1)


@row("SIGKILL of a worker whose job has had its effect", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_a_worker_that_dies_before_it_settles_has_its_job_run_again(trial: Trial) -> None:
    die_at(trial, "effect done", in_hand=1)


@row("SIGKILL of a worker that has settled a job", "SET-1", "I1", "I4", not_on=NO_PROCESSES)
def test_what_was_settled_by_a_worker_that_dies_is_never_run_again(trial: Trial) -> None:
    die_at(trial, "settled", in_hand=0)


@row("SIGKILL of a worker whose settlement is under way", "SET-1", "I1", "I4", not_on=NO_SERVER)
def test_what_a_worker_settled_before_it_died_counts_though_it_never_heard_so(trial: Trial) -> None:
    rig = trial.rig
    assert isinstance(rig, ServerRig)
    with rig.proxy() as proxy:
        trial.publish(200)  # more than it can do before the proxy is told
        doomed = trial.start_worker(via=proxy, prefetch=1, lease_s=rig.lease_s, job_s=0.05)
        proxy.spoil_next(rig.settle_word, Spoil.SILENCE)
        eventually(lambda: proxy.spoiled, LIMIT_S, "a settlement is sent, and its answer swallowed")
        with trial.harming(doomed, in_hand=0):
            doomed.kill()
        rest_of(trial, again=0)


@row("SIGKILL of workers at random moments", "LSE-1", "I1", "I2", "I3", "I8", not_on=NO_PROCESSES)
def test_killing_workers_loses_no_job_and_repeats_only_what_was_in_hand(trial: Trial) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    trial.publish(2000)
    for _ in range(5):
        doomed = trial.start_worker(prefetch=5, lease_s=trial.rig.lease_s, job_s=0.005)
        time.sleep(chance.uniform(0, 0.2))
        with trial.harming(doomed, in_hand=5):
            doomed.kill()
    assert len(trial.finished) < 2000, "the kills came too late to tell anything"
    trial.start_worker(prefetch=5, lease_s=trial.rig.lease_s)
    trial.expect_worked_off()
    print(f"seed {seed}: {trial.check()}")


@row("SIGSTOP of a worker past its lease, then SIGCONT", "LSE-2", "LSE-4", "I3", "I4", not_on=NO_PROCESSES)
def test_a_worker_that_slept_past_its_lease_is_told_so_and_another_did_its_jobs(trial: Trial) -> None:
    lease_s = trial.rig.lease_s
    trial.publish(10)
    sleeper = trial.start_worker(
        prefetch=2, lease_s=lease_s, job_s=0.2, hit_at="mid-job", hit_after=2, hit_with="SIGSTOP"
    )
    assert isinstance(sleeper, WorkerProcess)
    eventually(lambda: sleeper.is_stopped, LIMIT_S, "it sleeps in the middle of a job")
    with trial.harming(sleeper, in_hand=2):
        other = trial.start_worker(prefetch=2, lease_s=10.0, job_s=0.2)
        trial.expect_worked_off()
        sleeper.send(signal.SIGCONT)
        mine = sleeper.end()
    others = other.end()
    assert mine["lost"] >= 1
    assert others["lost"] == 0
    assert mine["done"] + others["done"] == 10
    assert trial.check().done == 10


@row("SIGKILL of a producer in the middle of a batch", "PUB-1", "PUB-5", "I1", "I2", not_on=NO_PROCESSES)
def test_what_a_producer_was_told_of_before_it_died_is_there_and_may_be_published_again(
    trial: Trial,
) -> None:
    rig, size = trial.rig, 20
    assert isinstance(rig, ProcessRig)
    for life in range(3):
        words = [sys.executable, str(FOLDER / "producer.py"), rig.url(trial.namespace), str(life), str(size)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as producer:
            assert producer.stdout is not None
            producer.stdout.readline()
            time.sleep(random.uniform(0, 0.05))
            producer.kill()
            confirmed = 1 + len(producer.stdout.read().splitlines())
        ids = [f"{life}-{batch}-{number}" for batch in range(confirmed + 1) for number in range(size)]
        trial.account.confirmed.update(ids[:-size])
        trial.account.unconfirmed.update(ids[-size:])
        if trial.backend.capabilities.dedupe:
            again = [job_from_schema(SCHEMA, Numbered(number=life), id=id_) for id_ in ids[-2 * size :]]
            trial.send(again, trial.orchestrator)
            assert not trial.account.unconfirmed
    trial.start_worker(job_s=0, prefetch=50)
    trial.expect_worked_off()
    assert trial.check().ran_again == 0


@row("the clock of a worker is an hour off", "LSE-3", "LSE-5", "DLY-1", "I3", "I7", not_on=ONE_CLOCK)
def test_workers_whose_clocks_are_off_keep_their_leases_and_start_nothing_early(trial: Trial) -> None:
    """Each job takes longer than a lease, so the heartbeats of both must extend theirs."""
    lease_s = 3.0
    workers = [
        trial.start_worker(feed=True, clock_off_s=off_s, prefetch=1, lease_s=lease_s, job_s=lease_s * 1.5)
        for off_s in (3600.0, -3600.0)
    ]
    published_s = time.monotonic()
    late = trial.orchestrator.publish(QUEUE, Numbered(number=5), delay_s=1.5)
    trial.account.confirmed.add(late)
    eventually(lambda: late in {run.job_id for run in trial.started.runs()}, LIMIT_S, "it runs")
    assert time.monotonic() - published_s >= 1.5
    trial.expect_worked_off()
    assert [worker.end()["lost"] for worker in workers] == [0, 0]
    assert trial.check().ran_again == 0


@contextmanager
def supervised(trial: Trial) -> Iterator["subprocess.Popen[bytes]"]:
    """``mindtrace-jobs worker`` with two processes."""
    assert isinstance(trial.rig, ProcessRig)
    url = trial.rig.url(trial.namespace)
    words = [str(COMMAND), "worker", "fragile:Fragile", "--app-dir", str(FOLDER), "--backend", url]
    words += ["--processes", "2", "--lease", str(trial.rig.lease_s), "--prefetch", "5"]
    records = {name.upper(): str(record.path) for name, record in trial.books._asdict().items()}
    environment = os.environ | records
    with (trial.started.path.parent / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@row("a job that kills its worker", "RTY-3", "DLQ-1", "I1", "I6", not_on=NO_PROCESSES)
def test_a_job_that_kills_its_worker_ends_dead_and_the_workers_go_on(trial: Trial) -> None:
    (killer,) = trial.publish(1, note=KILLER)
    trial.publish(20)
    with supervised(trial) as supervisor:
        eventually(lambda: trial.backend.counts(QUEUE).dead == 1, LIMIT_S, "it is given up")
        trial.publish(20)
        trial.expect_worked_off()
        assert supervisor.poll() is None
    runs = trial.started.runs()
    killed = [run.pid for run in runs if run.job_id == killer.id]
    end = len(trial.received)
    trial.account.faults += [Fault(frozenset([pid]), end, end, in_hand=5) for pid in killed]
    (letter,) = trial.backend.dead_letters(QUEUE)
    assert (letter.id, letter.reason) == (killer.id, "crash budget exhausted")
    assert len(killed) == 2
    trial.check(dead=1)
