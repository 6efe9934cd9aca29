"""RCV: what a receiver can rely on."""

import time
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from ...domain.dead_reasons import DeadReason
from ...domain.errors import Closed, QueueNotFound
from ...ports import Ack, ConsumerBackend, Dead, Delivery, Release
from ..app import QUEUE, Numbers, Recorder, app_on
from ..bench import Bench, Rig
from ..registry import check
from ..violation import demand

_LONG_S = 300.0


@check("RCV-1")
def at_most_max_jobs_come(bench: Bench) -> None:
    """Receive returns at least one job where there is one, and never more than were asked for."""

    @bench.property(published=st.integers(0, 12), asked=st.integers(1, 15))
    def _(published: int, asked: int) -> None:
        with bench.rig() as rig:
            rig.publish(*[f"job-{n}" for n in range(published)])
            timeout_s = bench.harness.bound_s if published else 0.0
            came = bench.receive(rig.consumer(), asked, timeout_s=timeout_s)
            demand("RCV-1", len(came) <= asked, f"{len(came)} came where {asked} were asked for")
            demand("RCV-1", bool(came) == bool(published), f"{len(came)} came where {published} wait")


@check("RCV-1")
def an_empty_wait_lasts_as_long_as_asked(bench: Bench) -> None:
    """On an empty queue, receive returns empty after its timeout and not before; at once if that is 0."""
    with bench.rig() as rig:
        consumer = rig.consumer()
        assert consumer.receive(1, 0.0) == []
        elapsed_s = bench.stopwatch()
        assert bench.awaited(lambda: consumer.receive(1, 0.5)) == []
        waited_s = elapsed_s()
        demand("RCV-1", waited_s >= 0.49, f"it returned after {waited_s:.3f} s where 0.5 s were asked for")


@check("RCV-1")
def an_idle_wait_costs_no_cpu(bench: Bench) -> None:
    """A receiver that waits doesn't spin."""
    with bench.rig() as rig:
        consumer = rig.consumer()
        consumer.interrupt()  # of which nothing may be left
        assert consumer.receive(1, 0.0) == []

        def receive() -> float:
            began = time.thread_time()
            consumer.receive(1, _LONG_S)
            return time.thread_time() - began

        waiting = bench.start(receive)
        waited_s = 0.6 / _share_of_cpu()  # in which a receiver that spins takes about 0.6 s of CPU
        time.sleep(waited_s)
        consumer.interrupt()
        cpu_s = bench.finish(waiting)
        demand("RCV-1", cpu_s < 0.2, f"{waited_s:.1f} s of waiting took {cpu_s:.2f} s of CPU")


def _share_of_cpu() -> float:
    """How much CPU a busy thread gets in a second: less than one on a busy machine."""
    began, began_cpu = time.monotonic(), time.thread_time()
    while (cpu_s := time.thread_time() - began_cpu) < 0.1:
        pass
    return min(1.0, cpu_s / (time.monotonic() - began))


@check("RCV-2")
def whatever_makes_a_job_ready_wakes_a_receiver(bench: Bench) -> None:
    """A publish, a release, a retry and a redrive each end the wait of a blocked receiver at once."""

    def published(rig: Rig, _holder: ConsumerBackend, _held: Delivery) -> None:
        rig.publish("new")

    def released(_rig: Rig, holder: ConsumerBackend, held: Delivery) -> None:
        holder.settle([Release(held.receipt)])

    def redriven(rig: Rig, holder: ConsumerBackend, held: Delivery) -> None:
        holder.settle([Dead(held.receipt, "rejected", "no good")])
        rig.backend.redrive(rig.queue)

    def closed(_rig: Rig, holder: ConsumerBackend, _held: Delivery) -> None:
        holder.close()

    for event in (published, released, redriven, closed):
        with bench.backends(2) as (mine, other):
            rig = bench.rig_on(mine)
            rig.publish("held")
            holder = rig.consumer()
            held = rig.receive_one(holder)
            waiting = bench.start(blocked_receive(other.open_consumer(rig.queue)))
            time.sleep(0.05)
            event(rig, holder, held)
            came = bench.finish(waiting)
            demand("RCV-2", len(came) == 1, f"{event.__name__}: the receiver came back with {len(came)} jobs")


def blocked_receive(consumer: ConsumerBackend) -> Callable[[], list[Delivery]]:
    """A receive that only a job, an interrupt or a close can end."""
    return lambda: consumer.receive(1, _LONG_S)


@check("RCV-2")
def no_wakeup_is_lost_to_a_receiver_that_leaves(bench: Bench) -> None:
    """Of two blocked receivers one leaves just as a job comes: the other gets it, if the first didn't."""
    for attempt in range(30):
        with bench.rig() as rig:
            leaving, staying = rig.consumer(), rig.consumer()
            first = bench.start(blocked_receive(leaving))
            second = bench.start(blocked_receive(staying))
            time.sleep(0.002)
            racing = bench.start(leaving.interrupt)
            rig.publish("job")
            bench.finish(racing)
            taken = bench.finish(first)
            if taken:
                staying.interrupt()
            came = bench.finish(second)
            demand("RCV-2", len(taken) + len(came) == 1, f"try {attempt}: {len(taken) + len(came)} came")


