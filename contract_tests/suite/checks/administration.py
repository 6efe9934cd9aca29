"""CNT and ADM: counting, declaring, purging, deleting."""

import threading
import time
from functools import partial

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict, QueueNotFound, UnsupportedCapability
from ...ports import Ack, ConsumerBackend, Dead, Lease, PublishStatus, Release, Retry, SettleOutcome
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand


@check("CNT-1")
def every_state_is_counted(context: CheckContext) -> None:
    """A job is counted in the state that it is in, and in no other, all along its life."""
    with context.queue() as queue:
        queue.expect_counts()
        queue.publish("a", "b", "c")
        queue.publish("d", delay_s=3600)
        queue.expect_counts(ready=3, delayed=1)
        consumer = queue.consumer()
        held = [queue.receive_one(consumer).receipt for _ in range(3)]
        queue.expect_counts(delayed=1, in_flight=3)
        queue.settle(consumer, Retry(held[0], 3600.0, "later"))
        queue.expect_counts(delayed=2, in_flight=2)
        queue.settle(consumer, Dead(held[1], "rejected", "no good"))
        queue.expect_counts(delayed=2, in_flight=1, dead=1)
        queue.settle(consumer, Release(held[2]))
        queue.expect_counts(ready=1, delayed=2, dead=1)
        queue.settle(consumer, Ack(queue.receive_one(consumer).receipt))
        queue.expect_counts(delayed=2, dead=1)


@check("CNT-1")
def count_queue_messages_is_what_waits(context: CheckContext) -> None:
    """It counts what is ready or delayed, and nothing that is in flight, dead or done."""
    with app_on(context) as app:
        for _ in range(3):
            app.publish(Numbers())
        app.publish(Numbers(), delay_s=3600)
        consumer = app.backend.open_consumer(QUEUE)
        demand("CNT-1", context.receive(consumer), "of three ready jobs none came")
        context.eventually(lambda: _same(app.orchestrator.count_queue_messages(QUEUE), 3))


def _same(found: int, expected: int) -> None:
    demand("CNT-1", found == expected, f"it counted {found}, expected {expected}")


@check("ADM-1")
def declaring_again_changes_nothing(context: CheckContext) -> None:
    """A second declaration, by whichever client, keeps the jobs; another kind raises QueueConflict."""
    with context.backends(2) as (first, second):
        queue = context.queue_on(first)
        queue.publish("job")
        first.declare(Queue("jobs"))
        second.declare(Queue("jobs"))
        queue.expect_counts(ready=1)
        others = {
            QueueKind.STACK: context.capabilities.stack,
            QueueKind.PRIORITY: context.capabilities.priority,
        }
        for kind in [kind for kind, able in others.items() if able]:
            try:
                second.declare(Queue("jobs", kind))
            except QueueConflict as conflict:
                demand("ADM-1", conflict.found == "fifo", f"the conflict says the type is {conflict.found}")
                continue
            raise AssertionError(f"a fifo queue could be declared as {kind}")
        came = queue.receive_one(queue.consumer()).id
        demand("ADM-1", came == "job", f"after it was declared again, {came} came")


@check("ADM-1", takes_long=True)
def a_name_is_taken_literally(context: CheckContext) -> None:
    """Names that differ in a character, in case, or by what an adapter might append are different queues."""
    names = ["jobs", "Jobs", "jobs.1", "jobs-1", "jobs_1", "jobs.dead", "jobs.delayed", "jobs.results"]
    names += [".", "..", "-", "x" * 127 + "y", "x" * 127 + "z"]
    with context.backends(1) as (backend,):
        queues = [context.queue_on(backend, name=name) for name in names]
        for number, queue in enumerate(queues):
            queue.publish(f"ready-{number}", f"dead-{number}")
            queue.publish(f"delayed-{number}", delay_s=3600)
        for number, queue in enumerate(queues):
            consumer = queue.consumer()
            ready, dead = queue.receive_one(consumer), queue.receive_one(consumer)
            found = (ready.id, dead.id)
            demand("ADM-1", found == (f"ready-{number}", f"dead-{number}"), f"{queue.name} served {found}")
            queue.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        for queue in queues:
            queue.expect_counts(in_flight=1, delayed=1, dead=1)


