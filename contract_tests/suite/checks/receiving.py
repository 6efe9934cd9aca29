"""RCV: what a receiver can rely on."""

import time
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from ...domain.dead_reasons import DeadReason
from ...domain.errors import Closed, QueueNotFound
from ...domain.job_progress import Progress
from ...ports import Ack, ConsumerBackend, Dead, Delivery, Release
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..modes import EVERY_MODE
from ..registry import check
from ..violation import demand

_LONG_S = 300.0
_LOOKS = 0.03
"""How much CPU a second a receiver may take that looks for jobs now and then."""
_ENOUGH, _LOOKS_FOR_CALM = 0.2, 20
_LONGEST_WAIT_S = 10.0


@check("RCV-1")
def at_most_max_jobs_come(context: CheckContext) -> None:
    """Receive returns at least one job where there is one, and never more than were asked for."""

    @context.property(published=st.integers(0, 12), asked=st.integers(1, 15))
    def _(published: int, asked: int) -> None:
        with context.queue() as queue:
            queue.publish(*[f"job-{n}" for n in range(published)])
            timeout_s = context.harness.timeout_s if published else 0.0
            came = context.receive(queue.consumer(), asked, timeout_s=timeout_s)
            demand("RCV-1", len(came) <= asked, f"{len(came)} came where {asked} were asked for")
            demand("RCV-1", bool(came) == bool(published), f"{len(came)} came where {published} wait")


@check("RCV-1")
def an_empty_wait_lasts_as_long_as_asked(context: CheckContext) -> None:
    """On an empty queue, receive returns empty after its timeout and not before; at once if that is 0."""
    with context.queue() as queue:
        consumer = queue.consumer()
        assert consumer.receive(1, 0.0) == []
        elapsed_s = context.stopwatch()
        assert context.call_in_time(lambda: consumer.receive(1, 0.5)) == []
        waited_s = elapsed_s()
        demand("RCV-1", waited_s >= 0.49, f"it returned after {waited_s:.3f} s where 0.5 s were asked for")


@check("RCV-1")
def an_idle_wait_costs_no_cpu(context: CheckContext) -> None:
    """A receiver that waits doesn't spin."""
    with context.queue() as queue:
        consumer = queue.consumer()
        consumer.interrupt()  # of which nothing may be left
        assert consumer.receive(1, 0.0) == []

        def receive() -> tuple[float, float]:
            began, began_cpu = time.monotonic(), time.thread_time()
            consumer.receive(1, _LONG_S)
            return time.monotonic() - began, time.thread_time() - began_cpu

        share = _share_of_cpu_when_calm()
        waiting = context.start(receive)
        time.sleep(min(0.6 / share, _LONGEST_WAIT_S))
        consumer.interrupt()
        waited_s, cpu_s = context.finish(waiting)
        allowed_s = waited_s * max(share / 3, _LOOKS)  # a receiver that spins takes all of its share
        demand("RCV-1", cpu_s < allowed_s, f"{waited_s:.1f} s of waiting took {cpu_s:.2f} s of CPU")


def _share_of_cpu_when_calm() -> float:
    """How much CPU a busy thread gets in a second, once that is enough to tell who spins; if it ever is."""
    for _ in range(_LOOKS_FOR_CALM):
        if (share := _share_of_cpu()) >= _ENOUGH:
            break
    return share


def _share_of_cpu() -> float:
    """How much CPU a busy thread gets in a second: less than one on a busy machine."""
    began, began_cpu = time.monotonic(), time.thread_time()
    while (cpu_s := time.thread_time() - began_cpu) < 0.1:
        pass
    return min(1.0, cpu_s / (time.monotonic() - began))