@check("RCV-2")
def every_blocked_receiver_gets_a_job(bench: Bench) -> None:
    """Three blocked receivers and three jobs: each gets one, though each job is published alone."""
    with bench.rig() as rig:
        waiting = [bench.start(blocked_receive(rig.consumer())) for _ in range(3)]
        time.sleep(0.05)
        for number in range(3):
            rig.publish(f"job-{number}")
        came = [delivery.id for future in waiting for delivery in bench.finish(future)]
        demand("RCV-2", sorted(came) == ["job-0", "job-1", "job-2"], f"they got {came}")


@check("RCV-2")
def a_blocked_receiver_can_be_ended(bench: Bench) -> None:
    """Interrupt ends the wait, or else the next one; close raises Closed; a deleted queue QueueNotFound."""
    with bench.rig() as rig:
        consumer = rig.consumer()
        waiting = bench.start(blocked_receive(consumer))
        time.sleep(0.05)
        consumer.interrupt()
        assert bench.finish(waiting) == []
        consumer.interrupt()
        assert bench.finish(bench.start(blocked_receive(consumer))) == []

        waiting = bench.start(blocked_receive(consumer))
        time.sleep(0.05)
        consumer.close()
        assert isinstance(bench.failure(waiting), Closed)

        waiting = bench.start(blocked_receive(rig.consumer()))
        time.sleep(0.05)
        rig.backend.delete(rig.queue)
        assert isinstance(bench.failure(waiting), QueueNotFound)


@check("RCV-3")
def a_job_is_with_one_consumer(bench: Bench) -> None:
    """Four consumers in threads of their own drain a queue: each job is delivered once."""
    jobs = 200
    with bench.rig() as rig:
        rig.publish(*[f"job-{n}" for n in range(jobs)])

        def drain(consumer: ConsumerBackend) -> list[str]:
            came: list[str] = []
            while deliveries := consumer.receive(7, 0.0):
                came += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
            return came

        consumers = [rig.consumer() for _ in range(4)]
        futures = [bench.start(partial(drain, consumer)) for consumer in consumers]
        came = [id_ for future in futures for id_ in bench.finish(future)]
        demand("RCV-3", len(came) == len(set(came)), "a job was delivered twice")
        came += rig.drain(rig.consumer(), jobs - len(came))
        demand("I1", sorted(came) == sorted(f"job-{n}" for n in range(jobs)), f"{len(came)} of {jobs} came")
        rig.expect_counts()


@check("RCV-4", "SEC-2")
def an_unreadable_body_never_stops_a_consumer(bench: Bench) -> None:
    """A body that is no envelope is dead-lettered with its reason; the jobs around it run."""
    with app_on(bench) as app:
        before = app.publish(Numbers(x=1))
        app.publish_raw("unreadable", b"\x80\x04not json")
        after = app.publish(Numbers(x=2))
        consumer = app.consume(Recorder(), 3)
        assert consumer.ids == [before, after]
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        assert (letter.id, letter.body) == ("unreadable", b"\x80\x04not json")
        assert letter.reason == DeadReason.MALFORMED
        assert letter.error


@check("RCV-3")
def a_job_taken_by_hand_is_one_callers(bench: Bench) -> None:
    """Threads that take jobs by hand over one orchestrator get each its own, and none stays in flight."""
    with app_on(bench) as app:
        published = [app.publish(Numbers(x=n)) for n in range(12)]

        def take_all() -> list[str]:
            jobs = iter(partial(app.orchestrator.receive_message, QUEUE), None)
            return [job.id for job in jobs]

        first = app.orchestrator.receive_message(QUEUE)  # whose consumer the threads then share
        assert first is not None
        taking = [bench.start(take_all) for _ in range(3)]
        taken = [first.id, *(id_ for future in taking for id_ in bench.finish(future))]

        def each_once() -> None:
            taken.extend(take_all())  # what two of them had found may have gone to neither
            demand("RCV-3", sorted(taken) == sorted(published), f"of {published}, {taken} were taken")
            counts = app.orchestrator.counts(QUEUE)
            demand("SET-1", not counts.waiting and not counts.in_flight, f"the counts are {counts}")

        bench.retried(each_once)


@check("SET-1")
def who_took_a_job_by_hand_holds_none(bench: Bench) -> None:
    """Once a job was taken by hand, every other is another consumer's: none is held ahead."""
    with app_on(bench) as app:
        published = [app.publish(Numbers(x=n)) for n in range(5)]
        assert app.orchestrator.receive_message(QUEUE) is not None
        published.append(app.publish(Numbers()))
        consumer = app.consume(Recorder(), 5)
        demand("SET-1", consumer.ids == published[1:], f"{published[1:]} are left, {consumer.ids} came")
