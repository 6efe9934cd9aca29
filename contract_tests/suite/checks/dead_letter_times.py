"""DLQ-5: dead letters that are kept for a time."""

from collections.abc import Callable
from functools import partial

from ...application.api.orchestrator import Orchestrator
from ...domain import Job, JobSchema, Reject
from ...domain.errors import UnsupportedCapability
from ...ports import Ack, CancelOutcome, ConsumerBackend, Dead, JobStatus, PublishStatus
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..modes import EVERY_MODE
from ..registry import check, refusal
from ..violation import demand
from .next_jobs import jobs_in

_TTL_S = 1.0
_LATE_S = 0.5
"""How long after a time is over nothing is left to see of it."""
_HOUR_S = 3600.0
_MANY = 20


def _bury(queue: QueueUnderTest, consumer: ConsumerBackend, times: dict[str, float | None]) -> None:
    """Publish jobs, and let each die, in this order, for its time."""
    queue.publish(*times)
    for ttl_s in times.values():
        queue.settle_ok(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no", ttl_s=ttl_s))


def _listed(queue: QueueUnderTest) -> list[str]:
    return [letter.id for letter in queue.backend.dead_letters(queue.name)]


def _expect_listed(queue: QueueUnderTest, *ids: str) -> None:
    def agree() -> None:
        listed = _listed(queue)
        demand("DLQ-5", listed == list(ids), f"the dead letters are {listed}, not {list(ids)}")

    queue.context.eventually(agree)


def _expect_unknown(queue: QueueUnderTest, id_: str) -> None:
    """Demand that no call knows anything of a job any more."""
    backend, name = queue.backend, queue.name
    queue.expect_counts()
    for what, act in {"redriven": backend.redrive, "discarded": backend.discard}.items():
        for ids in ([id_], None):
            count = act(name, ids)
            demand("DLQ-5", count == 0, f"{count} dead letters were {what} whose time was over")
    if backend.capabilities.results:
        found = backend.result(name, id_), backend.results(name, [id_])
        demand("DLQ-5", found == (None, {}), f"the job still has the result {found}")
    try:
        status = backend.status(name, id_)
    except UnsupportedCapability:
        status = JobStatus.UNKNOWN
    demand("DLQ-5", status is JobStatus.UNKNOWN, f"the job is said to be {status}")
    if backend.capabilities.cancel:
        (outcome,) = backend.cancel(name, [id_])
        demand("DLQ-5", outcome is CancelOutcome.UNKNOWN, f"a cancel was answered {outcome}")


@check("DLQ-5", needs="dead_ttl")
def a_dead_letter_is_kept_for_its_time(context: CheckContext) -> None:
    """It is listed and counted until its time is over. Then nothing is known of it, and its id is free."""
    with context.queue() as queue, queue.consumer() as consumer:
        queue.publish("job")
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt))  # an end in an earlier life
        began = context.harness.now()
        _bury(queue, consumer, {"job": _TTL_S})
        context.harness.advance(_TTL_S / 2)
        counted, listed = queue.counts().dead, _listed(queue)
        kept_s = context.harness.now() - began
        is_there = counted == 1 and listed == ["job"]
        demand("DLQ-5", is_there or kept_s >= _TTL_S, f"it was gone after {kept_s:.3f} s, not {_TTL_S:g} s")
        context.harness.advance(_TTL_S + _LATE_S)
        _expect_listed(queue)
        _expect_unknown(queue, "job")
        queue.receive_nothing(consumer)
        queue.publish("job")
        fresh = queue.receive_one(consumer)
        spent = (fresh.id, fresh.attempt, fresh.crashes)
        demand("PUB-5", spent == ("job", 1, 0), f"published again, it has come as {spent}")
        queue.settle_ok(consumer, Dead(fresh.receipt, "rejected", "no"))
        context.harness.advance(_TTL_S + _LATE_S)
        _expect_listed(queue, "job")


@check("DLQ-5", needs="dead_ttl")
def the_id_of_an_expired_letter_is_free_however_it_is_published(context: CheckContext) -> None:
    """A batch, a delayed job, the next job of an ack and one of a death may have it, though nobody looked."""
    times: dict[str, float | None] = dict.fromkeys(("a", "b", "c", "d", "e"), _TTL_S)
    with context.queue() as queue, queue.consumer() as consumer:
        queue.publish("acked", "dying")
        acked, dying = (queue.receive_one(consumer).receipt for _ in range(2))
        _bury(queue, consumer, times)
        context.harness.advance(_TTL_S + _LATE_S)
        batch = queue.publish("new", "a", "b")
        demand("DLQ-5", all(each.status is PublishStatus.ACCEPTED for each in batch), f"answered {batch}")
        queue.publish("c", delay_s=_HOUR_S)
        published = ["new", "a", "b"]
        if context.capabilities.then:
            queue.settle_ok(consumer, Ack(acked, then=jobs_in(queue, "d")))
            queue.settle_ok(consumer, Dead(dying, "rejected", "no", jobs_in(queue, "e"), _HOUR_S))
            published += ["d", "e"]
        came = queue.drain(consumer, len(published))
        demand("DLQ-5", sorted(came) == sorted(published), f"{came} came, not {published}")


