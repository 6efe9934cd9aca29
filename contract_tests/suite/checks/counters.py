"""RTY-3, SET-2, SET-4: what a delivery says of those before it, and what was sent ahead isn't charged for."""

import time
from math import inf
from typing import NamedTuple

from ...ports import Ack, ConsumerBackend, Dead, Delivery, Release, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_LATER_S = 0.2
_HISTORY = (
    *("crash", "retry", "crash", "release", "retry later", "crash", "close", "retry", "release later"),
    *("redrive", "crash", "retry", "release", "redrive", "retry", "crash"),
)
"""Each follows others, so that one that forgets what those counted is seen."""


class _Counted(NamedTuple):
    """What the next delivery must say."""

    attempt: int = 1
    crashes: int = 0
    number: int = 1

    def after(self, end: str) -> "_Counted":
        """What the delivery after such an end must say."""
        if end == "redrive":
            return _Counted(number=self.number + 1)
        is_retry, is_crash = end.startswith("retry"), end == "crash"
        return _Counted(self.attempt + is_retry, self.crashes + is_crash, self.number + 1)


@check("RTY-3", "SET-2", "SET-4", "DLQ-2")
def a_delivery_counts_all_that_were_before_it(context: CheckContext) -> None:
    """A retry spends an attempt, a crash is counted apart, and each delivery has a number above the last's.

    After a redrive the number may go on, or start at 1.
    """
    with context.queue() as queue:
        queue.publish("job")
        expected, done = _Counted(), list[str]()
        for end in (*_HISTORY, "ack"):
            lease_s = context.harness.lease_s if end == "crash" else 600.0
            consumer = queue.consumer(lease_s=lease_s)
            delivery = queue.receive_one(consumer)
            if done and done[-1] == "redrive" and delivery.number == 1:
                expected = expected._replace(number=1)
            came = _Counted(delivery.attempt, delivery.crashes, delivery.number)
            demand(_clause(done), came == expected, f"after {done}, a job came as {came}, not {expected}")
            _end(context, queue, consumer, delivery, end)
            done.append(end)
            expected = expected.after(end)


def _clause(done: list[str]) -> str:
    last = done[-1].split()[0] if done else ""
    return {"crash": "RTY-3", "retry": "SET-2", "redrive": "DLQ-2"}.get(last, "SET-4")


def _end(
    context: CheckContext, queue: QueueUnderTest, consumer: ConsumerBackend, delivery: Delivery, end: str
) -> None:
    """End a delivery, and its consumer."""
    receipt = delivery.receipt
    match end:
        case "crash":
            context.harness.crash(consumer)
            context.harness.advance(context.harness.redelivery_s(context.harness.lease_s))
            return
        case "redrive":
            queue.settle_ok(consumer, Dead(receipt, "rejected", "no good"))
            queue.expect_counts(dead=1)
            queue.backend.redrive(queue.name)
        case "retry" | "retry later":
            queue.settle_ok(consumer, Retry(receipt, _LATER_S if "later" in end else 0.0, "again"))
        case "release" | "release later":
            queue.settle_ok(consumer, Release(receipt, _LATER_S if "later" in end else 0.0))
        case "ack":
            queue.settle_ok(consumer, Ack(receipt))
    consumer.close()


# -- jobs that are sent ahead ---------------------------------------------------------------------

_JOBS = [f"job-{number}" for number in range(12)]
_AHEAD = 8
_TRIES = 4


@check("RTY-3", "SET-4", "RCV-3")
def what_is_sent_ahead_is_given_back_uncharged(context: CheckContext) -> None:
    """A consumer that may be sent jobs ahead, and is closed or releases these, takes none with it.

    A job that crosses a close may count as crashed, as if the consumer had died. One of a few tries has to be
    without, so a busy machine does no harm.
    """
    for end in ("close", "release_ahead"):
        charged: float = inf
        for _ in range(_TRIES):
            if not (charged := min(charged, _charged_after(context, end))):
                break
        demand("RTY-3", not charged, f"after a {end}, {charged} jobs that nobody was given were charged")


def _charged_after(context: CheckContext, end: str) -> int:
    """Let jobs come ahead, end that, and return how many of those that nobody was given were charged."""
    with context.backends(2) as (mine, others):
        queue, other = context.queue_on(mine), context.queue_on(others)
        queue.publish(*_JOBS)
        consumer = queue.consumer()
        consumer.allow_ahead(_AHEAD)
        first = queue.receive_one(consumer)
        taken = consumer.settle([Ack(first.receipt)], take=1).deliveries
        if end == "close":
            consumer.close()
            expected = set(_JOBS) - {first.id}
        else:
            consumer.release_ahead()
            expected = set(_JOBS) - {first.id, *(each.id for each in taken)}
        came: dict[str, Delivery] = {}
        auditor, give_up = other.consumer(), time.monotonic() + context.harness.timeout_s
        while came.keys() != expected and time.monotonic() < give_up:
            for delivery in other.receive(auditor, len(_JOBS), timeout_s=0.5):
                demand("RCV-3", delivery.id not in came, f"{delivery.id} came twice after a {end}")
                came[delivery.id] = delivery
        missing = sorted(expected - came.keys())
        demand("SET-4", not missing, f"after a {end}, {missing} never came: they were sent ahead")
        return sum((each.attempt, each.crashes) != (1, 0) for each in came.values())
