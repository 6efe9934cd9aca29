"""CNT and ADM: counting, declaring, purging, deleting."""

import threading
import time
from functools import partial

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict, QueueNotFound
from ...ports import Ack, ConsumerBackend, Dead, Release, Retry, SettleOutcome
from ..app import QUEUE, Numbers, app_on
from ..bench import Bench
from ..registry import check
from ..violation import demand


@check("CNT-1")
def every_state_is_counted(bench: Bench) -> None:
    """A job is counted in the state that it is in, and in no other, all along its life."""
    with bench.rig() as rig:
        rig.expect_counts()
        rig.publish("a", "b", "c")
        rig.publish("d", delay_s=3600)
        rig.expect_counts(ready=3, delayed=1)
        consumer = rig.consumer()
        held = [rig.receive_one(consumer).receipt for _ in range(3)]
        rig.expect_counts(delayed=1, in_flight=3)
        rig.settle(consumer, Retry(held[0], 3600.0, "later"))
        rig.expect_counts(delayed=2, in_flight=2)
        rig.settle(consumer, Dead(held[1], "rejected", "no good"))
        rig.expect_counts(delayed=2, in_flight=1, dead=1)
        rig.settle(consumer, Release(held[2]))
        rig.expect_counts(ready=1, delayed=2, dead=1)
        rig.settle(consumer, Ack(rig.receive_one(consumer).receipt))
        rig.expect_counts(delayed=2, dead=1)


@check("CNT-1")
def count_queue_messages_is_what_waits(bench: Bench) -> None:
    """It counts what is ready or delayed, and nothing that is in flight, dead or done."""
    with app_on(bench) as app:
        for _ in range(3):
            app.publish(Numbers())
        app.publish(Numbers(), delay_s=3600)
        consumer = app.backend.open_consumer(QUEUE)
        assert bench.receive(consumer)
        bench.retried(lambda: _same(app.orchestrator.count_queue_messages(QUEUE), 3))


def _same(found: int, expected: int) -> None:
    demand("CNT-1", found == expected, f"it counted {found}, expected {expected}")


@check("ADM-1")
def declaring_again_changes_nothing(bench: Bench) -> None:
    """A second declaration, by whichever client, keeps the jobs; another kind raises QueueConflict."""
    with bench.backends(2) as (first, second):
        rig = bench.rig_on(first)
        rig.publish("job")
        first.declare(Queue("jobs"))
        second.declare(Queue("jobs"))
        rig.expect_counts(ready=1)
        others = {QueueKind.STACK: bench.capabilities.stack, QueueKind.PRIORITY: bench.capabilities.priority}
        for kind in [kind for kind, able in others.items() if able]:
            try:
                second.declare(Queue("jobs", kind))
            except QueueConflict:
                continue
            raise AssertionError(f"a fifo queue could be declared as {kind}")
        assert rig.receive_one(rig.consumer()).id == "job"


@check("ADM-1")
def a_name_is_taken_literally(bench: Bench) -> None:
    """Names that differ in a character, in case, or by what an adapter might append are different queues."""
    names = ["jobs", "Jobs", "jobs.1", "jobs-1", "jobs_1", "jobs.dead", "jobs.delayed", "jobs.results"]
    names += [".", "..", "-", "x" * 127 + "y", "x" * 127 + "z"]
    with bench.backends(1) as (backend,):
        rigs = [bench.rig_on(backend, name=name) for name in names]
        for number, rig in enumerate(rigs):
            rig.publish(f"ready-{number}", f"dead-{number}")
            rig.publish(f"delayed-{number}", delay_s=3600)
        for number, rig in enumerate(rigs):
            consumer = rig.consumer()
            ready, dead = rig.receive_one(consumer), rig.receive_one(consumer)
            found = (ready.id, dead.id)
            demand("ADM-1", found == (f"ready-{number}", f"dead-{number}"), f"{rig.queue} served {found}")
            rig.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        for rig in rigs:
            rig.expect_counts(in_flight=1, delayed=1, dead=1)


@check("ADM-2")
def purging_empties_what_waits(bench: Bench) -> None:
    """Purge drops what is ready or delayed and says how many; in flight and dead jobs stay."""
    with bench.rig() as rig:
        rig.publish("held", "dead", "a", "b")
        rig.publish("c", delay_s=3600)
        consumer = rig.consumer()
        held, dead = rig.receive_one(consumer), rig.receive_one(consumer)
        rig.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        purged = rig.backend.purge(rig.queue)
        demand("ADM-2", purged == 3, f"it says {purged}, and 3 waited")
        rig.expect_counts(in_flight=1, dead=1)
        rig.receive_nothing(consumer)
        assert rig.settle(consumer, Ack(held.receipt)) is SettleOutcome.OK
        demand("ADM-2", rig.backend.purge(rig.queue) == 0, "a second purge found jobs")
        rig.publish("a")  # its id is free again
        assert rig.receive_one(consumer).id == "a"