@check("ADM-1")
def a_diagnosis_changes_nothing(context: CheckContext) -> None:
    """It declares no queue, and leaves those that are there, and their jobs, as they are."""
    with context.queue() as queue:
        queue.publish("dead", "held", "ready")
        consumer = queue.consumer()
        queue.settle_ok(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
        queue.receive_one(consumer)

        def queues() -> list[Queue] | None:
            try:
                return queue.backend.queues()
            except UnsupportedCapability:
                return None

        before = queues()
        for _ in range(2):
            queue.backend.diagnose()
            queue.expect_counts(ready=1, in_flight=1, dead=1)
            after = queues()
            demand("ADM-1", after == before, f"after a diagnosis of {before}, there were {after}")


@check("ADM-2", "PUB-5")
def purging_empties_what_waits(context: CheckContext) -> None:
    """Purge drops what is ready or delayed and says how many; in flight and dead jobs stay."""
    with context.queue() as queue:
        queue.publish("held", "dead", "a", "b")
        queue.publish("c", delay_s=3600)
        consumer = queue.consumer()
        held, dead = queue.receive_one(consumer), queue.receive_one(consumer)
        queue.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        purged = queue.backend.purge(queue.name)
        demand("ADM-2", purged == 3, f"it says {purged}, and 3 waited")
        queue.expect_counts(in_flight=1, dead=1)
        queue.receive_nothing(consumer)
        if context.capabilities.dedupe:
            for outcome in queue.backend.publish(queue.name, [queue.message("held"), queue.message("dead")]):
                is_known = outcome.status is PublishStatus.DUPLICATE
                demand("PUB-5", is_known, f"{outcome.id} stayed, and is published anew: {outcome.status}")
        queue.settle_ok(consumer, Ack(held.receipt))
        demand("ADM-2", queue.backend.purge(queue.name) == 0, "a second purge found jobs")
        queue.publish("a", "c")  # their ids are free again
        came = queue.drain(consumer, 2)
        demand("ADM-2", came == ["a", "c"], f"after the purge a and c were published, and {came} came")


@check("ADM-2", "LSE-2")
def purging_drops_what_came_back(context: CheckContext) -> None:
    """A job whose lease has ended waits again, though nobody has looked since: purge drops and counts it."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("lost", "ready")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        purged = queue.backend.purge(queue.name)
        demand("ADM-2", purged == 2, f"two jobs waited, one since its lease ended; it says {purged}")
        queue.expect_counts()
        queue.receive_nothing(queue.consumer())


@check("ADM-3")
def deleting_leaves_no_trace(context: CheckContext) -> None:
    """After delete nothing is left, in any state, for a queue that is declared anew under the name."""
    with context.queue() as queue:
        queue.publish("held", "dead", "done", "ready")
        queue.publish("delayed", delay_s=context.capabilities.delay_resolution_s + 0.2)
        consumer = queue.consumer()
        held, dead, done = (queue.receive_one(consumer) for _ in range(3))
        queue.settle(consumer, Dead(dead.receipt, "rejected", "no good"))
        queue.settle(consumer, Ack(done.receipt, b'{"total":1}' if context.capabilities.results else None))
        queue.backend.delete(queue.name)
        try:
            queue.counts()
        except QueueNotFound:
            pass
        else:
            raise AssertionError("a deleted queue can still be counted")
        outcome = queue.settle(consumer, Retry(held.receipt, 0.0, "late"))
        demand(
            "ADM-3", outcome is SettleOutcome.LOST, f"settling into a deleted queue was answered {outcome}"
        )
        queue.backend.declare(Queue(queue.name))
        outcome = queue.settle(consumer, Release(held.receipt))
        demand("ADM-3", outcome is SettleOutcome.LOST, f"settling into its successor was answered {outcome}")
        context.harness.advance(2 * context.capabilities.delay_resolution_s + 0.4)
        queue.expect_counts()
        queue.receive_nothing(queue.consumer())
        if context.capabilities.results:
            demand("ADM-3", queue.backend.result(queue.name, "done") is None, "a result survived")
        queue.publish("held", "dead", "done", "ready", "delayed")  # every id is free again
        queue.expect_counts(ready=5)


@check("ADM-3", "LSE-2")
def a_consumer_leases_from_the_next_queue_as_before(context: CheckContext) -> None:
    """Of a queue that was declared anew, too, it leases jobs for as long as it was opened with."""
    harness = context.harness
    if context.capabilities.lease is Lease.CONNECTION:
        return  # it ends with the connection alone
    with context.queue() as queue:
        consumer, other = queue.consumer(lease_s=harness.lease_s), queue.consumer()
        queue.backend.delete(queue.name)
        queue.backend.declare(Queue(queue.name))
        queue.publish("job")
        asked = harness.now()
        held = queue.receive_one(consumer)
        demand("ADM-3", (held.deadline_s or 0.0) <= harness.lease_s, f"{held.deadline_s} s are left")
        again = queue.receive_when_due(other, asked + harness.lease_s, "LSE-2")
        demand("ADM-3", again.crashes == 1, f"after one lease it tells of {again.crashes} crashes")


@check("ADM-3", "RTY-3")
def what_was_asked_of_a_deleted_queue_is_nothing_of_the_next(context: CheckContext) -> None:
    """A consumer that took as its queue was deleted keeps no job of the successor, and none is charged."""
    with context.queue() as queue:
        queue.publish(*(f"old-{number}" for number in range(8)))
        consumer = queue.consumer()
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt))
        queue.receive_one(consumer)
        queue.backend.delete(queue.name)
        context.queue_on(queue.backend)
        taken = consumer.settle([], take=1).deliveries
        demand("ADM-3", not taken, f"of the queue that was declared anew {[job.id for job in taken]} came")
        queue.publish("a", "b")
        queue.expect_counts(ready=2)
        for expected in ("a", "b"):
            came = queue.receive_one(consumer)
            demand("ADM-3", came.id == expected, f"{came.id} came, expected {expected}")
            demand("RTY-3", came.crashes == 0, f"{came.id} came first, charged with {came.crashes} crashes")


@check("ADM-3")
def a_job_taken_by_hand_is_of_the_queue_that_is_there(context: CheckContext) -> None:
    """Whoever deletes the queue, and declares it anew: the consumer that took a job before follows."""
    with app_on(context) as app:
        app.publish(Numbers())
        app.publish(Numbers())
        assert app.orchestrator.receive_message(QUEUE) is not None
        app.backend.delete(QUEUE)
        error = context.failure_of(lambda: app.orchestrator.receive_message(QUEUE))
        demand("ADM-3", isinstance(error, QueueNotFound), f"taking from a deleted queue: {error!r}")
        app.backend.declare(Queue(QUEUE))
        job_id = app.publish(Numbers())
        job = context.call_in_time(lambda: app.orchestrator.receive_message(QUEUE))
        demand("ADM-3", job is not None and job.id == job_id, f"{job} was taken of its successor")
        assert app.orchestrator.receive_message(QUEUE) is None


@check("ADM-3")
def a_purge_racing_a_receive_resurrects_nothing(context: CheckContext) -> None:
    """Of jobs that are received and purged at the same time, each is either purged or received."""
    for _ in range(5):
        with context.queue() as queue:
            jobs = 60
            queue.publish(*[f"job-{n}" for n in range(jobs)])
            consumer, begun = queue.consumer(), threading.Event()
            racing = context.start(partial(_drain, consumer, begun))
            begun.wait(context.harness.timeout_s)
            purged = queue.backend.purge(queue.name)
            received = context.finish(racing) + _drain(consumer, begun)
            demand("ADM-3", purged + received == jobs, f"{purged} purged, {received} received, of {jobs}")
            queue.expect_counts()


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
def what_is_purged_or_deleted_stays_so_after_a_crash(context: CheckContext) -> None:
    """A lease that runs out after its queue was deleted brings no job back to its successor."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        queue.backend.delete(queue.name)
        queue.backend.declare(Queue(queue.name))
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        queue.expect_counts()
        queue.receive_nothing(queue.consumer())
