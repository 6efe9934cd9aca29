"""RTY: what becomes of a job that fails; the application's part, on this backend."""

import os
import socket
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import strategies as st

from ...domain import Job, Reject, RetryLater, RetryPolicy, Snooze
from ...domain.dead_reasons import DeadReason
from ...ports import Ack, Delivery
from ..app import QUEUE, App, Numbers, Total, add, app_on
from ..check_context import CheckContext
from ..modes import EVERY_MODE, MANY_AT_ONCE, ONE_AT_A_TIME
from ..registry import check
from ..violation import demand


def _fail(job: Job[Any]) -> None:
    raise ValueError(f"attempt {job.attempt} failed")


@check("RTY-1", modes=EVERY_MODE)
def an_exhausted_error_budget_is_death(context: CheckContext) -> None:
    """A job is tried as often as its policy, or its own budget, says; then it is dead, with its history."""

    @context.property(policy=st.integers(1, 4), own=st.none() | st.integers(1, 4))
    def _(policy: int, own: int | None) -> None:
        with app_on(context, retry=RetryPolicy(max_attempts=policy, base_delay_s=0)) as app:
            job = Job(schema_name=QUEUE, payload=Numbers(), max_attempts=own)
            app.publish(job)
            budget = own or policy
            consumer = app.consume(app.recorder(_fail), budget)
            attempts = [job.attempt for job in consumer.jobs]
            demand("RTY-1", attempts == list(range(1, budget + 1)), f"the attempts were {attempts}")
            (letter,) = app.orchestrator.dead_letters(QUEUE)
            demand("RTY-1", letter.reason == DeadReason.ATTEMPTS, f"the reason is {letter.reason!r}")
            demand("SET-3", letter.error == f"ValueError: attempt {budget} failed", f"error {letter.error!r}")
            demand("SET-3", len(letter.history) == budget - 1, f"the history is {letter.history}")
            demand("I9", app.orchestrator.count_queue_messages(QUEUE) == 0, "jobs are left")


@check("SET-3", modes=EVERY_MODE)
def a_dead_letter_explains_itself(context: CheckContext) -> None:
    """Its traceback, and of each attempt the time, the host and the process, outlast every retry."""
    with app_on(context) as app:
        app.publish(Numbers())
        began = datetime.now(UTC)
        app.consume(app.recorder(_fail), 3)
        ended = datetime.now(UTC)
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        errors = [failure.error for failure in letter.attempts]
        demand("SET-3", errors == [f"ValueError: attempt {n} failed" for n in (1, 2, 3)], f"errors {errors}")
        places = {(failure.host, failure.pid) for failure in letter.attempts}
        demand("SET-3", places == {(socket.gethostname(), os.getpid())}, f"the attempts failed at {places}")
        moments = [failure.failed_at for failure in letter.history]
        slack = timedelta(milliseconds=1)  # to which the moments are rounded
        in_time = all(moment and began - slack <= moment <= ended + slack for moment in moments)
        demand("SET-3", in_time, f"the attempts failed at {moments}, between {began} and {ended}")
        last_lines = ['raise ValueError(f"attempt {job.attempt} failed")', "ValueError: attempt 3 failed"]
        lines = (letter.traceback or "").splitlines()
        found = [line.strip() for line in lines if line.strip(" ~^")]  # without those that mark a place
        demand("SET-3", found[-2:] == last_lines, f"the traceback is {letter.traceback!r}")


@check("RTY-1", modes=EVERY_MODE)
def a_failed_job_backs_off(context: CheckContext) -> None:
    """A failed job waits in the broker, for no longer than the policy's bound."""
    jobs = 8  # with full jitter, some delays are long enough to be seen
    # With many at once, that a short delay ends is left to the check of RetryLater, which waits for one too.
    for base_delay_s in (3600.0, 2.0) if context.mode is ONE_AT_A_TIME else (3600.0,):
        policy = RetryPolicy(max_attempts=2, base_delay_s=base_delay_s, max_delay_s=base_delay_s)
        with app_on(context, retry=policy) as app:
            ids = app.publish_many(jobs)
            first = app.consume(app.recorder(_fail), jobs)
            if base_delay_s == 3600.0:
                delayed = app.orchestrator.counts(QUEUE).delayed
                demand("RTY-1", delayed > 0, "no job is delayed after a failure")
                continue
            context.harness.advance(base_delay_s + context.capabilities.delay_resolution_s)
            then = app.consume(app.recorder(_fail), jobs)  # a short delay may have been over before
            attempts = sorted((job.id, job.attempt) for job in [*first.jobs, *then.jobs])
            expected = sorted((id_, attempt) for id_ in ids for attempt in (1, 2))
            demand("RTY-1", attempts == expected, f"the attempts were {attempts}")


