"""LSE: what keeps a job with its consumer, and what brings it back."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from unittest import mock

from hypothesis import strategies as st

from ...domain import Job
from ...ports import (
    Ack,
    ConsumerBackend,
    Delivery,
    Lease,
    SettleOutcome,
)
from ..app import QUEUE, Numbers, Total, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..held_lease import HeldLease
from ..modes import MANY_AT_ONCE, ONE_AT_A_TIME
from ..registry import check
from ..violation import demand
from ..worker_clock import OFFSETS_S, calendar_off_by
from .receiving import blocked_receive

_SHORT_S = 0.15
"""A lease on a clock that stands still."""


@check("LSE-1")
def a_dead_consumer_loses_no_job(context: CheckContext) -> None:
    """However many jobs a consumer held when it died, each comes back once, and says so."""
    harness = context.harness

    numbers = st.integers(1, 8)

    @context.waited_property(plans=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
    def _(plans: list[tuple[int, int]]) -> None:
        with context.queues(len(plans)) as queues:
            held: list[set[str]] = []
            for queue, (published, taken) in zip(queues, plans, strict=True):
                queue.publish(*[f"job-{n}" for n in range(published)])
                doomed = queue.consumer(lease_s=harness.lease_s)
                held.append({delivery.id for delivery in queue.receive(doomed, taken)})
                harness.crash(doomed)
            harness.advance(harness.redelivery_s(harness.lease_s))
            for queue, (published, _), lost in zip(queues, plans, held, strict=True):
                _expect_inherited(queue, published, lost)


def _expect_inherited(queue: QueueUnderTest, published: int, lost: set[str]) -> None:
    successor, crashes = queue.consumer(), dict[str, int]()
    for _ in range(published):
        delivery = queue.receive_one(successor)
        crashes[delivery.id] = delivery.crashes
        queue.settle_ok(successor, Ack(delivery.receipt))
    demand("LSE-1", len(crashes) == published, f"{len(crashes)} of {published} came")
    for id_, count in crashes.items():
        demand("RTY-3", count == (id_ in lost), f"{id_} tells of {count} crashes")


@check("LSE-1")
def a_blocked_receiver_inherits_from_the_dead(context: CheckContext) -> None:
    """A receiver that was waiting all along gets the job of a consumer that died, without asking again.

    So it does while jobs are delayed that are due later than that.
    """
    for delayed in ((), ("far", "further")):
        _inherit(context, delayed)


def _inherit(context: CheckContext, delayed: Sequence[str]) -> None:
    harness = context.harness
    with context.queue() as queue:
        for place, id_ in enumerate(delayed):
            queue.publish(id_, delay_s=3600.0 * (1 + place))
        successor = queue.consumer()
        waiting = context.start(blocked_receive(successor))
        time.sleep(0.05)
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.publish("other")
        (first,) = context.finish(waiting)
        # Only now, or its lease might end while the blocked receiver is still about to take the first.
        queue.publish("job")
        held = queue.receive_one(doomed)
        taken = (first.id, held.id)
        demand("LSE-1", taken == ("other", "job"), f"the receiver and the doomed took {taken}")
        waiting = context.start(blocked_receive(successor))
        time.sleep(0.05)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        (inherited,) = context.finish(waiting)
        demand("LSE-1", inherited.id == held.id, f"{inherited.id} came, expected {held.id}")
        demand("RTY-3", inherited.crashes == 1, f"after one crash it tells of {inherited.crashes}")


@check("LSE-2")
def an_expired_lease_frees_the_job(context: CheckContext) -> None:
    """A timed lease that isn't extended runs out; one that hangs on a connection doesn't while that lives."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        slow, other = queue.consumer(lease_s=harness.lease_s), queue.consumer()
        asked = harness.now()
        held = queue.receive_one(slow)
        if context.capabilities.lease is Lease.CONNECTION:
            harness.advance(harness.redelivery_s(harness.lease_s))
            queue.receive_nothing(other)
            queue.settle_ok(slow, Ack(held.receipt))
            return
        left_s = held.deadline_s or 0.0
        demand(
            "LSE-2", 0.0 < left_s <= harness.lease_s, f"granted for {harness.lease_s:g} s, it has {left_s} s"
        )
        again = queue.receive_when_due(other, asked + harness.lease_s, "LSE-2")
        demand("LSE-2", (again.number, again.attempt, again.crashes) == (2, 1, 1), f"it came as {again}")
        demand("LSE-4", again.receipt != held.receipt, "it came under the same receipt")


