"""RCV-2, DLY-2, LSE-1, RES-1: every cause wakes who waits, also if nobody who waits looks by himself.

A poll hides a wake-up that is lost. So the clients that wait here are made without one. Then no clock tells a
wake-up from a poll: what isn't woken waits until the check fails.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any

from ...ports import Ack, Dead, JobResult, OrchestratorBackend, ResultStatus
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive
from .timed_wakeups import DELAYS
from .wakeups import CAUSES, LONG_S, NEXT_JOBS, SETTLED_S, HoldingConsumer, publish_guarded, woken

_WAITED_FOR_S = 0.05
"""How long a delay is, but for what the broker rounds up."""


def _queue(
    context: CheckContext, acting: OrchestratorBackend, patient: OrchestratorBackend, name: str
) -> QueueUnderTest:
    """Declare a queue where its receivers will wait, and return it as the client has it that acts."""
    context.queue_on(patient, name=name)
    return QueueUnderTest(context, acting, name)


def _wait(context: CheckContext, patient: OrchestratorBackend, queue: QueueUnderTest) -> "Future[Any]":
    """Have a consumer wait in a queue."""
    consumer = QueueUnderTest(context, patient, queue.name).consumer()
    return context.start(blocked_receive(consumer, max_jobs=3))


def _woken(
    context: CheckContext, waiting: "Future[Any]", clause: str, cause: str, more_s: float = 0.0
) -> Any:
    """Return what a blocked call returned, which ``cause`` must have woken: nothing else does."""
    return woken(
        context, waiting, clause, f"without polls, {cause}", within_s=context.harness.timeout_s + more_s
    )


def _demand_wakeups(
    context: CheckContext,
    clause: str,
    causes: Mapping[str, Callable[[HoldingConsumer], None]],
    *,
    knows_of_delay: bool = False,
    more_s: float = 0.0,
) -> None:
    """Demand that each cause wakes a receiver that waits in a queue of its own."""
    with context.client_without_polling() as clients:
        if clients is None:
            return
        acting, patient = clients
        holding = {
            cause: HoldingConsumer(_queue(context, acting, patient, f"jobs-{number}"))
            for number, cause in enumerate(causes)
        }
        if knows_of_delay:
            for each in holding.values():
                each.queue.publish("far", delay_s=3600.0)
        waiting = {cause: _wait(context, patient, each.queue) for cause, each in holding.items()}
        time.sleep(SETTLED_S)
        for cause, act in causes.items():
            act(holding[cause])
            came = _woken(context, waiting[cause], clause, cause, more_s)
            demand(clause, came[0].id != "far", f"after {cause}, {came[0].id} came")


@check("RCV-2")
def no_receiver_needs_a_poll(context: CheckContext) -> None:
    """Whatever makes a job ready wakes a receiver that never looks by itself; an interrupt ends its wait."""
    _demand_wakeups(context, "RCV-2", CAUSES)
    with context.client_without_polling() as clients:
        if clients is None:
            return
        queue = context.queue_on(clients[1])
        receiver = queue.consumer()
        waiting = context.start(blocked_receive(receiver))
        time.sleep(SETTLED_S)
        receiver.interrupt()
        try:
            came = context.finish(waiting)
        except AssertionError as error:
            demand("RCV-2", False, f"without polls, an interrupt ended no wait: {error}")
        demand("RCV-2", came == [], f"an interrupted receive returned {came}")


@check("RCV-2")
def no_receiver_of_a_batch_needs_a_poll(context: CheckContext) -> None:
    """A batch wakes as many receivers as it has jobs, though none of them looks by itself."""
    with context.client_without_polling() as clients:
        if clients is None:
            return
        acting, patient = clients
        queue = _queue(context, acting, patient, "jobs")
        ids = ["new-0", "new-1", "new-2"]
        waiting = [
            context.start(blocked_receive(QueueUnderTest(context, patient, "jobs").consumer())) for _ in ids
        ]
        time.sleep(SETTLED_S)
        queue.publish(*ids)
        came = [_woken(context, each, "RCV-2", "a publish of three")[0].id for each in waiting]
        demand("RCV-2", sorted(came) == ids, f"a publish of {ids} woke three receivers, which got {came}")


def _with(delay_s: float, act: Callable[[HoldingConsumer, float], None]) -> Callable[[HoldingConsumer], None]:
    return lambda holding: act(holding, delay_s)


@check("DLY-2", takes_long=True)
def no_delay_needs_a_poll(context: CheckContext) -> None:
    """A job that is delayed while a receiver waits wakes it when due, also if it knew of a later one."""
    delay_s = context.capabilities.delay_resolution_s + _WAITED_FOR_S
    causes = {f"{what} that was due": _with(delay_s, act) for what, act in DELAYS.items()}
    more_s = delay_s + context.capabilities.delay_resolution_s
    _demand_wakeups(context, "DLY-2", causes, more_s=more_s)
    _demand_wakeups(context, "DLY-2", causes, knows_of_delay=True, more_s=more_s)


@check("LSE-1")
def the_end_of_a_lease_needs_no_poll(context: CheckContext) -> None:
    """A receiver gets the job of one that died, though it never looks by itself."""
    harness = context.harness
    with context.client_without_polling() as clients:
        if clients is None:
            return
        acting, patient = clients
        queue = _queue(context, acting, patient, "jobs")
        holding = HoldingConsumer(queue, lease_s=harness.lease_s)
        waiting = _wait(context, patient, queue)
        time.sleep(SETTLED_S)
        harness.crash(holding.holder)
        harness.advance(harness.redelivery_s(harness.lease_s))
        (came,) = _woken(context, waiting, "LSE-1", "the end of a lease")
        demand("LSE-1", (came.id, came.crashes) == ("held", 1), f"after the crash, {came} came")


@check("PUB-7", "RCV-2", needs="transactional_publish")
def a_commit_needs_no_poll(context: CheckContext) -> None:
    """A commit wakes a receiver that never looks by itself, whenever the publish was.

    Before it began to wait, while it waited, and before a job that it got meanwhile.
    """
    with context.client_without_polling() as clients:
        if clients is None:
            return
        acting, patient = clients
        queue = _queue(context, acting, patient, "jobs")
        consumer = QueueUnderTest(context, patient, "jobs").consumer()

        def wait() -> "Future[Any]":
            waiting = context.start(blocked_receive(consumer))
            time.sleep(SETTLED_S)
            return waiting

        def demand_it(waiting: "Future[Any]", cause: str, id_: str) -> None:
            (came,) = _woken(context, waiting, "PUB-7", cause)
            demand("PUB-7", came.id == id_, f"after {cause}, {came.id} came, and not {id_}")

        for id_, when in (("a", "before the wait"), ("b", "during the wait"), ("c", "before another job")):
            with closing(context.harness.open_connection(acting)) as connection:
                waiting = wait() if when == "during the wait" else None
                acting.publish_in(connection, queue.name, [queue.message(id_)])
                waiting = waiting or wait()
                if when == "before another job":
                    queue.publish("other")
                    demand_it(waiting, "a publish beside an open transaction", "other")
                    waiting = wait()
                connection.commit()
                demand_it(waiting, f"the commit of a publish {when}", id_)


@check("CRD-4", "RCV-2", needs="guarded_publish")
def a_guarded_publish_needs_no_poll(context: CheckContext) -> None:
    """A job that is published under a guard wakes a receiver that never looks by itself."""
    _demand_wakeups(context, "CRD-4", {"a guarded publish": publish_guarded})


@check("THEN-1", "RCV-2", needs="then")
def a_next_job_needs_no_poll(context: CheckContext) -> None:
    """A job that an ack publishes wakes a receiver that never looks by itself."""
    _demand_wakeups(context, "THEN-1", NEXT_JOBS)


@check("RES-1", needs="results")
def no_wait_for_a_result_needs_a_poll(context: CheckContext) -> None:
    """An ack with a result, one without, and a death each wake a caller that never looks by itself."""
    ends: dict[str, tuple[Callable[[str], Ack | Dead], JobResult]] = {
        "an ack with a result": (lambda receipt: Ack(receipt, b"1"), JobResult(ResultStatus.DONE, b"1")),
        "an ack without a result": (Ack, JobResult(ResultStatus.DONE)),
        "a death": (
            lambda receipt: Dead(receipt, "rejected", "no good"),
            JobResult(ResultStatus.FAILED, error="no good"),
        ),
    }
    with context.client_without_polling() as clients:
        if clients is None:
            return
        acting, patient = clients
        for number, (cause, (make, expected)) in enumerate(ends.items()):
            holding = HoldingConsumer(_queue(context, acting, patient, f"jobs-{number}"))
            ask = partial(patient.result, holding.queue.name, "held", timeout_s=LONG_S)
            waiting = context.start(ask)
            time.sleep(SETTLED_S)
            holding.holder.settle([make(holding.held.receipt)])
            found = _woken(context, waiting, "RES-1", cause)
            demand("RES-1", found == expected, f"after {cause}, who waited got {found}, expected {expected}")
