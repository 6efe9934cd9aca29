"""Many threads at once: every job is done once, and the account adds up."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Orchestrator, Reject, RetryLater, job_from_schema

MakeConsumer = Callable[..., Consumer]
PRODUCERS, CONSUMERS, EACH = 4, 4, 500


@pytest.mark.parametrize("queue_type", ["fifo", "stack", "priority"])
def test_the_account_adds_up(
    make_consumer: MakeConsumer, background: Any, eventually: Any, schema: Any, queue_type: str
) -> None:
    """What was published is done or dead, each exactly once, whoever did it (I1, I4, CNT-1)."""
    with Orchestrator("memory://") as orchestrator:
        orchestrator.register(schema, queue_type)
        ran: Counter[float] = Counter()
        lock = threading.Lock()

        def work(job: Any) -> dict[str, float]:
            with lock:
                ran[job.payload.x] += 1
            fate = job.payload.x % 10
            if fate == 0:
                raise Reject
            if fate == 1 and job.attempt == 1:
                raise RetryLater(0.001)
            if fate == 2 and job.attempt == 1:
                raise ValueError
            return {"total": job.payload.x}

        def produce(producer: int) -> list[str]:
            ids = []
            for n in range(0, EACH, 5):
                numbers = [producer * EACH + n + k for k in range(5)]
                first, *others = ({"x": number} for number in numbers)
                ids.append(orchestrator.publish("points", first))
                ids.extend(handle.id for handle in orchestrator.publish_batch("points", others))
            return ids

        consumers = [make_consumer(work, to=orchestrator, poll_timeout_s=60) for _ in range(CONSUMERS)]
        consuming = [background(consumer.consume) for consumer in consumers]
        producing = [background(produce, producer) for producer in range(PRODUCERS)]
        ids = [id_ for produced in producing for id_ in produced.result()]
        total = PRODUCERS * EACH
        eventually(lambda: sum(c.stats.done + c.stats.dead for c in consumers) == total)
        for consumer in consumers:
            consumer.stop()
        attempted = sum(future.result() for future in consuming)

        assert len(set(ids)) == total
        assert len(ran) == total
        assert all(times == (2 if x % 10 in (1, 2) else 1) for x, times in ran.items())
        assert attempted == ran.total()
        stats = [consumer.stats for consumer in consumers]
        assert sum(s.dead for s in stats) == total / 10
        assert sum(s.retried for s in stats) == total / 5
        assert sum(s.lost for s in stats) == 0
        counts = orchestrator.counts("points")
        assert (counts.ready, counts.delayed, counts.in_flight, counts.dead) == (0, 0, 0, total / 10)
        dead = {letter.id for letter in orchestrator.dead_letters("points", limit=total)}
        assert sum(orchestrator.result("points", id_).total for id_ in set(ids) - dead) == sum(
            x for x in ran if x % 10
        )


def test_one_id_published_from_many_threads_is_one_job(
    orchestrator: Orchestrator, background: Any, schema: Any
) -> None:
    """Whoever comes first (PUB-5)."""
    job = job_from_schema(schema, {})
    barrier = threading.Barrier(8)

    def publish() -> str:
        barrier.wait()
        return orchestrator.publish("points", job)

    assert {future.result() for future in [background(publish) for _ in range(8)]} == {job.id}
    assert orchestrator.count_queue_messages("points") == 1


def test_consumers_that_come_and_go_lose_nothing(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """Stopped and closed in the middle of their batches, again and again (SET-4, CON-2)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(2000)])
    ran: Counter[float] = Counter()
    lock = threading.Lock()

    def come_and_go() -> None:
        def work(job: Any) -> None:
            with lock:
                ran[job.payload.x] += 1
            if job.payload.x % 5 == 0:
                consumer.stop()

        while orchestrator.count_queue_messages("points"):
            consumer = make_consumer(work, prefetch=7)
            consumer.consume_until_empty()
            consumer.close()

    for worker in [background(come_and_go) for _ in range(4)]:
        worker.result()

    assert len(ran) == 2000
    assert set(ran.values()) == {1}
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight) == (0, 0)