@check("LSE-2")
def a_lease_begins_when_its_job_comes(context: CheckContext) -> None:
    """However long its consumer had waited for it: nobody else gets the job within a lease from then on."""
    harness = context.harness
    if context.capabilities.lease is Lease.CONNECTION:
        return  # it ends with the connection alone
    with context.queue() as queue:
        slow, other = queue.consumer(lease_s=harness.lease_s), queue.consumer()
        waiting = context.start(blocked_receive(slow, max_jobs=3))
        time.sleep(0.05)
        harness.advance(harness.lease_s / 2)
        published = harness.now()
        queue.publish("job")
        context.finish(waiting)
        harness.advance(harness.lease_s * 3 / 4)
        queue.receive_when_due(other, published + harness.lease_s, "LSE-2")


@check("LSE-2", "RTY-3")
def a_lease_that_is_over_isnt_ended_by_close(context: CheckContext) -> None:
    """Its job was lost before, and says so: closing gives back only what is held."""
    harness = context.harness
    if context.capabilities.lease is Lease.CONNECTION:
        return  # it ends with the connection alone
    with context.queue() as queue:
        queue.publish("job")
        slow = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(slow)
        harness.advance(harness.redelivery_s(harness.lease_s))
        slow.close()
        crashes = queue.receive_one(queue.consumer()).crashes
        demand("RTY-3", crashes == 1, f"its lease ran out once, and it tells of {crashes} crashes")


@check("LSE-1", "LSE-2")
def a_lease_that_was_extended_ends_as_well(context: CheckContext) -> None:
    """However often it was extended just before its consumer died, it ends lease_s after the last time."""
    harness = context.harness
    lease_s = max(1.0, harness.lease_s)
    if context.capabilities.lease is Lease.CONNECTION:
        return  # there is nothing to extend
    with context.queue() as queue:
        queue.publish("job")
        doomed, heir = queue.consumer(lease_s=lease_s), queue.consumer()
        receipt = queue.receive_one(doomed).receipt
        for _ in range(5 + int(harness.timeout_s / lease_s)):  # added up, these are longer than anybody waits
            doomed.extend([receipt])
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(lease_s))
        came = heir.receive(1, 0.0) or queue.receive(heir)
        demand(
            "LSE-1", came, f"extended for {lease_s:g} s, a lease lasts longer than {harness.timeout_s:g} s"
        )


@check("LSE-3")
def extending_keeps_the_job(context: CheckContext) -> None:
    """A consumer that extends in time keeps its job over many leases."""

    @context.keep_lease
    def _(lease: HeldLease) -> None:
        with context.queue() as queue:
            queue.publish("job")
            holder, other = queue.consumer(lease_s=lease.seconds), queue.consumer()
            held = lease.renewed_by(lambda: queue.receive_one(holder))
            for part in (1 / 4, 5 / 6, 1 / 2, 1 / 4, 5 / 6, 1 / 2):  # an early one counts, too
                context.harness.advance(lease.seconds * part)
                lease.renewed_by(lambda: _extend(holder, [held.receipt]))
                queue.receive_nothing(other)
            queue.settle_ok(holder, Ack(held.receipt))


def _extend(holder: ConsumerBackend, receipts: list[str]) -> None:
    outcomes = holder.extend(receipts)
    kept_all = outcomes == [SettleOutcome.OK] * len(receipts)
    demand("LSE-3", kept_all, f"extending what is held was answered {outcomes}")


@check("LSE-2", "LSE-3")
def extending_one_keeps_no_other(context: CheckContext) -> None:
    """Of several jobs that a consumer holds, those come back whose leases it doesn't extend."""
    if context.capabilities.lease is Lease.CONNECTION:
        an_expired_lease_frees_the_job(context)
        return

    @context.waited_property(plans=st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=3))
    def _(plans: list[set[int]]) -> None:
        context.keep_lease(lambda lease: _extend_some(context, plans, lease))


