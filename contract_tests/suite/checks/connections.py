"""CON: connections that break, clients that close, and namespaces that never meet."""

import threading
import time
from collections.abc import Callable
from functools import partial

from ...domain import Queue
from ...domain.errors import Closed
from ...ports import Ack, Lease, Message, OrchestratorBackend, PublishStatus, SettleOutcome
from ..app import QUEUE, Numbers, Recorder, app_on
from ..bench import LONG_LEASE_S, Bench
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive


@check("CON-1")
def every_call_survives_a_cut_connection(bench: Bench) -> None:
    """After a cut each call works again, without anyone's doing, and the account adds up."""
    harness = bench.harness
    with bench.rig() as rig:
        harness.sever(rig.backend)
        outcomes = rig.backend.publish(rig.queue, [rig.message("a"), rig.message("b")])
        for published in outcomes:
            if published.status is PublishStatus.UNKNOWN:
                (again,) = rig.backend.publish(rig.queue, [rig.message(published.id)])
                assert again.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)
        harness.sever(rig.backend)
        consumer = rig.consumer()
        harness.sever(rig.backend)
        held = rig.receive_one(consumer)
        harness.sever(rig.backend)
        expected = SettleOutcome.LOST if bench.capabilities.lease is Lease.CONNECTION else SettleOutcome.OK
        outcome = rig.settle(consumer, Ack(held.receipt))
        demand("CON-1", outcome is expected, f"what was in flight was answered {outcome}")
        harness.sever(rig.backend)
        left = 1 if expected is SettleOutcome.OK else 2
        rig.expect_counts(ready=left)
        harness.sever(rig.backend)
        rig.drain(consumer, left)
        harness.sever(rig.backend)
        rig.backend.declare(Queue(rig.queue))
        harness.sever(rig.backend)
        assert rig.backend.dead_letters(rig.queue) == []
        harness.sever(rig.backend)
        assert rig.backend.purge(rig.queue) == 0


@check("CON-1")
def jobs_are_taken_by_hand_over_a_cut(bench: Bench) -> None:
    """A connection that was cut between two calls is made anew, and no job is lost or comes twice."""
    with app_on(bench) as app:
        published = [app.publish(Numbers(x=n)) for n in range(3)]
        taken = []
        for _ in published:
            job = app.orchestrator.receive_message(QUEUE)
            assert job is not None, "a job is ready, and none was taken"
            taken.append(job.id)
            bench.harness.sever(app.backend)
        demand("CON-1", taken == published, f"{published} were published, {taken} were taken")
        assert app.orchestrator.receive_message(QUEUE) is None


@check("CON-1")
def a_blocked_receiver_survives_a_cut(bench: Bench) -> None:
    """A receiver that was cut off while it waited is neither deaf nor dead: the application goes on."""
    with app_on(bench) as app, Recorder() as consumer:
        consumer.connect(app.orchestrator, poll_timeout_s=300.0)
        consuming = bench.start(lambda: consumer.consume(1, block=True))
        time.sleep(0.1)
        bench.harness.sever(app.backend)
        job_id = app.publish(Numbers())
        assert bench.finish(consuming) == 1
        assert consumer.ids == [job_id]


@check("CON-1")
def what_was_finished_when_a_connection_was_cut_is_settled(bench: Bench) -> None:
    """A finished job is done, and never run again, though a cut met its settlement while its lease stood.

    Where the connection is the lease, the settlement is answered LOST, and the job runs again.
    """
    may_be_lost = bench.capabilities.lease is Lease.CONNECTION
    with app_on(bench) as app:

        def cut_the_first_time(_job: object) -> None:
            if len(consumer.jobs) == 1:
                bench.harness.sever(app.backend)

        with Recorder(cut_the_first_time) as consumer:
            consumer.connect(app.orchestrator, lease_s=LONG_LEASE_S)
            app.publish(Numbers())
            bench.awaited(lambda: consumer.consume(1, block=True))
            stats = consumer.stats
            demand("CON-1", stats.done + stats.lost == 1, f"a settlement was forgotten: {stats}")
            demand("CON-1", may_be_lost or stats.done == 1, f"a standing lease was lost: {stats}")
            if stats.lost:
                bench.awaited(lambda: consumer.consume(1, block=True))
            demand("CON-1", consumer.stats.done == 1, f"the job isn't done: {consumer.stats}")
        bench.rig_on(app.backend, name=QUEUE).expect_counts()


@check("CON-2")
def closing_is_final_and_repeatable(bench: Bench) -> None:
    """Close may be called again; any other call then raises Closed; a blocked receiver is ended by it."""
    calls: list[Callable[[OrchestratorBackend], object]] = [
        lambda backend: backend.declare(Queue("jobs")),
        lambda backend: backend.publish("jobs", [Message("a", b"{}")]),
        lambda backend: backend.open_consumer("jobs"),
        lambda backend: backend.counts("jobs"),
        lambda backend: backend.purge("jobs"),
        lambda backend: backend.delete("jobs"),
        lambda backend: backend.dead_letters("jobs"),
    ]
    with bench.backends(1) as (backend,):
        rig = bench.rig_on(backend)
        closed, idle, blocked = rig.consumer(), rig.consumer(), rig.consumer()
        closed.close()
        closed.close()
        waiting = bench.start(blocked_receive(blocked))
        time.sleep(0.05)
        backend.close()
        backend.close()
        assert isinstance(bench.failure(waiting), Closed)
        for call in calls:
            assert isinstance(bench.failure_of(partial(call, backend)), Closed)
        for consumer in (closed, idle):
            assert isinstance(bench.failure_of(blocked_receive(consumer)), Closed)
            consumer.close()


@check("CON-2")
def closing_leaves_no_thread(bench: Bench) -> None:
    """However often clients are opened, used and closed, no thread is left."""

    def use() -> None:
        with bench.rig() as rig:
            rig.publish("job")
            rig.drain(rig.consumer(), 1)

    def one_thread_more_at_most() -> None:
        demand(
            "CON-2",
            threading.active_count() <= before,
            f"{threading.active_count() - before} threads are left",
        )

    use()
    before = threading.active_count()
    for _ in range(5):
        use()
    bench.retried(one_thread_more_at_most)


@check("CON-2")
def namespaces_never_meet(bench: Bench) -> None:
    """A queue of the same name in another namespace is another queue."""
    with bench.rig() as mine, bench.rig() as other:
        mine.publish("job", "dead")
        other.expect_counts()
        other.publish("job")
        assert other.backend.purge(other.queue) == 1
        mine.expect_counts(ready=2)
        other.backend.delete(other.queue)
        assert mine.drain(mine.consumer(), 2) == ["job", "dead"]


@check("CON-2")
def a_destroyed_namespace_is_empty(bench: Bench) -> None:
    """What a harness destroys is gone: the next of the same name starts with nothing."""
    with bench.namespace() as namespace:
        with bench.harness.make(namespace) as backend:
            bench.rig_on(backend).publish("job")
        bench.harness.destroy(namespace)
        with bench.harness.make(namespace) as backend:
            bench.rig_on(backend).expect_counts()
