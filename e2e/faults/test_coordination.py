"""Limits, schedules, unique jobs and pauses while workers, the server or the way to the store are away."""

import re
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest

from brokers.proxy import Disruption
from conditions import eventually
from job_audit import Fault
from mindtrace.jobs import Scheduler
from mindtrace.jobs.contract.lateness import Lateness
from mindtrace.jobs.domain.errors import BackendUnavailable

from ..coordinated_worker import LIMIT, LIMITED, PLAIN, UNIQUE
from .coordination import IN_FLIGHT, CoordinatedExperiment, server_of
from .matrix import NO_PROCESSES, NO_SERVER, ONLY_BORROWED, row

KEYS = ["a", "b"]
PLACES = LIMIT * len(KEYS)
SECOND = timedelta(seconds=1)
SEEN_S = 1.0
"""How soon a consumer sees a pause."""


@row("SIGKILL of workers that have every place of a limit", "CRD-5", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_the_places_of_dead_workers_come_back_and_no_sooner(coordinated: CoordinatedExperiment) -> None:
    coordinated.publish(LIMITED, KEYS * 6)
    doomed = coordinated.start_worker(LIMITED)
    coordinated.wait_until_running(doomed, PLACES)
    coordinated.kill(doomed)
    coordinated.start_worker(LIMITED).go()
    coordinated.wait_until_drained(LIMITED)
    coordinated.end_workers()

    coordinated.publish(LIMITED, KEYS * LIMIT)
    last = coordinated.start_worker(LIMITED)
    coordinated.wait_until_running(last, PLACES)  # so all have come back
    last.go()
    coordinated.wait_until_drained(LIMITED)
    assert coordinated.check(LIMITED).ran_again == PLACES
    coordinated.check_limit()


@row("SIGKILL of the server while a limit is full", "CRD-5", "CON-1", "I1", "I3", not_on=NO_SERVER)
def test_no_place_is_given_twice_by_a_server_that_died(coordinated: CoordinatedExperiment) -> None:
    target = server_of(coordinated)
    coordinated.publish(LIMITED, KEYS * 6)
    first = coordinated.start_worker(LIMITED)
    running = coordinated.wait_until_running(first, PLACES)
    second = coordinated.start_worker(LIMITED)
    coordinated.audit.in_flight_at_faults.append(running)
    target.crash()
    for worker in (first, second):
        worker.go()
    coordinated.wait_until_drained(LIMITED)
    coordinated.check(LIMITED)
    coordinated.check_limit()


@row(
    "the way to the coordination store goes silent, or holds requests up, while a limit is full",
    "CRD-5",
    "LSE-3",
    "I1",
    "I3",
    not_on=NO_SERVER,
)
def test_requests_for_places_that_are_lost_or_late_give_no_place_twice(
    coordinated: CoordinatedExperiment,
) -> None:
    target = server_of(coordinated)
    coordinated.publish(LIMITED, KEYS * 6)
    with target.store_proxy() as proxy:
        far = coordinated.start_worker(LIMITED, url=target.url_with_store(coordinated.namespace, proxy))
        running = coordinated.wait_until_running(far, PLACES)
        near = coordinated.start_worker(LIMITED)
        coordinated.audit.in_flight_at_faults.append(running)
        for how in (Disruption.SILENCE, Disruption.HOLD):
            disrupted = proxy.disrupted
            proxy.disrupt_next(re.compile(re.escape(target.place_bytes)), how)
            eventually(lambda: proxy.disrupted > disrupted, "it is disrupted")  # noqa: B023
        coordinated.let_run([far, near], PLACES)
        proxy.release()
        coordinated.wait_until_drained(LIMITED)
        coordinated.check(LIMITED)
        coordinated.check_limit()


@row("the coordination store is away while a limit is full", "CRD-5", "I1", "I3", not_on=ONLY_BORROWED)
def test_without_its_store_rabbitmq_starts_no_limited_job_and_publishes_no_unique_one(
    coordinated: CoordinatedExperiment,
) -> None:
    target = server_of(coordinated)
    coordinated.publish(LIMITED, KEYS * 6)
    worker = coordinated.start_worker(LIMITED)
    running = coordinated.wait_until_running(worker, PLACES)
    target.store_server.kill()
    coordinated.let_run([worker], PLACES)
    with pytest.raises(BackendUnavailable):  # after its retry timeout, so a while later
        coordinated.jobs.publish(UNIQUE, {"key": "a"})
    assert {run.job_id for run in coordinated.started.runs()} == running
    target.store_server.start()
    coordinated.wait_until_drained(LIMITED)
    assert coordinated.jobs.counts(UNIQUE).ready == 0
    assert coordinated.check(LIMITED).ran_again == 0
    coordinated.check_limit()


@row("SIGKILL of the server while schedulers run", "CRD-4", "CON-1", "I1", not_on=NO_SERVER)
def test_each_slot_has_its_job_also_if_the_server_dies(coordinated: CoordinatedExperiment) -> None:
    target = server_of(coordinated)
    worker = coordinated.start_worker(PLAIN)
    worker.go()
    first = coordinated.jobs.schedule("tick", PLAIN, {}, every=SECOND, misfire="all").next_slot
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Scheduler(coordinated.client(), poll_s=0.1))
        for _ in range(2):
            coordinated.wait_until_run(1)
            coordinated.crash(target, [worker], in_flight=2)
    coordinated.jobs.schedules.pause("tick")
    last = coordinated.jobs.schedules.list()[0].last_slot
    assert last is not None
    slots = {
        f"tick.{first + number * SECOND:%Y%m%dT%H%M%S}Z" for number in range((last - first) // SECOND + 1)
    }
    coordinated.audit.confirmed |= slots
    if not coordinated.jobs.backend.capabilities.guarded_publish:
        coordinated.audit.in_flight_at_faults += [slots] * 2  # in two systems, each death may double a slot
    coordinated.wait_until_drained(PLAIN)
    coordinated.check(PLAIN)


@row("SIGKILL of the server while unique jobs are published", "CRD-4", "CON-1", "I1", not_on=NO_SERVER)
def test_no_key_has_two_jobs_also_if_the_server_dies(coordinated: CoordinatedExperiment) -> None:
    target = server_of(coordinated)
    worker = coordinated.start_worker(UNIQUE)
    worker.go()
    with coordinated.publishing(UNIQUE, ["a", "b", "c"], publishers=3):
        for _ in range(2):
            coordinated.wait_until_run(IN_FLIGHT)
            coordinated.crash(target, [worker])
    coordinated.wait_until_drained(UNIQUE)
    coordinated.check(UNIQUE)
    assert coordinated.duplicates, "no publish met a job of its key"
    coordinated.check_unique()


@row("SIGKILL of a worker whose job is unique", "CRD-4", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_a_unique_job_keeps_its_key_when_its_worker_dies(coordinated: CoordinatedExperiment) -> None:
    doomed = coordinated.start_worker(UNIQUE)
    coordinated.publish(UNIQUE, KEYS)
    coordinated.wait_until_running(doomed, len(KEYS))
    coordinated.kill(doomed)
    coordinated.publish(UNIQUE, KEYS)
    heir = coordinated.start_worker(UNIQUE)
    coordinated.wait_until_running(heir, 1)
    coordinated.publish(UNIQUE, KEYS)
    assert coordinated.duplicates == 2 * len(KEYS)
    heir.go()
    coordinated.wait_until_drained(UNIQUE)
    eventually(lambda: not coordinated.store.scan("unique/"), "the keys are free, after the acks")
    coordinated.publish(UNIQUE, KEYS)
    coordinated.wait_until_drained(UNIQUE)
    assert coordinated.check(UNIQUE).done == 2 * len(KEYS)
    coordinated.check_unique()


@row("SIGKILL of the server while a queue is paused", "CRD-1", "CON-1", "SET-4", "I1", not_on=NO_SERVER)
def test_a_paused_queue_stays_paused_when_the_server_dies(coordinated: CoordinatedExperiment) -> None:
    target, queue = server_of(coordinated), coordinated.jobs.queue(PLAIN)
    worker = coordinated.start_worker(PLAIN)
    worker.go()
    with coordinated.publishing(PLAIN, KEYS, publishers=1), Lateness() as lateness:
        coordinated.wait_until_run(20)
        queue.pause("maintenance")
        paused = time.monotonic()
        began = len(coordinated.started)
        eventually(lambda: is_quiet(coordinated, paused), "the pause is seen")
        quiet = time.monotonic()
        late_s = lateness.worst_s + coordinated.slowest_publish_s()
        target.crash()
        coordinated.start_worker(PLAIN).go()
        eventually(lambda: confirms_more(coordinated), "the server is back")
        again = time.monotonic()
        eventually(lambda: time.monotonic() > again + 2 * SEEN_S, "both would have started a job")
        resumed = time.monotonic()
        queue.resume()
    starts = coordinated.starts()
    assert max(moment for moment in starts if moment < quiet) <= paused + SEEN_S + late_s
    assert not [moment - paused for moment in starts if quiet <= moment < resumed]
    fault = Fault(frozenset([worker.pid]), began, len(coordinated.started), in_flight=20)
    coordinated.audit.faults.append(fault)
    coordinated.wait_until_drained(PLAIN)
    coordinated.check(PLAIN)


def is_quiet(experiment: CoordinatedExperiment, since: float) -> bool:
    """Whether no job was started for longer than it takes to see a pause, though jobs are published."""
    now = time.monotonic()
    return now > max([since, *experiment.starts()]) + 1.5 * SEEN_S


def confirms_more(experiment: CoordinatedExperiment) -> bool:
    """Publish one more job, and say whether it was confirmed."""
    before = len(experiment.published)
    experiment.publish(PLAIN, ["back"])
    return len(experiment.published) > before
