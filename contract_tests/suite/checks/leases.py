"""LSE: what keeps a job with its consumer, and what brings it back."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from unittest import mock

from hypothesis import strategies as st

from ...domain.errors import QueueNotFound
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Lease,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)
from ..app import QUEUE, Numbers, Recorder, Total, app_on
from ..bench import Bench, HeldLease, Rig
from ..registry import check
from ..violation import demand
from .receiving import blocked_receive


@check("LSE-1")
def a_dead_consumer_loses_no_job(bench: Bench) -> None:
    """However many jobs a consumer held when it died, each comes back once, and says so."""
    harness = bench.harness

    numbers = st.integers(1, 8)

    @bench.waited_property(queues=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
    def _(queues: list[tuple[int, int]]) -> None:
        with bench.rigs(len(queues)) as rigs:
            held: list[set[str]] = []
            for rig, (published, taken) in zip(rigs, queues, strict=True):
                rig.publish(*[f"job-{n}" for n in range(published)])
                doomed = rig.consumer(lease_s=harness.lease_s)
                held.append({delivery.id for delivery in rig.receive(doomed, taken)})
                harness.crash(doomed)
            harness.advance(harness.redelivery_s(harness.lease_s))
            for rig, (published, _), lost in zip(rigs, queues, held, strict=True):
                _expect_inherited(rig, published, lost)


def _expect_inherited(rig: Rig, published: int, lost: set[str]) -> None:
    heir, crashes = rig.consumer(), dict[str, int]()
    for _ in range(published):
        delivery = rig.receive_one(heir)
        crashes[delivery.id] = delivery.crashes
        assert rig.settle(heir, Ack(delivery.receipt)) is SettleOutcome.OK
    demand("LSE-1", len(crashes) == published, f"{len(crashes)} of {published} came")
    for id_, count in crashes.items():
        demand("RTY-3", count == (id_ in lost), f"{id_} tells of {count} crashes")


@check("LSE-1")
def a_blocked_receiver_inherits_from_the_dead(bench: Bench) -> None:
    """A receiver that was waiting all along gets the job of a consumer that died, without asking again."""
    harness = bench.harness
    with bench.rig() as rig:
        heir = rig.consumer()
        waiting = bench.start(blocked_receive(heir))
        time.sleep(0.05)
        doomed = rig.consumer(lease_s=harness.lease_s)
        rig.publish("other")
        (first,) = bench.finish(waiting)
        # Only now, or its lease might end while the blocked receiver is still about to take the first.
        rig.publish("job")
        held = rig.receive_one(doomed)
        assert (first.id, held.id) == ("other", "job")
        waiting = bench.start(blocked_receive(heir))
        time.sleep(0.05)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        (inherited,) = bench.finish(waiting)
        demand("LSE-1", inherited.id == held.id, f"{inherited.id} came, expected {held.id}")
        assert inherited.crashes == 1


@check("LSE-2")
def an_expired_lease_frees_the_job(bench: Bench) -> None:
    """A timed lease that isn't extended runs out; one that hangs on a connection doesn't while that lives."""
    harness = bench.harness
    with bench.rig() as rig:
        rig.publish("job")
        slow, other = rig.consumer(lease_s=harness.lease_s), rig.consumer()
        asked = harness.now()
        held = rig.receive_one(slow)
        if bench.capabilities.lease is Lease.CONNECTION:
            harness.advance(harness.redelivery_s(harness.lease_s))
            rig.receive_nothing(other)
            assert rig.settle(slow, Ack(held.receipt)) is SettleOutcome.OK
            return
        again = rig.receive_when_due(other, asked + harness.lease_s, "LSE-2")
        demand("LSE-2", (again.number, again.attempt, again.crashes) == (2, 1, 1), f"it came as {again}")
        demand("LSE-4", again.receipt != held.receipt, "it came under the same receipt")


@check("LSE-3")
def extending_keeps_the_job(bench: Bench) -> None:
    """A consumer that extends in time keeps its job over many leases."""

    @bench.keep_lease
    def _(lease: HeldLease) -> None:
        with bench.rig() as rig:
            rig.publish("job")
            holder, other = rig.consumer(lease_s=lease.seconds), rig.consumer()
            held = lease.renewed_by(lambda: rig.receive_one(holder))
            for _ in range(6):
                bench.harness.advance(lease.seconds / 2)
                lease.renewed_by(lambda: _extend(holder, [held.receipt]))
                rig.receive_nothing(other)
            assert rig.settle(holder, Ack(held.receipt)) is SettleOutcome.OK


def _extend(holder: ConsumerBackend, receipts: list[str]) -> None:
    outcomes = holder.extend(receipts)
    kept_all = outcomes == [SettleOutcome.OK] * len(receipts)
    demand("LSE-3", kept_all, f"extending what is held was answered {outcomes}")


@check("LSE-2", "LSE-3")
def extending_one_keeps_no_other(bench: Bench) -> None:
    """Of several jobs that a consumer holds, those come back whose leases it doesn't extend."""
    if bench.capabilities.lease is Lease.CONNECTION:
        an_expired_lease_frees_the_job(bench)
        return

    @bench.waited_property(queues=st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=3))
    def _(queues: list[set[int]]) -> None:
        bench.keep_lease(lambda lease: _extend_some(bench, queues, lease))


