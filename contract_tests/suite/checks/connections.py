"""CON: connections that break, clients that close, and namespaces that never meet."""

import threading
import time
from collections.abc import Callable
from functools import partial

from ...application.api.orchestrator import Orchestrator
from ...domain import Queue
from ...domain.errors import Closed, UnsupportedCapability
from ...ports import Ack, Lease, PublishStatus, SettleOutcome
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import LONG_LEASE_S, QueueUnderTest
from ..modes import EVERY_MODE, ONE_AT_A_TIME
from ..queue_calls import calls_naming
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive


@check("CON-1")
def every_call_survives_a_cut_connection(context: CheckContext) -> None:
    """After a cut each call works again, without anyone's doing, and the account adds up."""
    harness = context.harness
    with context.queue() as queue:
        harness.sever(queue.backend)
        outcomes = queue.backend.publish(queue.name, [queue.message("a"), queue.message("b")])
        for published in outcomes:
            if published.status is PublishStatus.UNKNOWN:
                (again,) = queue.backend.publish(queue.name, [queue.message(published.id)])
                assert again.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)
        harness.sever(queue.backend)
        consumer = queue.consumer()
        harness.sever(queue.backend)
        held = queue.receive_one(consumer)
        harness.sever(queue.backend)
        expected = SettleOutcome.LOST if context.capabilities.lease is Lease.CONNECTION else SettleOutcome.OK
        outcome = queue.settle(consumer, Ack(held.receipt))
        demand("CON-1", outcome is expected, f"what was in flight was answered {outcome}")
        harness.sever(queue.backend)
        left = 1 if expected is SettleOutcome.OK else 2
        queue.expect_counts(ready=left)
        harness.sever(queue.backend)
        queue.drain(consumer, left)
        harness.sever(queue.backend)
        queue.backend.declare(Queue(queue.name))
        harness.sever(queue.backend)
        assert queue.backend.dead_letters(queue.name) == []
        harness.sever(queue.backend)
        assert queue.backend.purge(queue.name) == 0


@check("CON-1")
def jobs_are_taken_by_hand_over_a_cut(context: CheckContext) -> None:
    """A connection that was cut between two calls is made anew, and no job is lost or comes twice."""
    with app_on(context) as app:
        published = [app.publish(Numbers(x=n)) for n in range(3)]
        taken = []
        for _ in published:
            job = app.orchestrator.receive_message(QUEUE)
            assert job is not None, "a job is ready, and none was taken"
            taken.append(job.id)
            context.harness.sever(app.backend)
        demand("CON-1", taken == published, f"{published} were published, {taken} were taken")
        assert app.orchestrator.receive_message(QUEUE) is None


@check("CON-1", modes=EVERY_MODE)
def a_blocked_receiver_survives_a_cut(context: CheckContext) -> None:
    """A receiver that was cut off while it waited is neither deaf nor dead: the application goes on."""
    with app_on(context) as app, app.recorder() as consumer:
        consumer.connect(app.orchestrator, poll_timeout_s=300.0)
        consuming = context.start(lambda: consumer.consume(1, block=True))
        time.sleep(0.1 if context.mode is ONE_AT_A_TIME else 0.03)
        context.harness.sever(app.backend)
        job_id = app.publish(Numbers())
        assert context.finish(consuming) == 1
        assert consumer.ids == [job_id]


@check("CON-1", modes=EVERY_MODE)
def what_was_finished_when_a_connection_was_cut_is_settled(context: CheckContext) -> None:
    """A finished job is done, and never run again, though a cut met its settlement while its lease stood.

    Where the connection is the lease, the settlement is answered LOST, and the job runs again.
    """
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    with app_on(context) as app:

        def cut_the_first_time(_job: object) -> None:
            if len(consumer.jobs) == 1:
                context.harness.sever(app.backend)

        with app.recorder(cut_the_first_time) as consumer:
            consumer.connect(app.orchestrator, lease_s=LONG_LEASE_S)
            app.publish(Numbers())
            context.call_in_time(lambda: consumer.consume(1, block=True))
            stats = consumer.stats
            demand("CON-1", stats.done + stats.lost == 1, f"a settlement was forgotten: {stats}")
            demand("CON-1", may_be_lost or stats.done == 1, f"a standing lease was lost: {stats}")
            if stats.lost:
                context.call_in_time(lambda: consumer.consume(1, block=True))
            demand("CON-1", consumer.stats.done == 1, f"the job isn't done: {consumer.stats}")
        context.queue_on(app.backend, name=QUEUE).expect_counts()


