"""DLQ: the jobs that were given up."""

from hypothesis import strategies as st

from ...ports import Ack, Dead, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand


def _bury(queue: QueueUnderTest, count: int) -> list[str]:
    """Let jobs die at their second attempt, and return their ids in the order in which they died."""
    queue.publish(*[f"job-{n}" for n in range(count)])
    consumer, died = queue.consumer(), list[str]()
    for _ in range(count):
        receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Retry(receipt, 0.0, "once"))
    for _ in range(count):
        delivery = queue.receive_one(consumer)
        queue.settle_ok(consumer, Dead(delivery.receipt, "rejected", delivery.id))
        died.append(delivery.id)
    consumer.close()
    return died


@check("DLQ-1")
def listing_disturbs_nothing(context: CheckContext) -> None:
    """However often dead letters are listed, they stay as they are, in the order in which they died."""
    with context.queue() as queue:
        ids = _bury(queue, 5)
        first = queue.backend.dead_letters(queue.name)
        demand(
            "DLQ-1", [letter.id for letter in first] == ids, f"{[letter.id for letter in first]} are listed"
        )
        for _ in range(25):
            demand("DLQ-1", queue.backend.dead_letters(queue.name) == first, "a listing changed the letters")
        queue.expect_counts(dead=5)


@check("DLQ-1")
def a_listing_can_be_paged(context: CheckContext) -> None:
    """Limit and offset walk through the letters without a gap or an overlap."""

    @context.property(count=st.integers(0, 7), limit=st.integers(1, 4))
    def _(count: int, limit: int) -> None:
        with context.queue() as queue:
            ids, seen = _bury(queue, count), list[str]()
            for offset in range(0, count + limit, limit):
                page = queue.backend.dead_letters(queue.name, limit=limit, offset=offset)
                demand("DLQ-1", len(page) <= limit, f"{len(page)} letters on a page of {limit}")
                seen += [letter.id for letter in page]
            demand("DLQ-1", seen == ids, f"{seen} were listed, expected {ids}")
            demand("DLQ-1", not queue.backend.dead_letters(queue.name, limit=0), "a page of none has letters")


@check("DLQ-2")
def redriving_gives_fresh_budgets_once(context: CheckContext) -> None:
    """Each dead job that is named, or all, runs again from attempt 1, once, however often it is asked for."""

    @context.property(count=st.integers(1, 5), chosen=st.none() | st.sets(st.integers(0, 6)))
    def _(count: int, chosen: set[int] | None) -> None:
        with context.queue() as queue:
            ids = _bury(queue, count)
            named = None if chosen is None else [f"job-{n}" for n in sorted(chosen)]
            expected = ids if named is None else [id_ for id_ in named if id_ in ids]
            redriven = queue.backend.redrive(queue.name, named)
            demand("DLQ-2", redriven == len(expected), f"{redriven} were redriven, expected {len(expected)}")
            demand("DLQ-2", queue.backend.redrive(queue.name, expected) == 0, "a job was redriven twice")
            queue.expect_counts(ready=len(expected), dead=count - len(expected))
            consumer = queue.consumer()
            for _ in expected:
                delivery = queue.receive_one(consumer)
                budgets = (delivery.attempt, delivery.crashes)
                demand("DLQ-2", budgets == (1, 0), f"attempt and crashes are {budgets}")
            queue.receive_nothing(consumer)


@check("DLQ-2")
def a_redriven_job_can_die_again(context: CheckContext) -> None:
    """Its second death is listed with the history of its second life only, and nothing of the first."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = queue.consumer()
        queue.settle(consumer, Retry(queue.receive_one(consumer).receipt, 0.0, "before"))
        queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "before"))
        queue.backend.redrive(queue.name)
        fresh = queue.receive_one(consumer)
        budgets = (fresh.attempt, fresh.crashes)
        demand("DLQ-2", budgets == (1, 0), f"attempt and crashes are {budgets}")
        queue.settle(consumer, Retry(fresh.receipt, 0.0, "first"))
        queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "attempts exhausted", "second"))
        (letter,) = queue.backend.dead_letters(queue.name)
        found = (letter.reason, letter.error, [failure.error for failure in letter.history])
        demand("SET-3", found == ("attempts exhausted", "second", ["first"]), f"the letter holds {found}")


@check("DLQ-1")
def a_second_death_is_listed_behind_those_before_it(context: CheckContext) -> None:
    """A job that was redriven and died again stands where its last death belongs."""
    with context.queue() as queue:
        first, *others = _bury(queue, 4)
        queue.backend.redrive(queue.name, [first])
        consumer = queue.consumer()
        queue.settle_ok(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "again"))
        listed = [letter.id for letter in queue.backend.dead_letters(queue.name)]
        demand("DLQ-1", listed == [*others, first], f"{first} died again, and {listed} are listed")


@check("SET-3", "PUB-5")
def a_job_under_a_used_id_has_a_history_of_its_own(context: CheckContext) -> None:
    """Nothing is left of a job that failed, and was then done or dropped, once its id is used again."""
    ids = ["done", "done with a result", "discarded", "purged"]
    names = [id_.replace(" ", "-") for id_ in ids]
    with context.queue() as queue:
        queue.publish(*names)
        consumer = queue.consumer()
        for id_ in names:
            queue.settle(consumer, Retry(queue.receive_one(consumer).receipt, 0.0, f"{id_} before"))
        done, with_result, discarded = (queue.receive_one(consumer).receipt for _ in range(3))
        consumer.settle([Ack(done), Ack(with_result, b"{}"), Dead(discarded, "rejected", "before")])
        dropped = (queue.backend.discard(queue.name), queue.backend.purge(queue.name))
        demand("DLQ-3", dropped == (1, 1), f"{dropped} were discarded and purged, of one each")
        queue.publish(*names)
        for id_ in names:
            fresh = queue.receive_one(consumer)
            spent = (fresh.id, fresh.attempt, fresh.crashes)
            demand("PUB-5", spent == (id_, 1, 0), f"used again, {id_} has come as {spent}")
            queue.settle(consumer, Dead(fresh.receipt, "rejected", "after"))
        for letter in queue.backend.dead_letters(queue.name):
            history = [failure.error for failure in letter.history]
            demand("SET-3", not history, f"used again, {letter.id} has the history {history}")


@check("DLQ-3")
def discarding_drops_for_good(context: CheckContext) -> None:
    """Each dead job that is named, or all, is gone; the others stay."""

    @context.property(count=st.integers(0, 5), chosen=st.none() | st.sets(st.integers(0, 6)))
    def _(count: int, chosen: set[int] | None) -> None:
        with context.queue() as queue:
            ids = _bury(queue, count)
            named = None if chosen is None else [f"job-{n}" for n in sorted(chosen)]
            expected = ids if named is None else [id_ for id_ in named if id_ in ids]
            discarded = queue.backend.discard(queue.name, named)
            demand("DLQ-3", discarded == len(expected), f"{discarded} were discarded, not {len(expected)}")
            left = [letter.id for letter in queue.backend.dead_letters(queue.name)]
            demand("DLQ-3", left == [id_ for id_ in ids if id_ not in expected], f"{left} are left")
            demand("DLQ-3", queue.backend.redrive(queue.name, expected) == 0, "a discarded job was redriven")


@check("DLQ-4")
def a_dead_job_outlives_its_clients(context: CheckContext) -> None:
    """A dead letter is still there when everyone who knew of it has gone."""
    with context.backends(2) as (first, second):
        died = _bury(context.queue_on(first), 2)
        first.close()
        assert [letter.id for letter in second.dead_letters("jobs")] == died
        assert second.redrive("jobs") == 2