def _extend_some(bench: Bench, queues: list[set[int]], lease: HeldLease) -> None:
    """Hold four jobs of each queue, and extend the ``queues`` of them until the others have come back."""
    harness = bench.harness
    with bench.rigs(len(queues)) as rigs:
        for rig in rigs:
            rig.publish(*[f"job-{n}" for n in range(4)])
        holders = [rig.consumer(lease_s=lease.seconds) for rig in rigs]
        held = lease.renewed_by(
            lambda: [
                [rig.receive_one(holder).receipt for _ in range(4)]
                for rig, holder in zip(rigs, holders, strict=True)
            ]
        )
        kept = [[receipts[n] for n in sorted(some)] for receipts, some in zip(held, queues, strict=True)]

        def extend_all() -> None:
            for holder, receipts in zip(holders, kept, strict=True):
                _extend(holder, receipts)

        over = harness.now() + harness.redelivery_s(lease.seconds)
        while harness.now() < over:
            harness.advance(lease.seconds / 4)
            lease.renewed_by(extend_all)
        for rig, some, holder, receipts in zip(rigs, queues, holders, kept, strict=True):
            _expect_back(rig, {f"job-{n}" for n in range(4) if n not in some})
            outcomes = holder.settle([Ack(receipt) for receipt in receipts]).outcomes
            kept_all = set(outcomes) <= {SettleOutcome.OK}
            demand("LSE-3", kept_all, f"what was extended was answered {outcomes}")


def _expect_back(rig: Rig, expected: set[str]) -> None:
    heir = rig.consumer()
    came = {rig.receive_one(heir).id for _ in expected}
    rig.receive_nothing(heir)
    demand("LSE-2", came == expected, f"{came} came back, expected {expected}")


@check("LSE-3")
def a_long_handler_keeps_its_job(bench: Bench) -> None:
    """The application extends by itself while a handler runs for several leases."""
    bench.keep_lease(partial(_run_for_three_leases, bench), shortest_s=1.0)


def _run_for_three_leases(bench: Bench, lease: HeldLease) -> None:
    with app_on(bench) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        other = app.backend.open_consumer(QUEUE)
        came: list[Delivery] = []

        def slow(_job: object) -> Total:
            for _ in range(3):
                bench.live(lease.seconds)
                came.extend(other.receive(1, 0.0))
            return Total(total=3)

        with Recorder(slow) as consumer:
            consumer.connect(app.orchestrator, lease_s=lease.seconds)
            backend = consumer.consumer_backend
            extend = backend.extend
            renew = lambda receipts: lease.renewed_by(lambda: extend(receipts))  # noqa: E731
            with mock.patch.object(backend, "extend", renew):
                lease.begin()
                consumer.consume(1)
            demand("LSE-3", not came, "the job was delivered a second time")
            assert (consumer.ids, consumer.stats.done, consumer.stats.lost) == ([job_id], 1, 0)