def _extend_some(context: CheckContext, plans: list[set[int]], lease: HeldLease) -> None:
    """Hold four jobs of each queue, and extend the ``plans`` of them until the others have come back."""
    harness = context.harness
    with context.queues(len(plans)) as queues:
        for queue in queues:
            queue.publish(*[f"job-{n}" for n in range(4)])
        holders = [queue.consumer(lease_s=lease.seconds) for queue in queues]
        held = lease.renewed_by(
            lambda: [
                [queue.receive_one(holder).receipt for _ in range(4)]
                for queue, holder in zip(queues, holders, strict=True)
            ]
        )
        kept = [[receipts[n] for n in sorted(some)] for receipts, some in zip(held, plans, strict=True)]

        def extend_all() -> None:
            for holder, receipts in zip(holders, kept, strict=True):
                _extend(holder, receipts)

        over = harness.now() + harness.redelivery_s(lease.seconds)
        while harness.now() < over:
            harness.advance(lease.seconds / 4)
            lease.renewed_by(extend_all)
        for queue, some, holder, receipts in zip(queues, plans, holders, kept, strict=True):
            _expect_back(queue, {f"job-{n}" for n in range(4) if n not in some})
            outcomes = holder.settle([Ack(receipt) for receipt in receipts]).outcomes
            kept_all = set(outcomes) <= {SettleOutcome.OK}
            demand("LSE-3", kept_all, f"what was extended was answered {outcomes}")


def _expect_back(queue: QueueUnderTest, expected: set[str]) -> None:
    successor = queue.consumer()
    came = {queue.receive_one(successor).id for _ in expected}
    queue.receive_nothing(successor)
    demand("LSE-2", came == expected, f"{came} came back, expected {expected}")


@check("LSE-3", modes=[ONE_AT_A_TIME, *MANY_AT_ONCE])
def a_long_handler_keeps_its_job(context: CheckContext) -> None:
    """The application extends by itself, however many jobs run, while a handler runs for several leases.

    One job runs for three leases; many at once do so for longer than one.
    """
    if context.mode is ONE_AT_A_TIME:
        context.keep_lease(partial(_run_for_several_leases, context, 1.0), shortest_s=1.0)
    else:
        shortest_s = _SHORT_S if context.harness.virtual_time else None
        context.keep_lease(partial(_run_for_several_leases, context, 0.4), shortest_s=shortest_s)


def _run_for_several_leases(context: CheckContext, step: float, lease: HeldLease) -> None:
    """Let jobs run for three steps, each so large a part of their lease."""
    mode, timeout_s = context.mode, context.harness.timeout_s
    with app_on(context) as app:
        ids = app.publish_many(mode.at_once)
        other = app.backend.open_consumer(QUEUE)
        came: list[Delivery] = []
        all_run, ended = threading.Barrier(mode.side_by_side), threading.Event()

        def slow(job: Job[Numbers]) -> Total:
            all_run.wait(timeout_s)
            if job.id != ids[0]:
                ended.wait(timeout_s)  # in a batch it has
                return Total(total=3)
            for _ in range(3):
                context.pass_time(step * lease.seconds)
                came.extend(other.receive(1, 0.0))
            ended.set()
            return Total(total=3)

        with app.recorder(slow, batch_wait_s=timeout_s) as consumer:
            consumer.connect(app.orchestrator, lease_s=lease.seconds)
            backend = consumer.consumer_backend
            extend = backend.extend
            renew = lambda receipts: lease.renewed_by(lambda: extend(receipts))  # noqa: E731
            with mock.patch.object(backend, "extend", renew):
                lease.begin()
                consumer.consume(len(ids))
            demand("LSE-3", not came, "a job was delivered a second time")
            demand("LSE-3", consumer.ran(ids), f"{consumer.ids} ran, expected {ids}")
            found = (consumer.stats.done, consumer.stats.lost)
            demand("LSE-3", found == (len(ids), 0), f"of {len(ids)}, done and lost are {found}")


@check("LSE-5")
def a_workers_clock_moves_no_deadline(context: CheckContext) -> None:
    """With the worker's calendar an hour off, in either direction, leases and delays keep their length."""
    harness = context.harness
    soon_s = context.capabilities.delay_resolution_s + 0.3
    for off_s in OFFSETS_S:
        with context.queue() as queue, calendar_off_by(off_s):
            queue.publish("held")
            consumer, other = queue.consumer(), queue.consumer()
            held = queue.receive_one(consumer)
            sent = harness.now()
            queue.publish("delayed", delay_s=soon_s)
            came = queue.receive_when_due(other, sent + soon_s, "LSE-5")
            demand("LSE-5", came.id == "delayed", f"with a clock {off_s:g} s off, {came.id} came")
            held_too = [delivery.id for delivery in other.receive(10, 0.0)]
            demand("LSE-5", not held_too, f"with a clock {off_s:g} s off, {held_too} came though leased")
            queue.settle_ok(consumer, Ack(held.receipt))
