"""LSE-4: what a consumer is told, and can still do, once the lease of its job is lost."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from hypothesis import strategies as st

from ...domain import Job
from ...domain.errors import QueueNotFound
from ...ports import (
    Ack,
    Dead,
    Lease,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..modes import EVERY_MODE
from ..registry import check
from ..violation import demand


@check("LSE-4")
def a_stale_receipt_changes_nothing(context: CheckContext) -> None:
    """Whatever is settled under a lease that was lost answers LOST, and the new holder is undisturbed."""
    harness = context.harness
    if context.capabilities.lease is Lease.CONNECTION:
        _severed_receipts_are_lost(context)
        return
    makers: list[Callable[[str], Settlement]] = [
        lambda receipt: Ack(receipt, b"{}"),
        lambda receipt: Retry(receipt, 0.0, "late"),
        lambda receipt: Dead(receipt, "rejected", "late"),
        Release,
    ]

    @context.property(maker=st.sampled_from(makers), held_again=st.booleans())
    def _(maker: Callable[[str], Settlement], held_again: bool) -> None:
        with context.queue() as queue:
            queue.publish("job")
            slow, successor = queue.consumer(lease_s=harness.lease_s), queue.consumer()
            stale = queue.receive_one(slow).receipt
            harness.advance(harness.redelivery_s(harness.lease_s))
            held = queue.receive_one(successor) if held_again else None
            outcome = queue.settle(slow, maker(stale))
            demand("LSE-4", outcome is SettleOutcome.LOST, f"a late settlement was answered {outcome}")
            demand("LSE-4", slow.extend([stale]) == [SettleOutcome.LOST], "a late extension wasn't LOST")
            queue.expect_counts(ready=int(held is None), in_flight=int(held is not None))
            held = held or queue.receive_one(successor)
            demand("LSE-4", held.attempt == 1, "a late settlement spent an attempt")
            queue.settle_ok(successor, Ack(held.receipt))
            queue.expect_counts()


def _severed_receipts_are_lost(context: CheckContext) -> None:
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        stale = queue.receive_one(consumer).receipt
        context.harness.sever(queue.backend)
        again = queue.receive_one(queue.consumer())
        demand("LSE-4", consumer.extend([stale]) == [SettleOutcome.LOST], "a late extension wasn't LOST")
        outcome = queue.settle(consumer, Ack(stale))
        demand("LSE-4", outcome is SettleOutcome.LOST, f"a late settlement was answered {outcome}")
        demand("RTY-3", again.crashes == 1, f"after one lost connection it tells of {again.crashes} crashes")


@check("LSE-4")
def a_receipt_that_never_was_is_lost(context: CheckContext) -> None:
    """A made-up receipt, or another consumer's from another queue, answers LOST and does nothing."""

    @context.property(receipt=st.text(max_size=40))
    def _(receipt: str) -> None:
        with context.queue() as queue:
            queue.publish("job")
            consumer = queue.consumer()
            held = queue.receive_one(consumer)
            if receipt == held.receipt:
                return
            outcomes = consumer.settle([Ack(receipt), Ack(held.receipt)]).outcomes
            demand("LSE-4", outcomes == [SettleOutcome.LOST, SettleOutcome.OK], f"{receipt!r}: {outcomes}")


@check("LSE-4", modes=EVERY_MODE)
def the_handler_is_told(context: CheckContext) -> None:
    """A handler whose job is no longer its own can see so, and its settlement counts as lost."""
    mode, timeout_s = context.mode, context.harness.timeout_s
    lease_s = 3.0  # none may run out while a hundred handlers start on a busy machine
    with app_on(context) as app:
        ids = app.publish_many(mode.at_once)
        all_run, told = threading.Barrier(mode.side_by_side), list[str]()

        def handler(job: Job[Numbers]) -> None:
            all_run.wait(timeout_s)
            if job.id == ids[0] and context.capabilities.lease is Lease.CONNECTION:
                context.harness.sever(app.backend)
            elif job.id == ids[0]:
                app.backend.delete(QUEUE)
            give_up = time.monotonic() + timeout_s
            while not consumer.is_told(job) and time.monotonic() < give_up:
                context.pass_time(0.05) if job.id == ids[0] else time.sleep(0.05)
            told.extend([job.id] * consumer.is_told(job))

        with app.recorder(handler, batch_wait_s=timeout_s) as consumer:
            consumer.connect(app.orchestrator, lease_s=lease_s)
            with suppress(QueueNotFound):
                consumer.consume(len(ids))
            ran = consumer.ids  # on a slow machine one of them twice: a lease that ran out is lost as well
            demand("LSE-4", sorted(told) == sorted(ran), f"of the handlers of {ran}, {told} were told")
            demand("LSE-4", consumer.stats.lost == len(ids), f"the consumer counts {consumer.stats}")