@check("RCV-2")
def whatever_makes_a_job_ready_wakes_a_receiver(context: CheckContext) -> None:
    """A publish, a release, a retry and a redrive each end the wait of a blocked receiver at once."""

    def published(queue: QueueUnderTest, _holder: ConsumerBackend, _held: Delivery) -> None:
        queue.publish("new")

    def released(_queue: QueueUnderTest, holder: ConsumerBackend, held: Delivery) -> None:
        holder.settle([Release(held.receipt)])

    def redriven(queue: QueueUnderTest, holder: ConsumerBackend, held: Delivery) -> None:
        holder.settle([Dead(held.receipt, "rejected", "no good")])
        queue.backend.redrive(queue.name)

    def closed(_queue: QueueUnderTest, holder: ConsumerBackend, _held: Delivery) -> None:
        holder.close()

    for event in (published, released, redriven, closed):
        with context.backends(2) as (mine, other):
            queue = context.queue_on(mine)
            queue.publish("held")
            holder = queue.consumer()
            held = queue.receive_one(holder)
            waiting = context.start(blocked_receive(other.open_consumer(queue.name)))
            time.sleep(0.05)
            event(queue, holder, held)
            came = context.finish(waiting)
            demand("RCV-2", len(came) == 1, f"{event.__name__}: the receiver came back with {len(came)} jobs")


def blocked_receive(consumer: ConsumerBackend, max_jobs: int = 1) -> Callable[[], list[Delivery]]:
    """A receive that only a job, an interrupt or a close can end. One job ends it, however many may come."""
    return lambda: consumer.receive(max_jobs, _LONG_S)


@check("LSE-3", "RCV-1", "SET-1")
def a_blocked_receive_holds_up_no_other_call(context: CheckContext) -> None:
    """While a consumer waits for a job, another thread extends, reports on and settles one that it has."""
    with context.queue() as queue:
        queue.publish("held")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        waiting = context.start(blocked_receive(consumer))
        time.sleep(0.05)
        calls: dict[str, Callable[[], object]] = {
            "extend": lambda: consumer.extend([receipt]),
            "report": lambda: consumer.report(receipt, Progress(1, 2)),
            "release_ahead": consumer.release_ahead,
            "settle": lambda: consumer.settle([Ack(receipt)]),
        }
        for name, call in calls.items():
            try:
                context.finish(context.start(call))
            except AssertionError as error:
                demand("LSE-3", False, f"{name} waited for a receive that was blocked: {error}")
        consumer.interrupt()
        came = context.finish(waiting)
        demand("RCV-1", came == [], f"an interrupted receive returned {came}")


@check("RCV-2")
def no_wakeup_is_lost_to_a_receiver_that_leaves(context: CheckContext) -> None:
    """Of two blocked receivers one leaves just as a job comes: the other gets it, if the first didn't."""
    for attempt in range(30):
        with context.queue() as queue:
            leaving, staying = queue.consumer(), queue.consumer()
            first = context.start(blocked_receive(leaving))
            second = context.start(blocked_receive(staying))
            time.sleep(0.002)
            racing = context.start(leaving.interrupt)
            queue.publish("job")
            context.finish(racing)
            taken = context.finish(first)
            if taken:
                staying.interrupt()
            came = context.finish(second)
            demand("RCV-2", len(taken) + len(came) == 1, f"try {attempt}: {len(taken) + len(came)} came")


@check("RCV-2")
def every_blocked_receiver_gets_a_job(context: CheckContext) -> None:
    """Three blocked receivers and three jobs: each gets one, though each job is published alone."""
    with context.queue() as queue:
        waiting = [context.start(blocked_receive(queue.consumer())) for _ in range(3)]
        time.sleep(0.05)
        for number in range(3):
            queue.publish(f"job-{number}")
        came = [delivery.id for future in waiting for delivery in context.finish(future)]
        demand("RCV-2", sorted(came) == ["job-0", "job-1", "job-2"], f"they got {came}")


@check("RCV-2")
def a_blocked_receiver_can_be_ended(context: CheckContext) -> None:
    """Interrupt ends the wait, or else the next one; close raises Closed; a deleted queue QueueNotFound."""
    with context.queue() as queue:
        consumer = queue.consumer()
        waiting = context.start(blocked_receive(consumer))
        time.sleep(0.05)
        consumer.interrupt()
        assert context.finish(waiting) == []
        consumer.interrupt()
        assert context.finish(context.start(blocked_receive(consumer))) == []

        waiting = context.start(blocked_receive(consumer))
        time.sleep(0.05)
        consumer.close()
        error = context.failure(waiting)
        demand("RCV-2", isinstance(error, Closed), f"closing a blocked consumer raised {error!r} there")

        waiting = context.start(blocked_receive(queue.consumer()))
        time.sleep(0.05)
        queue.backend.delete(queue.name)
        error = context.failure(waiting)
        demand("RCV-2", isinstance(error, QueueNotFound), f"a delete raised {error!r} in a blocked receive")


