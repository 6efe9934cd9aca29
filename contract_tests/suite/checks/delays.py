"""DLY: jobs that are to run later."""

import time
from collections.abc import Collection

from hypothesis import strategies as st

from ...domain import Job, QueueKind
from ...domain.wall_clock import utcnow
from ...ports import Ack, CancelOutcome, Delivery, PublishStatus
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import CLOCKS_DIFFER_S, QueueUnderTest
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive

_TRIES = 4


@check("DLY-1", "DLY-3", "RCV-3", takes_long=True)
def nothing_is_early_and_nothing_blocks(context: CheckContext) -> None:
    """Jobs of mixed delays, published in any order, come once, when they are due, each by its own time.

    So they do where others that are yet to be due are cancelled.
    """
    step_s = context.capabilities.delay_resolution_s + 0.2
    steps = st.lists(st.sampled_from([0, 1, 2, 3, 4, _NEVER]), min_size=3, max_size=8)
    cancelled = st.sets(st.integers(0, 3), max_size=2)  # of those that are yet to be due, soonest first

    @context.waited_property(cases=2, plans=st.lists(st.tuples(steps, cancelled), min_size=6, max_size=8))
    def _(plans: list[tuple[list[int], set[int]]]) -> None:
        with context.queues(len(plans)) as queues:
            lines = [_Delayed(queue, step_s, *plan) for queue, plan in zip(queues, plans, strict=True)]
            last = max((step for steps, _ in plans for step in steps if step != _NEVER), default=0)
            for _ in range(last + 2):
                for line in lines:
                    line.look()
                context.harness.advance(step_s + _PAST_S)
            for line in lines:
                line.wait_for_the_rest()


_PAST_S = 0.01
"""How far past the moment at which jobs are due to look, also on a clock that stands still."""
_NEVER = 5_000
"""A number of steps that takes longer than any check."""