@check("DLQ-5", needs="exact_dead_ttl")
def each_goes_when_its_own_time_is_over(context: CheckContext) -> None:
    """Also behind letters that are kept for longer, or for ever; lists, pages and redrives pass over it."""
    times = {"ever": None, "short": _TTL_S, "long": _HOUR_S, "short-too": _TTL_S, "ever-too": None}
    kept = ["ever", "long", "ever-too"]
    with context.queue() as queue, queue.consumer() as consumer:
        _bury(queue, consumer, times)
        context.harness.advance(_TTL_S + _LATE_S)
        _expect_listed(queue, *kept)
        queue.expect_counts(dead=3)
        for offset in range(4):
            page = [each.id for each in queue.backend.dead_letters(queue.name, limit=2, offset=offset)]
            demand("DLQ-5", page == kept[offset : offset + 2], f"the page from {offset} on is {page}")
        redriven = queue.backend.redrive(queue.name)
        demand("DLQ-5", redriven == 3, f"{redriven} were redriven, not the 3 that are kept")
        came = queue.drain(consumer, 3)
        demand("DLQ-5", came == kept, f"{came} came, not {kept}")


@refusal("exact_dead_ttl")
def an_expired_letter_waits_for_those_before_it_at_most(context: CheckContext) -> None:
    """It is gone with the last letter that died before it, if it isn't gone by itself."""
    if not context.capabilities.dead_ttl:
        return
    with context.queue() as queue, queue.consumer() as consumer:
        _bury(queue, consumer, {"first": _TTL_S, "ever": None, "behind": _TTL_S})
        context.harness.advance(_TTL_S + _LATE_S)

        def only_the_first_is_gone() -> None:
            listed = _listed(queue)
            demand("DLQ-5", listed in (["ever"], ["ever", "behind"]), f"the dead letters are {listed}")

        context.eventually(only_the_first_is_gone)
        assert queue.backend.discard(queue.name, ["ever"]) == 1
        _expect_listed(queue)
        queue.expect_counts()


@check("DLQ-5", needs="dead_ttl")
def a_redriven_job_has_no_time_any_more(context: CheckContext) -> None:
    """A redrive in time keeps the job, also beyond its time; and a second death is for its own."""
    harness = context.harness
    for ttl_s in (_TTL_S, 4 * _TTL_S, 16 * _TTL_S):
        with context.queue() as queue, queue.consumer() as consumer:
            began = harness.now()
            _bury(queue, consumer, {"job": ttl_s})
            if queue.backend.redrive(queue.name) == 0:  # as a slow machine comes too late
                demand("DLQ-5", harness.now() - began >= ttl_s, "a letter in its time wasn't redriven")
                continue
            harness.advance(ttl_s + _LATE_S)
            queue.expect_counts(ready=1)
            queue.settle_ok(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no"))
            harness.advance(ttl_s + _LATE_S)
            _expect_listed(queue, "job")
            return


@check("DLQ-5", "CON-2", needs="dead_ttl")
def expired_letters_are_removed(context: CheckContext) -> None:
    """While consumers work, the broker stores nothing of them any more, where the harness can tell."""
    with context.queue() as queue, queue.consumer() as consumer:
        count = partial(context.harness.count_stored, queue.backend)

        def work() -> None:
            queue.publish("job")
            queue.drain(consumer, 1)

        work()
        before = count()
        if before is None:
            return
        _bury(queue, consumer, {f"dead-{n}": _TTL_S for n in range(_MANY)})
        context.harness.advance(_TTL_S + _LATE_S)

        def nothing_is_left() -> None:
            work()
            left = (count() or 0) - before
            demand("DLQ-5", left < _MANY, f"{left} more things are stored after {_MANY} letters expired")

        context.eventually(nothing_is_left)


def _reject(_job: Job[Numbers]) -> None:
    raise Reject("no good")


@check("DLQ-5", needs="dead_ttl", modes=EVERY_MODE)
def the_schema_says_for_how_long(context: CheckContext) -> None:
    """Whatever a job dies of, and however it is run, its letter is kept for the schema's ``dead_ttl_s``."""
    with app_on(context, dead_ttl_s=_TTL_S) as app:
        queue = QueueUnderTest(context, app.backend, QUEUE)
        app.publish(Numbers(x=1, y=2))
        queue.publish("malformed")
        app.consume(app.recorder(_reject), 2)
        context.harness.advance(_TTL_S + _LATE_S)
        _expect_listed(queue)
        queue.expect_counts()


@refusal("dead_ttl")
def a_time_for_dead_letters_is_refused(context: CheckContext) -> None:
    """Where none would be removed, a schema with ``dead_ttl_s`` isn't registered."""
    with context.backends(1) as (backend,):
        register: Callable[[], object] = partial(
            Orchestrator(backend).register, JobSchema(QUEUE, Numbers, dead_ttl_s=_TTL_S)
        )
        failure = context.failure_of(register)
        assert isinstance(failure, UnsupportedCapability), f"dead_ttl_s was not refused: {failure!r}"
