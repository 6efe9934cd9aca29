"""SET: how a delivery ends."""

import time

from hypothesis import strategies as st

from ...domain.bounds import MAX_FAILURE_CHARS
from ...ports import Ack, Dead, Lease, Release, Retry, Settlement, SettleOutcome
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand

_HOUR_S = 3600.0


@check("SET-1")
def an_ack_ends_the_job_once(context: CheckContext) -> None:
    """An acked job is gone for good, and every further settlement of its receipt answers ALREADY."""
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Ack(receipt))
        queue.expect_counts()
        for again in (
            Ack(receipt),
            Retry(receipt, 0.0, "late"),
            Dead(receipt, "rejected", ""),
            Release(receipt),
        ):
            outcome = queue.settle(consumer, again)
            demand(
                "SET-1", outcome is SettleOutcome.ALREADY, f"{type(again).__name__} after an ack: {outcome}"
            )
        queue.receive_nothing(consumer)
        queue.expect_counts()


@check("SET-1")
def a_batch_of_settlements_is_answered_in_order(context: CheckContext) -> None:
    """Each settlement of a batch has its own answer and its own effect, a receipt named twice included."""
    with context.queue() as queue:
        queue.publish("acked", "dead", "retried", "released", "kept")
        consumer = queue.consumer()
        held = {delivery.id: delivery.receipt for _ in range(5) for delivery in queue.receive(consumer)}
        batch: list[Settlement] = [
            Ack(held["acked"]),
            Dead(held["dead"], "rejected", "no good"),
            Retry(held["retried"], 3600.0, "later"),
            Ack(held["acked"]),
            Release(held["released"]),
        ]
        outcomes = consumer.settle(batch).outcomes
        expected = [SettleOutcome.OK] * 3 + [SettleOutcome.ALREADY, SettleOutcome.OK]
        demand("SET-1", outcomes == expected, f"the answers were {outcomes}")
        queue.expect_counts(ready=1, delayed=1, in_flight=1, dead=1)


@check("SET-1")
def settling_and_taking_is_one_step(context: CheckContext) -> None:
    """Settle can take the next jobs as well: at most as many as asked for, none where none was asked for."""

    @context.property(published=st.integers(1, 8), take=st.integers(0, 8))
    def _(published: int, take: int) -> None:
        with context.queue() as queue:
            queue.publish(*[f"job-{n}" for n in range(published)])
            consumer = queue.consumer()
            first = queue.receive_one(consumer)
            answer = consumer.settle([Ack(first.receipt)], take=take)
            came = [delivery.id for delivery in answer.deliveries]
            demand("SET-1", answer.outcomes == [SettleOutcome.OK], f"the answer was {answer.outcomes}")
            demand("RCV-1", len(came) <= take, f"{len(came)} came where {take} were asked for")
            rest = queue.drain(consumer, published - 1 - len(came))
            expected = [f"job-{n}" for n in range(1, published)]
            demand("ORD-1", came + rest == expected, f"{came + rest} came, expected {expected}")


@check("SET-1")
def settling_nothing_takes_jobs(context: CheckContext) -> None:
    """Without settlements, too, it leases as many as there is room for, some perhaps by a later call."""
    with context.queue() as queue:
        queue.publish("a", "b", "c", "d")
        consumer, came = queue.consumer(), list[str]()

        def three_came() -> None:
            answer = consumer.settle([], take=3 - len(came))
            demand("SET-1", answer.outcomes == [], f"nothing was settled, and answered {answer.outcomes}")
            came.extend(delivery.id for delivery in answer.deliveries)
            demand("SET-1", len(came) == 3, f"of four jobs, where there was room for three, {came} came")

        context.eventually(three_came)
        demand("ORD-1", came == ["a", "b", "c"], f"they came as {came}")


@check("SET-2")
def a_retry_spends_an_attempt(context: CheckContext) -> None:
    """Each retry makes the job ready again with attempt + 1, after its delay and not before."""
    soon_s = context.capabilities.delay_resolution_s + 0.2

    @context.waited_property(delays=st.lists(st.sampled_from([0.0, soon_s]), min_size=1, max_size=4))
    def _(delays: list[float]) -> None:
        with context.queue() as queue:
            queue.publish("job")
            consumer = queue.consumer()
            delivery = queue.receive_one(consumer)
            for attempt, delay_s in enumerate(delays, 2):
                sent = context.harness.now()
                queue.settle_ok(consumer, Retry(delivery.receipt, delay_s, "again"))
                delivery = queue.receive_when_due(consumer, sent + delay_s, "SET-2")
                demand("SET-2", delivery.attempt == attempt, f"attempt {delivery.attempt} came as {attempt}")
                demand("SET-2", delivery.number == attempt, f"delivery {delivery.number} came as {attempt}")
                demand("RTY-3", delivery.crashes == 0, "a retry was counted as a crash")


