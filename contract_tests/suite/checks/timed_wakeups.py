"""DLY-2, LSE-1: a job that is due, and a lease that ends, soon wake those who wait."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from ...ports import (
    Release,
    Retry,
)
from ..check_context import CheckContext
from ..check_queue import CLOCKS_DIFFER_S
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive
from .wakeups import SETTLED_S, HoldingConsumer, WaitingReceiver, demand_soon, woken


def _retry_later(holding: HoldingConsumer, delay_s: float) -> None:
    holding.holder.settle([Retry(holding.held.receipt, delay_s, "later")])


def _release_later(holding: HoldingConsumer, delay_s: float) -> None:
    holding.holder.settle([Release(holding.held.receipt, delay_s)])


def _publish_later(holding: HoldingConsumer, delay_s: float) -> None:
    holding.queue.publish("new", delay_s=delay_s)


DELAYS: dict[str, Callable[[HoldingConsumer, float], None]] = {
    "a retry": _retry_later,
    "a release": _release_later,
    "a publish": _publish_later,
}
"""What makes a job ready after a delay."""


@check("DLY-2", takes_long=True)
def a_job_that_is_due_wakes_a_receiver_soon(context: CheckContext) -> None:
    """A receiver that waits gets a delayed, retried or released job when it is due.

    Also if it knew of a later one when it began to wait.
    """
    resolution_s = context.capabilities.delay_resolution_s
    for what, act in DELAYS.items():
        for known in (False, True):
            cause = f"{what} that was due" + (" before a job that was known" if known else "")
            wake = partial(_wake_when_due, context, cause, act, known)
            demand_soon(context, "DLY-2", cause, wake, more_s=resolution_s)


def _wake_when_due(
    context: CheckContext, cause: str, act: Callable[[HoldingConsumer, float], None], known: bool
) -> float:
    """Wake a receiver by a job that is due, and return how many seconds too late it had that."""
    resolution_s = context.capabilities.delay_resolution_s
    soon_s = resolution_s + 0.05
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        if known:
            queue.publish("far", delay_s=3600.0)
        waiting = WaitingReceiver(context, queue, other.open_consumer(queue.name))
        sent = context.harness.now()
        act(waiting, soon_s)
        answered = context.harness.now()  # the delay began at some moment during the call
        within_s = soon_s + resolution_s + context.harness.timeout_s
        came = waiting.finish("DLY-2", cause, within_s=within_s)
        came_s = context.harness.now()
        demand("DLY-2", came.id != "far", f"after {cause}, {came.id} came")
        early_s = sent + soon_s - came_s
        demand("DLY-1", early_s <= CLOCKS_DIFFER_S, f"it came {early_s:.3f} s early")
        return came_s - answered - soon_s - waiting.take_s


@check("LSE-1")
def a_lease_granted_later_wakes_a_receiver(context: CheckContext) -> None:
    """A receiver gets the job of one that died, though the lease was granted after it began to wait.

    Which of two receivers a publish wakes is open. If it never is the one that is to die, this proves less.
    """
    harness = context.harness
    for _ in range(10):
        with context.backends(2) as (mine, other):
            queue = context.queue_on(mine)
            doomed, heir = queue.consumer(lease_s=harness.lease_s), other.open_consumer(queue.name)
            first = context.start(blocked_receive(doomed))
            time.sleep(SETTLED_S / 2)
            waiting = context.start(blocked_receive(heir))
            time.sleep(SETTLED_S)
            queue.publish("job")
            if not _took_it(context, first, waiting):
                continue
            harness.crash(doomed)
            harness.advance(harness.redelivery_s(harness.lease_s))
            (came,) = woken(context, waiting, "LSE-1", "a lease that ended")
            demand("LSE-1", (came.id, came.crashes) == ("job", 1), f"after the crash, {came} came")
            return


def _took_it(context: CheckContext, first: "Future[Any]", second: "Future[Any]") -> bool:
    """Whether the first of two receivers got a job, and not the second."""
    give_up = time.monotonic() + context.harness.timeout_s
    while not (first.done() or second.done()):
        demand("RCV-2", time.monotonic() < give_up, "a publish woke none of two receivers")
        time.sleep(0.002)
    return first.done()