@check("RTY-1")
def backoff_doubles_to_its_cap(context: CheckContext) -> None:
    """A delay is drawn from 0 to a bound that doubles with every attempt, up to the cap."""

    @context.property(attempt=st.integers(1, 10_000), base=st.floats(0, 100), cap=st.floats(0, 1000))
    def _(attempt: int, base: float, cap: float) -> None:
        policy = RetryPolicy(base_delay_s=base, max_delay_s=cap)
        longest = policy.longest_delay_s(attempt)
        demand("RTY-1", longest == min(cap, base * 2 ** min(attempt - 1, 64)), f"the bound is {longest}")
        demand("RTY-1", 0 <= policy.delay_s(attempt) <= longest, "the delay is out of bounds")
        demand(
            "RTY-1",
            policy.backoff_s(attempt, 0.0) == 0 and policy.backoff_s(attempt, 1.0) == longest,
            "no jitter",
        )


@check("RTY-1", modes=EVERY_MODE)
def a_consumers_policy_overrides_the_schemas(context: CheckContext) -> None:
    """A consumer that has a policy of its own follows that."""
    with app_on(context, retry=RetryPolicy(max_attempts=5, base_delay_s=0)) as app:
        app.publish(Numbers())
        app.consume(app.recorder(_fail, retry=RetryPolicy(max_attempts=1)), 1)
        assert app.orchestrator.counts(QUEUE).dead == 1


@check("RTY-1", modes=EVERY_MODE)
def a_failure_costs_its_own_job_only(context: CheckContext) -> None:
    """Jobs before and after one that fails are done."""
    with app_on(context, retry=RetryPolicy(max_attempts=1)) as app:
        ids = app.publish_many(max(5, 2 * context.mode.at_once))

        def handler(job: Job[Numbers]) -> None:
            if job.id == ids[2]:
                raise ZeroDivisionError

        consumer = app.consume(app.recorder(handler), len(ids))
        assert consumer.ran(ids)
        assert [letter.id for letter in app.orchestrator.dead_letters(QUEUE)] == [ids[2]]