@check("RCV-3")
def a_job_is_with_one_consumer(context: CheckContext) -> None:
    """Four consumers in threads of their own drain a queue: each job is delivered once."""
    jobs = 200
    with context.queue() as queue:
        queue.publish(*[f"job-{n}" for n in range(jobs)])

        def drain(consumer: ConsumerBackend) -> list[str]:
            came: list[str] = []
            while deliveries := consumer.receive(7, 0.0):
                came += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
            return came

        consumers = [queue.consumer() for _ in range(4)]
        futures = [context.start(partial(drain, consumer)) for consumer in consumers]
        came = [id_ for future in futures for id_ in context.finish(future)]
        demand("RCV-3", len(came) == len(set(came)), "a job was delivered twice")
        came += queue.drain(queue.consumer(), jobs - len(came))
        demand("I1", sorted(came) == sorted(f"job-{n}" for n in range(jobs)), f"{len(came)} of {jobs} came")
        queue.expect_counts()


@check("RCV-4", "SEC-2", modes=EVERY_MODE)
def an_unreadable_body_never_stops_a_consumer(context: CheckContext) -> None:
    """A body that is no envelope is dead-lettered with its reason; the jobs around it run."""
    with app_on(context) as app:
        before = app.publish(Numbers(x=1))
        app.publish_raw({"unreadable": b"\x80\x04not json"})
        after = app.publish(Numbers(x=2))
        consumer = app.consume(app.recorder(), 3)
        ran = [before, after]
        demand("RCV-4", consumer.ran(ran), f"around an unreadable body {consumer.ids} ran, not {ran}")
        letters = app.orchestrator.dead_letters(QUEUE)
        found = [(letter.id, letter.body) for letter in letters]
        kept = [("unreadable", b"\x80\x04not json")]
        demand("RCV-4", found == kept, f"the dead letters are {found}, not {kept}")
        reason, error = letters[0].reason, letters[0].error
        demand("RCV-4", reason == DeadReason.MALFORMED and error, f"it died of {reason!r}: {error!r}")


@check("RCV-3")
def a_job_taken_by_hand_is_one_callers(context: CheckContext) -> None:
    """Threads that take jobs by hand over one orchestrator get each its own, and none stays in flight."""
    with app_on(context) as app:
        published = [app.publish(Numbers(x=n)) for n in range(12)]

        def take_all() -> list[str]:
            jobs = iter(partial(app.orchestrator.receive_message, QUEUE), None)
            return [job.id for job in jobs]

        first = app.orchestrator.receive_message(QUEUE)  # whose consumer the threads then share
        assert first is not None
        taking = [context.start(take_all) for _ in range(3)]
        taken = [first.id, *(id_ for future in taking for id_ in context.finish(future))]

        def each_once() -> None:
            taken.extend(take_all())  # what two of them had found may have gone to neither
            demand("RCV-3", sorted(taken) == sorted(published), f"of {published}, {taken} were taken")
            counts = app.orchestrator.counts(QUEUE)
            demand("SET-1", not counts.waiting and not counts.in_flight, f"the counts are {counts}")

        context.eventually(each_once)


@check("SET-1", modes=EVERY_MODE)
def who_took_a_job_by_hand_holds_none(context: CheckContext) -> None:
    """Once a job was taken by hand, every other is another consumer's: none is held ahead."""
    with app_on(context) as app:
        published = [app.publish(Numbers(x=n)) for n in range(5)]
        assert app.orchestrator.receive_message(QUEUE) is not None
        published.append(app.publish(Numbers()))
        consumer = app.consume(app.recorder(), 5)
        demand("SET-1", consumer.ran(published[1:]), f"{published[1:]} are left, {consumer.ids} came")
