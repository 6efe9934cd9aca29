"""DLQ: the jobs that were given up."""

from hypothesis import strategies as st

from ...ports import Dead, Retry, SettleOutcome
from ..bench import Bench, Rig
from ..registry import check
from ..violation import demand


def _bury(rig: Rig, count: int) -> list[str]:
    """Let jobs die at their second attempt, and return their ids in the order in which they died."""
    rig.publish(*[f"job-{n}" for n in range(count)])
    consumer, died = rig.consumer(), list[str]()
    for _ in range(count):
        receipt = rig.receive_one(consumer).receipt
        assert rig.settle(consumer, Retry(receipt, 0.0, "once")) is SettleOutcome.OK
    for _ in range(count):
        delivery = rig.receive_one(consumer)
        assert rig.settle(consumer, Dead(delivery.receipt, "rejected", delivery.id)) is SettleOutcome.OK
        died.append(delivery.id)
    consumer.close()
    return died


@check("DLQ-1")
def listing_disturbs_nothing(bench: Bench) -> None:
    """However often dead letters are listed, they stay as they are, in the order in which they died."""
    with bench.rig() as rig:
        ids = _bury(rig, 5)
        first = rig.backend.dead_letters(rig.queue)
        demand(
            "DLQ-1", [letter.id for letter in first] == ids, f"{[letter.id for letter in first]} are listed"
        )
        for _ in range(25):
            demand("DLQ-1", rig.backend.dead_letters(rig.queue) == first, "a listing changed the letters")
        rig.expect_counts(dead=5)


@check("DLQ-1")
def a_listing_can_be_paged(bench: Bench) -> None:
    """Limit and offset walk through the letters without a gap or an overlap."""

    @bench.property(count=st.integers(0, 7), limit=st.integers(1, 4))
    def _(count: int, limit: int) -> None:
        with bench.rig() as rig:
            ids, seen = _bury(rig, count), list[str]()
            for offset in range(0, count + limit, limit):
                page = rig.backend.dead_letters(rig.queue, limit=limit, offset=offset)
                demand("DLQ-1", len(page) <= limit, f"{len(page)} letters on a page of {limit}")
                seen += [letter.id for letter in page]
            demand("DLQ-1", seen == ids, f"{seen} were listed, expected {ids}")
            demand("DLQ-1", not rig.backend.dead_letters(rig.queue, limit=0), "a page of none has letters")


@check("DLQ-2")
def redriving_gives_fresh_budgets_once(bench: Bench) -> None:
    """Each dead job that is named, or all, runs again from attempt 1, once, however often it is asked for."""

    @bench.property(count=st.integers(1, 5), chosen=st.none() | st.sets(st.integers(0, 6)))
    def _(count: int, chosen: set[int] | None) -> None:
        with bench.rig() as rig:
            ids = _bury(rig, count)
            named = None if chosen is None else [f"job-{n}" for n in sorted(chosen)]
            expected = ids if named is None else [id_ for id_ in named if id_ in ids]
            redriven = rig.backend.redrive(rig.queue, named)
            demand("DLQ-2", redriven == len(expected), f"{redriven} were redriven, expected {len(expected)}")
            demand("DLQ-2", rig.backend.redrive(rig.queue, expected) == 0, "a job was redriven twice")
            rig.expect_counts(ready=len(expected), dead=count - len(expected))
            consumer = rig.consumer()
            for _ in expected:
                delivery = rig.receive_one(consumer)
                budgets = (delivery.attempt, delivery.crashes)
                demand("DLQ-2", budgets == (1, 0), f"attempt and crashes are {budgets}")
            rig.receive_nothing(consumer)


@check("DLQ-2")
def a_redriven_job_can_die_again(bench: Bench) -> None:
    """Its second death is listed with the history of its second life only, and nothing of the first."""
    harness = bench.harness
    with bench.rig() as rig:
        rig.publish("job")
        doomed = rig.consumer(lease_s=harness.lease_s)
        rig.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = rig.consumer()
        rig.settle(consumer, Retry(rig.receive_one(consumer).receipt, 0.0, "before"))
        rig.settle(consumer, Dead(rig.receive_one(consumer).receipt, "rejected", "before"))
        rig.backend.redrive(rig.queue)
        fresh = rig.receive_one(consumer)
        budgets = (fresh.attempt, fresh.crashes)
        demand("DLQ-2", budgets == (1, 0), f"attempt and crashes are {budgets}")
        rig.settle(consumer, Retry(fresh.receipt, 0.0, "first"))
        rig.settle(consumer, Dead(rig.receive_one(consumer).receipt, "attempts exhausted", "second"))
        (letter,) = rig.backend.dead_letters(rig.queue)
        found = (letter.reason, letter.error, [failure.error for failure in letter.history])
        demand("SET-3", found == ("attempts exhausted", "second", ["first"]), f"the letter holds {found}")


@check("DLQ-3")
def discarding_drops_for_good(bench: Bench) -> None:
    """Each dead job that is named, or all, is gone; the others stay."""

    @bench.property(count=st.integers(0, 5), chosen=st.none() | st.sets(st.integers(0, 6)))
    def _(count: int, chosen: set[int] | None) -> None:
        with bench.rig() as rig:
            ids = _bury(rig, count)
            named = None if chosen is None else [f"job-{n}" for n in sorted(chosen)]
            expected = ids if named is None else [id_ for id_ in named if id_ in ids]
            discarded = rig.backend.discard(rig.queue, named)
            demand("DLQ-3", discarded == len(expected), f"{discarded} were discarded, not {len(expected)}")
            left = [letter.id for letter in rig.backend.dead_letters(rig.queue)]
            demand("DLQ-3", left == [id_ for id_ in ids if id_ not in expected], f"{left} are left")
            demand("DLQ-3", rig.backend.redrive(rig.queue, expected) == 0, "a discarded job was redriven")


@check("DLQ-4")
def a_dead_job_outlives_its_clients(bench: Bench) -> None:
    """A dead letter is still there when everyone who knew of it has gone."""
    with bench.backends(2) as (first, second):
        died = _bury(bench.rig_on(first), 2)
        first.close()
        assert [letter.id for letter in second.dead_letters("jobs")] == died
        assert second.redrive("jobs") == 2