@check("LSE-4")
def a_stale_receipt_changes_nothing(bench: Bench) -> None:
    """Whatever is settled under a lease that was lost answers LOST, and the new holder is undisturbed."""
    harness = bench.harness
    if bench.capabilities.lease is Lease.CONNECTION:
        _severed_receipts_are_lost(bench)
        return
    makers: list[Callable[[str], Settlement]] = [
        lambda receipt: Ack(receipt, b"{}"),
        lambda receipt: Retry(receipt, 0.0, "late"),
        lambda receipt: Dead(receipt, "rejected", "late"),
        Release,
    ]

    @bench.property(maker=st.sampled_from(makers), held_again=st.booleans())
    def _(maker: Callable[[str], Settlement], held_again: bool) -> None:
        with bench.rig() as rig:
            rig.publish("job")
            slow, heir = rig.consumer(lease_s=harness.lease_s), rig.consumer()
            stale = rig.receive_one(slow).receipt
            harness.advance(harness.redelivery_s(harness.lease_s))
            held = rig.receive_one(heir) if held_again else None
            outcome = rig.settle(slow, maker(stale))
            demand("LSE-4", outcome is SettleOutcome.LOST, f"a late settlement was answered {outcome}")
            demand("LSE-4", slow.extend([stale]) == [SettleOutcome.LOST], "a late extension wasn't LOST")
            rig.expect_counts(ready=int(held is None), in_flight=int(held is not None))
            held = held or rig.receive_one(heir)
            demand("LSE-4", held.attempt == 1, "a late settlement spent an attempt")
            assert rig.settle(heir, Ack(held.receipt)) is SettleOutcome.OK
            rig.expect_counts()


def _severed_receipts_are_lost(bench: Bench) -> None:
    with bench.rig() as rig:
        rig.publish("job")
        consumer = rig.consumer()
        stale = rig.receive_one(consumer).receipt
        bench.harness.sever(rig.backend)
        again = rig.receive_one(rig.consumer())
        demand("LSE-4", consumer.extend([stale]) == [SettleOutcome.LOST], "a late extension wasn't LOST")
        outcome = rig.settle(consumer, Ack(stale))
        demand("LSE-4", outcome is SettleOutcome.LOST, f"a late settlement was answered {outcome}")
        assert again.crashes == 1


@check("LSE-4")
def a_receipt_that_never_was_is_lost(bench: Bench) -> None:
    """A made-up receipt, or another consumer's from another queue, answers LOST and does nothing."""

    @bench.property(receipt=st.text(max_size=40))
    def _(receipt: str) -> None:
        with bench.rig() as rig:
            rig.publish("job")
            consumer = rig.consumer()
            held = rig.receive_one(consumer)
            if receipt == held.receipt:
                return
            outcomes = consumer.settle([Ack(receipt), Ack(held.receipt)]).outcomes
            demand("LSE-4", outcomes == [SettleOutcome.LOST, SettleOutcome.OK], f"{receipt!r}: {outcomes}")


@check("LSE-4")
def the_handler_is_told(bench: Bench) -> None:
    """A handler whose job is no longer its own can see so, and its settlement counts as lost."""
    with app_on(bench) as app:
        app.publish(Numbers())

        def handler(_job: object) -> None:
            if bench.capabilities.lease is Lease.CONNECTION:
                bench.harness.sever(app.backend)
            else:
                app.backend.delete(QUEUE)
            give_up = time.monotonic() + bench.harness.bound_s
            while not consumer.lease_lost:
                demand("LSE-4", time.monotonic() < give_up, "the handler was never told")
                bench.live(0.05)

        with Recorder(handler) as consumer:
            consumer.connect(app.orchestrator, lease_s=1.0)
            with suppress(QueueNotFound):
                consumer.consume(1)
            demand("LSE-4", consumer.stats.lost == 1, f"the consumer counts {consumer.stats}")


@check("LSE-5")
def a_workers_clock_moves_no_deadline(bench: Bench) -> None:
    """With the worker's calendar an hour off, in either direction, leases and delays keep their length."""
    harness, real = bench.harness, time.time
    soon_s = bench.capabilities.delay_resolution_s + 0.3
    for off_s in (-3600.0, 3600.0):
        with bench.rig() as rig, mock.patch("time.time", lambda off_s=off_s: real() + off_s):
            rig.publish("held")
            consumer, other = rig.consumer(), rig.consumer()
            held = rig.receive_one(consumer)
            sent = harness.now()
            rig.publish("delayed", delay_s=soon_s)
            assert rig.receive_when_due(other, sent + soon_s, "LSE-5").id == "delayed"
            rig.receive_nothing(other)
            assert rig.settle(consumer, Ack(held.receipt)) is SettleOutcome.OK
