"""What shows only by the exact time, or after a long one: for harnesses whose clock can be moved."""

from hypothesis import strategies as st

from ...ports import Ack, Dead, Lease, PublishStatus
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_INSTANT_S = 1e-5
"""Shorter than any unit in which a broker counts."""
_WEEK_S = 7 * 86_400.0
_MONTH_S = 30 * 86_400.0


@check("DLY-1", "DLY-2")
def a_delay_is_kept_to_the_instant(context: CheckContext) -> None:
    """However a broker counts time, it rounds up: a job isn't there an instant before it is due."""
    harness, resolution_s = context.harness, context.capabilities.delay_resolution_s
    if not harness.virtual_time:
        return

    @context.property(delay_s=st.floats(0.001, 100.0), age_s=st.floats(0.0, 10.0))
    def _(delay_s: float, age_s: float) -> None:
        harness.advance(age_s)
        with context.queue() as queue:
            consumer = queue.consumer()
            earliest = harness.now() + delay_s
            queue.publish("job", delay_s=delay_s)
            latest = harness.now() + delay_s  # time may go by while calls are made
            harness.advance(max(0.0, earliest - harness.now() - _INSTANT_S))
            came = consumer.receive(1, 0.0)
            early_s = earliest - harness.now()
            demand("DLY-1", not came or early_s <= 0, f"it came {early_s:.6f} s before it was due")
            harness.advance(max(0.0, latest - harness.now()) + resolution_s + _INSTANT_S)
            late_s = harness.now() - latest
            demand("DLY-2", came or consumer.receive(1, 0.0), f"it was due {late_s:.6f} s ago")


@check("I1", "PUB-5", "LSE-2", "DLQ-1", "RES-1")
def a_week_changes_nothing_by_itself(context: CheckContext) -> None:
    """What is to last for longer lasts: jobs, ids, leases, dead letters and results."""
    if not context.harness.virtual_time:
        return
    with context.queue() as queue:
        consumer = queue.consumer(lease_s=_MONTH_S)
        queue.publish("done", "dead", "held")
        done, dead, held = (queue.receive_one(consumer) for _ in range(3))
        queue.settle_ok(consumer, Ack(done.receipt, b"{}", _MONTH_S))
        queue.settle_ok(consumer, Dead(dead.receipt, "rejected", "broken"))
        queue.publish("ready")
        queue.publish("delayed", delay_s=_MONTH_S)
        context.harness.advance(_WEEK_S)
        queue.expect_counts(ready=1, delayed=1, in_flight=1, dead=1)
        _expect_known(queue, "ready", "delayed", "held", "dead")
        letters = [letter.id for letter in queue.backend.dead_letters(queue.name)]
        demand("DLQ-1", letters == ["dead"], f"the dead letters are {letters}")
        if context.capabilities.results:
            result = queue.backend.result(queue.name, "done")
            demand("RES-1", result is not None and result.body == b"{}", f"of what is done, {result} is kept")
        if context.capabilities.lease is Lease.TIMED:
            queue.settle_ok(consumer, Ack(held.receipt))
        ready = queue.receive_one(consumer)
        demand("I1", (ready.id, ready.crashes) == ("ready", 0), f"{ready} came")


def _expect_known(queue: QueueUnderTest, *ids: str) -> None:
    if not queue.backend.capabilities.dedupe:
        return
    for id_ in ids:
        (outcome,) = queue.backend.publish(queue.name, [queue.message(id_)])
        is_known = outcome.status is PublishStatus.DUPLICATE
        demand("PUB-5", is_known, f"{id_}, which has not ended, was published again: {outcome.status}")