class _Delayed:
    """A queue with jobs that are each due after a number of steps, and what came of it."""

    def __init__(
        self, queue: QueueUnderTest, step_s: float, steps: list[int], cancelled: Collection[int]
    ) -> None:
        self._queue = queue
        self._now = queue.context.harness.now
        self._consumer = queue.consumer()
        self._earliest: dict[str, float] = {}
        """When each job that has not come is due at the earliest."""
        self._latest: dict[str, float] = {}
        """When each is due at the latest: the broker got it at some time during its publish."""
        self._never = {f"job-{number}" for number, step in enumerate(steps) if step == _NEVER}
        for number, step in enumerate(steps):
            id_, delay_s = f"job-{number}", step * step_s
            self._earliest[id_] = self._now() + delay_s
            queue.publish(id_, delay_s=delay_s)
            self._latest[id_] = self._now() + delay_s
        if queue.backend.capabilities.cancel:
            waiting = sorted((step, number) for number, step in enumerate(steps) if step)
            self._cancel([f"job-{waiting[rank][1]}" for rank in cancelled if rank < len(waiting)])

    def _cancel(self, ids: list[str]) -> None:
        outcomes = self._queue.backend.cancel(self._queue.name, ids)
        wrong = [outcome for outcome in outcomes if outcome is not CancelOutcome.CANCELLED]
        demand("CAN-1", not wrong, f"cancelling jobs that wait was answered {outcomes}")
        for id_ in ids:
            del self._earliest[id_]
        self._never.difference_update(ids)

    def look(self) -> None:
        """Take what is due; demand that nothing came early, twice, or is late."""
        asked = self._now()
        self._note(self._consumer.receive(10, 0.0))
        latest = asked - self._queue.context.lateness_s
        self._demand_none_of({id_ for id_ in self._earliest if self._latest[id_] < latest})

    def wait_for_the_rest(self) -> None:
        """Demand that what is still to come does, in time."""
        while rest := self._earliest.keys() - self._never:
            came = self._queue.receive(self._consumer, 10)
            self._note(came)
            if not came:
                self._demand_none_of(rest)

    def _note(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            is_expected = delivery.id in self._earliest
            demand("RCV-3", is_expected, f"{delivery.id} came twice, or though it was cancelled")
            early_s = self._earliest.pop(delivery.id) - self._now()
            demand("DLY-1", early_s <= CLOCKS_DIFFER_S, f"{delivery.id} came {early_s:.3f} s early")

    def _demand_none_of(self, late: set[str]) -> None:
        clause = "DLY-3" if self._earliest.keys() - late else "DLY-2"  # behind one that isn't due
        demand(clause, not late, f"{sorted(late)} should have come")


@check("DLY-2")
def a_blocked_receiver_is_woken_when_a_job_is_due(context: CheckContext) -> None:
    """A receiver that waits gets a delayed job when it is due, and a sooner one that is published later."""
    resolution_s = context.capabilities.delay_resolution_s
    with context.queue() as queue:
        waiting = context.start(blocked_receive(queue.consumer()))
        time.sleep(0.05)
        queue.publish("far", delay_s=3600)
        queue.publish("later", delay_s=resolution_s + 600)
        queue.publish("sooner", delay_s=resolution_s + 0.3)
        (delivery,) = context.finish(waiting, within_s=resolution_s * 2 + 0.3 + context.harness.timeout_s)
        demand("DLY-2", delivery.id == "sooner", f"{delivery.id} came first")


@check("DLY-2")
def a_consumer_that_is_always_busy_gets_what_is_due(context: CheckContext) -> None:
    """Who takes jobs only as it settles others is given delayed jobs, too."""
    harness, resolution_s = context.harness, context.capabilities.delay_resolution_s
    with context.queue() as queue:
        consumer = queue.consumer()
        queue.publish("first")
        held = queue.receive_one(consumer)
        queue.publish("due", delay_s=resolution_s + 0.3)
        harness.advance(2 * resolution_s + 0.3)
        came = consumer.settle([Ack(held.receipt)], take=1).deliveries
        elapsed_s = context.stopwatch()
        while not came and elapsed_s() < harness.timeout_s:  # the broker may send it a moment later
            came = consumer.settle([], take=1).deliveries
        demand("DLY-2", [each.id for each in came] == ["due"], f"once it was due, a settle took {came}")


@check("PUB-5", "DLY-1", "DLY-2", needs="dedupe")
def a_duplicate_moves_no_due_time(context: CheckContext) -> None:
    """A delayed job that is published again, with whatever delay, runs when it was to run at first."""
    soon_s = 2 * context.capabilities.delay_resolution_s + 0.6
    again = {"sooner": 0.0, "same": soon_s, "later": 3600.0}
    with context.queue() as queue:
        consumer = queue.consumer()
        earliest = context.harness.now() + soon_s
        queue.publish(*again, delay_s=soon_s)
        latest = context.harness.now() + soon_s
        context.harness.advance(soon_s / 2)
        messages = [queue.message(id_, delay_s=delay_s) for id_, delay_s in again.items()]
        for outcome in queue.backend.publish(queue.name, messages):
            is_known = outcome.status is PublishStatus.DUPLICATE
            demand("PUB-5", is_known, f"a delayed job published again, {outcome.id}: {outcome.status}")
        came = {queue.receive_when_due(consumer, earliest, "DLY-1").id}
        context.harness.advance(max(0.0, latest - context.harness.now()))
        while came != again.keys() and (more := queue.receive(consumer)):
            came.update(each.id for each in more)
        demand("DLY-2", came == again.keys(), f"published again, only {sorted(came)} came when they were due")


@check("DLY-3", needs="priority")
def a_later_job_of_high_priority_holds_up_none(context: CheckContext) -> None:
    """Of two jobs with one delay, the first to be due comes alone, though the other has a higher priority.

    On a busy machine both may be due when the receiver looks. So one of a few tries is enough.
    """
    delay_s = max(0.4, 4 * context.capabilities.delay_resolution_s)
    demand(
        "DLY-3",
        any(_comes_alone(context, delay_s) for _ in range(_TRIES)),
        f"{_TRIES} times a job of priority 9 came before one that was due {0.75 * delay_s:g} s sooner",
    )


def _comes_alone(context: CheckContext, delay_s: float) -> bool:
    """Whether a job comes before another of a higher priority, which is due later."""
    with context.queue(QueueKind.PRIORITY) as queue:
        waiting = context.start(blocked_receive(queue.consumer()))
        queue.publish("low", delay_s=delay_s)
        context.harness.advance(0.75 * delay_s)
        queue.publish("high", priority=9, delay_s=delay_s)
        (came,) = context.finish(waiting, within_s=2 * delay_s + context.harness.timeout_s)
        return bool(came.id == "low")


@check("DLY-3")
def a_delayed_job_waits_in_the_broker(context: CheckContext) -> None:
    """A delayed job outlives its publisher and every consumer, and is counted as delayed."""
    soon_s = context.capabilities.delay_resolution_s + 0.3
    with context.backends(2) as (publisher, other):
        queue = context.queue_on(publisher)
        consumer = queue.consumer()
        queue.publish("far", delay_s=3600)
        queue.receive_nothing(consumer)
        sent = context.harness.now()
        queue.publish("soon", delay_s=soon_s)
        consumer.close()
        publisher.close()
        successor = context.queue_on(other)
        came = successor.receive_when_due(successor.consumer(), sent + soon_s, "DLY-1").id
        demand("DLY-3", came == "soon", f"once its publisher had gone, {came} came")
        successor.expect_counts(delayed=1, in_flight=1)


@check("DLY-3")
def a_far_job_blocks_no_other(context: CheckContext) -> None:
    """Jobs that are due now pass any number of jobs that are due in a year."""
    with context.queue() as queue:
        queue.publish(*[f"far-{n}" for n in range(50)], delay_s=365 * 86_400)
        queue.publish("now")
        came = queue.receive_one(queue.consumer()).id
        demand("DLY-3", came == "now", f"{came} came before the job that is due now")
        queue.expect_counts(delayed=50, in_flight=1)


@check("DLY-1")
def the_application_delays_as_asked(context: CheckContext) -> None:
    """delay_s and a job's own not_before both hold it back; a moment that has passed doesn't."""
    with app_on(context) as app:
        app.publish(Numbers(), delay_s=3600)
        now = utcnow()
        app.publish(Job(schema_name=QUEUE, payload=Numbers(), not_before=now.replace(year=now.year - 1)))
        counts = app.orchestrator.counts(QUEUE)
        demand("DLY-1", (counts.ready, counts.delayed) == (1, 1), f"the counts are {counts}")
        demand(
            "CNT-1",
            app.orchestrator.count_queue_messages(QUEUE) == 2,
            "a delayed job doesn't count as waiting",
        )