@check("CON-2")
def closing_is_final_and_repeatable(context: CheckContext) -> None:
    """Close may be called again; any other call then raises Closed; a blocked receiver is ended by it."""
    with context.backends(1) as (backend,):
        queue = context.queue_on(backend)
        closed, idle, blocked = queue.consumer(), queue.consumer(), queue.consumer()
        closed.close()
        closed.close()
        waiting = context.start(blocked_receive(blocked))
        time.sleep(0.05)
        backend.close()
        backend.close()
        assert isinstance(context.failure(waiting), Closed)
        calls = calls_naming(backend, "jobs")
        calls["declare"] = partial(backend.declare, Queue("jobs"))
        for consumer in (closed, idle):
            of_consumer: dict[str, Callable[[], object]] = {
                "receive": blocked_receive(consumer),
                "settle": partial(consumer.settle, [Ack("receipt")]),
                "settle that only takes": partial(consumer.settle, [], take=1),
                "extend": partial(consumer.extend, ["receipt"]),
            }
            for what, call in {**calls, **of_consumer}.items():
                error = context.failure_of(call)
                demand("CON-2", isinstance(error, Closed), f"after close, {what} raised {error!r}")
            consumer.close()


@check("CON-2")
def closing_leaves_no_thread(context: CheckContext) -> None:
    """However often clients are opened, used and closed, no thread is left."""

    def use() -> None:
        with context.queue() as queue:
            queue.publish("job")
            queue.drain(queue.consumer(), 1)
            if context.capabilities.results:
                with queue.backend.ended_jobs(queue.name) as ended:
                    ended.wait(0.0)
            if context.capabilities.coordination:
                queue.backend.coordination.now()

    def none_is_left() -> None:
        left = set(threading.enumerate()) - before  # not their number: others may end meanwhile
        demand("CON-2", not left, f"threads are left: {sorted(each.name for each in left)}")

    use()
    before = set(threading.enumerate())
    for _ in range(5):
        use()
    context.eventually(none_is_left)


@check("CON-2")
def namespaces_never_meet(context: CheckContext) -> None:
    """A queue of the same name in another namespace is another queue."""
    with context.queue() as mine, context.queue() as other:
        mine.publish("job", "dead")
        other.expect_counts()
        other.publish("job")
        assert other.backend.purge(other.name) == 1
        mine.expect_counts(ready=2)
        other.backend.delete(other.name)
        assert mine.drain(mine.consumer(), 2) == ["job", "dead"]


@check("CON-2")
def a_url_leads_to_the_same_queues(context: CheckContext) -> None:
    """Where a backend has a URL, a client that is made of it sees the same queues and no others."""
    with context.queue() as queue:
        try:
            url = queue.backend.make_url(with_passwords=True)
        except UnsupportedCapability:
            return
        queue.publish("job", "other")
        with Orchestrator(url) as orchestrator:
            error = context.failure_of(partial(orchestrator.backend.counts, queue.name))
            demand("CON-2", error is None, f"a client that was made of {queue.backend.url} raised {error!r}")
            same = QueueUnderTest(context, orchestrator.backend, queue.name)
            same.expect_counts(ready=2)


@check("CON-2")
def a_destroyed_namespace_is_empty(context: CheckContext) -> None:
    """What a harness destroys is gone: the next of the same name starts with nothing."""
    with context.namespace() as namespace:
        with context.harness.make(namespace) as backend:
            context.queue_on(backend).publish("job")
        context.harness.destroy(namespace)
        with context.harness.make(namespace) as backend:
            context.queue_on(backend).expect_counts()