@check("ADM-3")
def deleting_leaves_no_trace(bench: Bench) -> None:
    """After delete nothing is left, in any state, for a queue that is declared anew under the name."""
    with bench.rig() as rig:
        rig.publish("held", "dead", "done", "ready")
        rig.publish("delayed", delay_s=bench.capabilities.delay_resolution_s + 0.2)
        consumer = rig.consumer()
        held, dead, done = (rig.receive_one(consumer) for _ in range(3))
        rig.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        rig.settle(consumer, Ack(done.receipt, b'{"total":1}' if bench.capabilities.results else None))
        rig.backend.delete(rig.queue)
        try:
            rig.counts()
        except QueueNotFound:
            pass
        else:
            raise AssertionError("a deleted queue can still be counted")
        outcome = rig.settle(consumer, Retry(held.receipt, 0.0, "late"))
        demand(
            "ADM-3", outcome is SettleOutcome.LOST, f"settling into a deleted queue was answered {outcome}"
        )
        rig.backend.declare(Queue(rig.queue))
        outcome = rig.settle(consumer, Release(held.receipt))
        demand("ADM-3", outcome is SettleOutcome.LOST, f"settling into its successor was answered {outcome}")
        bench.harness.advance(2 * bench.capabilities.delay_resolution_s + 0.4)
        rig.expect_counts()
        rig.receive_nothing(rig.consumer())
        if bench.capabilities.results:
            demand("ADM-3", rig.backend.result(rig.queue, "done") is None, "a result survived")
        rig.publish("held", "dead", "done", "ready", "delayed")  # every id is free again
        rig.expect_counts(ready=5)


@check("ADM-3")
def a_job_taken_by_hand_is_of_the_queue_that_is_there(bench: Bench) -> None:
    """Whoever deletes the queue, and declares it anew: the consumer that took a job before follows."""
    with app_on(bench) as app:
        app.publish(Numbers())
        app.publish(Numbers())
        assert app.orchestrator.receive_message(QUEUE) is not None
        app.backend.delete(QUEUE)
        error = bench.failure_of(lambda: app.orchestrator.receive_message(QUEUE))
        demand("ADM-3", isinstance(error, QueueNotFound), f"taking from a deleted queue: {error!r}")
        app.backend.declare(Queue(QUEUE))
        job_id = app.publish(Numbers())
        job = bench.awaited(lambda: app.orchestrator.receive_message(QUEUE))
        demand("ADM-3", job is not None and job.id == job_id, f"{job} was taken of its successor")
        assert app.orchestrator.receive_message(QUEUE) is None


@check("ADM-3")
def a_purge_racing_a_receive_resurrects_nothing(bench: Bench) -> None:
    """Of jobs that are received and purged at the same time, each is either purged or received."""
    for _ in range(5):
        with bench.rig() as rig:
            jobs = 60
            rig.publish(*[f"job-{n}" for n in range(jobs)])
            consumer, begun = rig.consumer(), threading.Event()
            racing = bench.start(partial(_drain, consumer, begun))
            begun.wait(bench.harness.bound_s)
            purged = rig.backend.purge(rig.queue)
            received = bench.finish(racing) + _drain(consumer, begun)
            demand("ADM-3", purged + received == jobs, f"{purged} purged, {received} received, of {jobs}")
            rig.expect_counts()


def _drain(consumer: ConsumerBackend, begun: threading.Event) -> int:
    """Ack all there is, in no hurry, and count it."""
    came = 0
    while deliveries := consumer.receive(3, 0.0):
        begun.set()
        came += len(deliveries)
        time.sleep(0.001)
        outcomes = consumer.settle([Ack(delivery.receipt) for delivery in deliveries]).outcomes
        demand("ADM-3", set(outcomes) == {SettleOutcome.OK}, f"of what was in flight, {outcomes}")
    return came


@check("ADM-3")
def what_is_purged_or_deleted_stays_so_after_a_crash(bench: Bench) -> None:
    """A lease that runs out after its queue was deleted brings no job back to its successor."""
    harness = bench.harness
    with bench.rig() as rig:
        rig.publish("job")
        doomed = rig.consumer(lease_s=harness.lease_s)
        rig.receive_one(doomed)
        rig.backend.delete(rig.queue)
        rig.backend.declare(Queue(rig.queue))
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        rig.expect_counts()
        rig.receive_nothing(rig.consumer())