@check("RTY-1", "RTY-2", modes=EVERY_MODE)
def each_job_ends_its_own_way(context: CheckContext) -> None:
    """Of many jobs, each is done, retried, rejected or dead by what its own run gave, and no other's."""
    ways = (1, 2, 1, 3)  # how often each is run: it is done, fails once, is rejected, fails always
    jobs = len(ways) * max(2, context.mode.at_once // 2)

    def handler(job: Job[Numbers]) -> Total:
        number = round(job.payload.x)
        match number % len(ways):
            case 1 if job.attempt == 1:
                raise RetryLater(0.0)
            case 2:
                raise Reject(f"job {number} is no good")
            case 3:
                _fail(job)
        return add(job)

    with app_on(context) as app:
        ids = app.publish_many(jobs)
        consumer = app.consume(app.recorder(handler), jobs // len(ways) * sum(ways))
        for number, id_ in enumerate(ids):
            made = sorted(job.attempt for job in consumer.jobs if job.id == id_)
            expected = list(range(1, ways[number % len(ways)] + 1))
            demand("RTY-1", made == expected, f"job {number} was run in attempts {made}, not {expected}")
            if context.capabilities.results and number % len(ways) < 2:
                result = app.orchestrator.result(QUEUE, id_)
                demand("RES-1", result == Total(total=number), f"the result of job {number} is {result}")
        ends = {
            letter.id: (letter.reason, letter.error)
            for letter in app.orchestrator.dead_letters(QUEUE, limit=jobs)
        }
        rejected = {ids[n]: (DeadReason.REJECTED, f"job {n} is no good") for n in range(2, jobs, len(ways))}
        failed = {
            ids[n]: (DeadReason.ATTEMPTS, "ValueError: attempt 3 failed") for n in range(3, jobs, len(ways))
        }
        demand("RTY-2", ends == rejected | failed, f"the dead letters are {ends}")


@check("RTY-2", modes=EVERY_MODE)
def a_handler_may_choose_when_to_retry(context: CheckContext) -> None:
    """RetryLater makes the job ready after its own delay, with an attempt spent."""
    soon_s = context.capabilities.delay_resolution_s + 0.5 if context.mode is ONE_AT_A_TIME else 0.1
    with app_on(context) as app:
        far, soon = app.publish(Numbers()), app.publish(Numbers())

        def later(job: Job[Numbers]) -> None:
            raise RetryLater(3600.0 if job.id == far else soon_s, "not yet")

        app.consume(app.recorder(later), 2)
        context.harness.advance(soon_s + context.capabilities.delay_resolution_s)
        (job,) = app.consume(app.recorder(), 1).jobs
        demand("RTY-2", (job.id, job.attempt) == (soon, 2), f"{job.id} came, in attempt {job.attempt}")
        counts = app.orchestrator.counts(QUEUE)
        demand("RTY-2", (counts.delayed, counts.ready) == (1, 0), f"the counts are {counts}")


@check("RTY-2", modes=EVERY_MODE)
def a_handler_may_snooze(context: CheckContext) -> None:
    """Snooze makes the job ready after its own delay, and spends no attempt, however often it does so."""
    soon_s = context.capabilities.delay_resolution_s + 0.1
    with app_on(context, retry=RetryPolicy(max_attempts=2, base_delay_s=0)) as app:
        job_id = app.publish(Numbers())

        def snooze(job: Job[Numbers]) -> None:
            demand("RTY-2", job.attempt == 1, f"a job that only snoozed is in attempt {job.attempt}")
            raise Snooze(soon_s)

        for _ in range(3):
            app.consume(app.recorder(snooze), 1)
            context.harness.advance(soon_s + context.capabilities.delay_resolution_s)
        app.consume(app.recorder(_fail), 2)
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        demand("RTY-2", (letter.id, letter.attempt) == (job_id, 2), f"it died in attempt {letter.attempt}")
        errors = [failure.error for failure in letter.attempts]
        demand("RTY-2", errors == [f"ValueError: attempt {n} failed" for n in (1, 2)], f"errors {errors}")


@check("RTY-2", modes=EVERY_MODE)
def a_handler_may_reject(context: CheckContext) -> None:
    """Reject makes the job dead at once, with its reason, whatever attempts are left."""
    with app_on(context) as app:
        job_id = app.publish(Numbers())

        def reject(_job: object) -> None:
            raise Reject("a broken image")

        app.consume(app.recorder(reject), 1)
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        found = (letter.id, letter.reason, letter.error)
        demand("RTY-2", found == (job_id, DeadReason.REJECTED, "a broken image"), f"the letter is {found}")


@check("RTY-3")
def a_job_that_kills_its_worker_ends_dead(context: CheckContext) -> None:
    """Once its crash budget is spent, a job is dead with that reason, and isn't run again."""
    harness = context.harness
    policy = RetryPolicy(max_attempts=5, base_delay_s=0, max_crashes=3)
    with app_on(context, retry=policy) as app:
        job_id = app.publish(Numbers())
        for _ in range(3):
            doomed = app.backend.open_consumer(QUEUE, lease_s=harness.lease_s)
            assert context.receive(doomed)
            harness.crash(doomed)
            harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = app.consume(app.recorder(), 1)
        demand("RTY-3", consumer.jobs == [], "a job was run though its crash budget was spent")
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        found = (letter.id, letter.reason, letter.crashes, letter.attempt)
        demand("RTY-3", found == (job_id, DeadReason.CRASHES, 3, 1), f"the letter is {found}")


@check("RTY-3")
def only_crashes_are_counted(context: CheckContext) -> None:
    """Jobs that are published just while a consumer asks for more than there are have no crash counted.

    Where the broker pushes, it may send some as the consumer takes its request back.
    """
    rounds, at_once = 100, 3
    with context.queue() as queue:

        def publish(name: str) -> None:
            for number in range(rounds):
                queue.publish(*[f"{name}-{number}-{one}" for one in range(at_once)])
                time.sleep(0.0005)  # or a quick broker would always have as many as are asked for

        publishers = [context.start(partial(publish, name)) for name in ("left", "right")]
        consumer = queue.consumer()
        came: list[Delivery] = []
        taken: list[Delivery] = []
        while len(came) < len(publishers) * rounds * at_once:
            acks = [Ack(delivery.receipt) for delivery in taken]
            taken = consumer.settle(acks, take=50).deliveries or queue.receive(consumer, 50)
            if not taken:
                for publisher in publishers:
                    context.finish(publisher)  # which tells what ails it
            assert taken, f"{len(came)} jobs came, and no more"
            came += taken
        for publisher in publishers:
            context.finish(publisher)
        crashed = sum(delivery.crashes > 0 for delivery in came)
        demand("RTY-3", not crashed, f"{crashed} of {len(came)} jobs have a crash counted that was none")


@check("RTY-3")
def the_two_budgets_are_counted_apart(context: CheckContext) -> None:
    """Crashes spend no attempts, failures no crash budget."""
    harness = context.harness
    policy = RetryPolicy(max_attempts=2, base_delay_s=0, max_crashes=2)
    with app_on(context, retry=policy) as app:
        app.publish(Numbers())
        doomed = app.backend.open_consumer(QUEUE, lease_s=harness.lease_s)
        assert context.receive(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = app.consume(app.recorder(_fail), 2)
        attempts = [job.attempt for job in consumer.jobs]
        demand("RTY-3", attempts == [1, 2], f"the attempts were {attempts}")
        (letter,) = app.orchestrator.dead_letters(QUEUE)
        demand("RTY-3", letter.reason == DeadReason.ATTEMPTS, f"the reason is {letter.reason!r}")


@check("RTY-3", modes=MANY_AT_ONCE)
def a_crash_is_charged_apart_beside_other_jobs(context: CheckContext) -> None:
    """Once its crash budget is spent, a job isn't run; until then a crash spends none of its attempts.

    As the two checks above, with other jobs to be run at the same time, and with one wait for a lease.
    """
    harness = context.harness
    budgets = [RetryPolicy(max_attempts=2, base_delay_s=0, max_crashes=crashes) for crashes in (1, 2)]
    with app_on(context, retry=budgets[0]) as spent, app_on(context, retry=budgets[1]) as left:
        suspects = [_crash_with_one_job(app) for app in (spent, left)]
        harness.advance(harness.redelivery_s(harness.lease_s))
        _expect_end(spent, suspects[0], attempts=[], reason=DeadReason.CRASHES)
        _expect_end(left, suspects[1], attempts=[1, 2], reason=DeadReason.ATTEMPTS)


def _crash_with_one_job(app: App) -> str:
    job_id = app.publish(Numbers())
    harness = app.context.harness
    doomed = app.backend.open_consumer(QUEUE, lease_s=harness.lease_s)
    assert app.context.receive(doomed)
    harness.crash(doomed)
    return job_id


def _expect_end(app: App, suspect: str, *, attempts: list[int], reason: DeadReason) -> None:
    """Run a job that fails, and others beside it; demand how often that one is run, and why it ends."""
    others = app.publish_many(app.context.mode.at_once)

    def handler(job: Job[Numbers]) -> None:
        if job.id == suspect:
            _fail(job)

    consumer = app.consume(app.recorder(handler), len(others) + max(1, len(attempts)))
    made = [job.attempt for job in consumer.jobs if job.id == suspect]
    demand("RTY-3", made == attempts, f"the attempts were {made}")
    assert sorted(id_ for id_ in consumer.ids if id_ != suspect) == sorted(others)
    (letter,) = app.orchestrator.dead_letters(QUEUE)
    found = (letter.id, letter.reason, letter.crashes)
    demand("RTY-3", found == (suspect, reason, 1), f"the letter is {found}")