@check("SET-3")
def a_dead_job_is_kept_whole(context: CheckContext) -> None:
    """A dead letter has the body, the reason, the error, the attempt, the crashes and the history."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = queue.consumer()
        for attempt in range(1, 15):
            receipt = queue.receive_one(consumer).receipt
            queue.settle_ok(consumer, Retry(receipt, 0.0, f"error {attempt}"))
        receipt = queue.receive_one(consumer).receipt
        error = "ünïcode \x00 \N{SKULL}"
        queue.settle_ok(consumer, Dead(receipt, "rejected", error))
        queue.expect_counts(dead=1)
        queue.receive_nothing(consumer)
        (letter,) = queue.backend.dead_letters(queue.name)
        found = (letter.id, letter.body, letter.reason, letter.error, letter.attempt, letter.crashes)
        expected = ("job", queue.message("job").body, "rejected", error, 15, 1)
        demand("SET-3", found == expected, f"the letter holds {found}")
        history = [(failure.attempt, failure.error) for failure in letter.history]
        kept = [(attempt, f"error {attempt}") for attempt in range(5, 15)]
        demand("SET-3", history == kept, f"the history is {history}")
        demand("SET-3", letter.died_at.tzinfo is not None, "the time of death has no time zone")
        now = queue.backend.coordination.now() if context.capabilities.coordination else time.time()
        is_near = abs(now - letter.died_at.timestamp()) < _HOUR_S
        demand("SET-3", is_near, f"it died at {letter.died_at}, and by the broker's clock it is {now:.0f}")


@check("SET-3")
def what_is_known_of_a_failure_is_kept_whole(context: CheckContext) -> None:
    """The text of a failure may be a long traceback, with any character in it: it comes back as it was."""
    text = ('\x1e\tFile "größe.py", line 7, in run \N{SKULL}\n' * MAX_FAILURE_CHARS)[-MAX_FAILURE_CHARS:]
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        for attempt in (1, 2):
            receipt = queue.receive_one(consumer).receipt
            queue.settle_ok(consumer, Retry(receipt, 0.0, f"{attempt}{text[1:]}"))
        receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Dead(receipt, "rejected", text))
        (letter,) = queue.backend.dead_letters(queue.name)
        demand("SET-3", letter.error == text, f"the error is {letter.error!r:.80}, {len(letter.error)} long")
        history = [failure.error for failure in letter.history]
        demand("SET-3", history == [f"{n}{text[1:]}" for n in (1, 2)], f"the history is {history!r:.160}")


@check("SET-4")
def a_release_spends_nothing(context: CheckContext) -> None:
    """Released jobs are back at once, with neither an attempt nor a crash counted."""

    @context.property(releases=st.integers(1, 6))
    def _(releases: int) -> None:
        with context.queue() as queue:
            queue.publish("job")
            consumer, other = queue.consumer(), queue.consumer()
            for _ in range(releases):
                queue.settle_ok(consumer, Release(queue.receive_one(consumer).receipt))
            delivery = queue.receive_one(other)
            spent = (delivery.attempt, delivery.crashes)
            demand("SET-4", spent == (1, 0), f"attempt and crashes are {spent} after {releases} releases")


@check("SET-4", "RTY-1")
def no_broker_limits_deliveries(context: CheckContext) -> None:
    """A job may come back as often as its consumers decide: a broker's own limit must not cut that short."""
    times = 25
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        for _ in range(times):
            queue.settle_ok(consumer, Release(queue.receive_one(consumer).receipt))
        for _ in range(times):
            receipt = queue.receive_one(consumer).receipt
            queue.settle_ok(consumer, Retry(receipt, 0.0, "again"))
        last = queue.receive_one(consumer)
        found = (last.attempt, last.number, last.crashes)
        assert found == (times + 1, 2 * times + 1, 0), f"attempt, delivery and crashes are {found}"


@check("SET-4")
def closing_a_consumer_releases_what_it_holds(context: CheckContext) -> None:
    """A consumer that closes in good order gives its jobs back at once, as by release."""
    with context.queue() as queue:
        queue.publish("a", "b")
        consumer = queue.consumer()
        queue.receive(consumer)
        queue.receive(consumer)
        consumer.close()
        successor = queue.consumer()
        came = [queue.receive_one(successor), queue.receive_one(successor)]
        spent = {(delivery.attempt, delivery.crashes) for delivery in came}
        demand("SET-4", spent == {(1, 0)}, f"attempts and crashes are {spent}")


@check("SET-4")
def what_was_given_out_is_told_until_it_is_settled(context: CheckContext) -> None:
    """A consumer tells which jobs it has given out, so that those are released of which nobody has heard.

    One whose leases end by themselves may tell of none.
    """
    may_be_silent = context.capabilities.lease is Lease.TIMED
    with context.queue() as queue:
        queue.publish("acked", "taken", "retried", "kept")
        consumer = queue.consumer()
        held: set[str] = set()

        def demand_told(after: str) -> None:
            told = consumer.given_out()
            is_true = sorted(told) == sorted(held) or (may_be_silent and not told)
            demand("SET-4", is_true, f"{after}, it tells of {sorted(told)} and has given out {sorted(held)}")

        demand_told("at first")
        first = queue.receive_one(consumer).receipt
        held.add(first)
        demand_told("after a receive")
        _, taken = consumer.settle([Ack(first)], take=1)
        held = {each.receipt for each in taken}
        demand_told("after an ack that took the next job")
        while len(held) + 1 < 4:
            held.add(queue.receive_one(consumer).receipt)
        retried, released, _ = sorted(held)
        consumer.settle([Retry(retried, _HOUR_S, "later"), Release(released, _HOUR_S)])
        held -= {retried, released}
        demand_told("after a retry and a release")
        consumer.close()
