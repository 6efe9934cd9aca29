"""RES-1: what ends a job or its queue soon wakes those who wait for its result."""

import itertools
import time
from collections.abc import Callable
from functools import partial

from ...domain.errors import QueueNotFound
from ...ports import (
    Ack,
    Dead,
    JobResult,
    ResultStatus,
)
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand
from .wakeups import LONG_S, SETTLED_S, demand_soon, woken


@check("RES-1", needs="results")
def every_end_wakes_those_who_wait_for_a_result(context: CheckContext) -> None:
    """An ack with a result, one without, and a death each wake three who wait, within the harness's bound."""
    ends: dict[str, tuple[Callable[[str], Ack | Dead], JobResult]] = {
        "an ack with a result": (lambda receipt: Ack(receipt, b"1"), JobResult(ResultStatus.DONE, b"1")),
        "an ack without a result": (Ack, JobResult(ResultStatus.DONE)),
        "a death": (
            lambda receipt: Dead(receipt, "rejected", "no good"),
            JobResult(ResultStatus.FAILED, error="no good"),
        ),
    }
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        consumer = queue.consumer()
        numbers = itertools.count()

        def wake(cause: str, make: Callable[[str], Ack | Dead], expected: JobResult) -> float:
            id_ = f"job-{next(numbers)}"
            queue.publish(id_)
            held = queue.receive_one(consumer)
            ask = partial(other.result, queue.name, id_, timeout_s=LONG_S)
            waiting = [context.start(ask) for _ in range(3)]
            time.sleep(SETTLED_S)
            consumer.settle([make(held.receipt)])
            began = time.monotonic()
            found = [woken(context, each, "RES-1", cause) for each in waiting]
            demand("RES-1", found == [expected] * 3, f"{cause}: three who waited got {found}")
            return time.monotonic() - began

        for cause, (make, expected) in ends.items():
            demand_soon(context, "RES-1", cause, partial(wake, cause, make, expected))


@check("RES-1", "ADM-3", needs="results")
def a_delete_ends_the_wait_for_a_result(context: CheckContext) -> None:
    """Who waits for a result of a queue that is deleted is told so at once: QueueNotFound."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        queue.publish("job")
        waiting = context.start(partial(other.result, queue.name, "job", timeout_s=LONG_S))
        time.sleep(SETTLED_S)
        queue.backend.delete(queue.name)
        error = context.failure(waiting)
        demand("RES-1", waiting.done(), f"a delete woke nobody who waited for a result: {error}")
        demand("ADM-3", isinstance(error, QueueNotFound), f"who waited for a result got {error!r}")


@check("RES-1", needs="results")
def who_stops_waiting_for_a_result_takes_no_wakeup_along(context: CheckContext) -> None:
    """Of three who wait for a result, one leaves as its time is up: the others are told of the end."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        queue.publish("job")
        consumer = queue.consumer()
        held = queue.receive_one(consumer)
        waiting = [
            context.start(partial(other.result, queue.name, "job", timeout_s=LONG_S)) for _ in range(2)
        ]
        time.sleep(SETTLED_S)
        left = context.call_in_time(partial(other.result, queue.name, "job", timeout_s=0.2))
        demand("RES-1", left is None, f"before the job ended, its result was {left}")
        consumer.settle([Ack(held.receipt, b"1")])
        found = [woken(context, each, "RES-1", "an ack after one waiter had left") for each in waiting]
        expected = JobResult(ResultStatus.DONE, b"1")
        demand("RES-1", found == [expected] * 2, f"two who waited on got {found}, expected {expected}")
