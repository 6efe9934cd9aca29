"""CRD-4: a guarded publish writes its record and publishes its job, or does neither."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ...application.broker.guarded_publish import publish_guarded
from ...domain import QueueKind
from ...domain.errors import BackendUnavailable, QueueNotFound, UnsupportedCapability
from ...ports import (
    ABSENT,
    Ack,
    Dead,
    Guard,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    Record,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check, refusal
from ..stores import end_of, timed, wait_until_over
from ..violation import demand
from .races import at_once

ACCEPTED, DUPLICATE, UNKNOWN = PublishStatus.ACCEPTED, PublishStatus.DUPLICATE, PublishStatus.UNKNOWN


@dataclass(slots=True)
class _Publishers:
    """Two clients that publish to one queue under guards, by the application where the broker can't."""

    queue: QueueUnderTest
    backends: list[OrchestratorBackend]

    def publish(self, message: Message, guard: Guard, *, by: int = 0) -> PublishOutcome | None:
        return publish_guarded(self.backends[by], self.queue.name, message, guard)

    def record(self, key: str = "guard") -> Record | None:
        """The guard's record, as the second client sees it."""
        return self.backends[1].coordination.get([key]).get(key)

    def expect_refused(self, message: Message, guard: Guard, why: str) -> None:
        """Demand that nothing is published and nothing written."""
        there, counts = self.record(guard.key), self.queue.counts()
        outcome = self.publish(message, guard, by=1)
        demand("CRD-4", outcome is None, f"{why}, it was answered {outcome}")
        record = self.record(guard.key)
        demand("CRD-4", record == there, f"{why}, the record became {record}, it was {there}")
        self.queue.expect_counts(
            ready=counts.ready, delayed=counts.delayed, in_flight=counts.in_flight or 0, dead=counts.dead
        )

    def expect_published(self, message: Message, guard: Guard, expected: PublishStatus = ACCEPTED) -> Record:
        """Demand that both happened, and return the record."""
        outcome = self.publish(message, guard)
        what = f"{message.id} under {guard}"
        demand("CRD-4", outcome == PublishOutcome(message.id, expected), f"{what} was answered {outcome}")
        record = self.record(guard.key)
        written = record is not None and record.value == guard.value and record.version != guard.expected
        demand("CRD-4", written, f"{what} was {expected}, and the record is {record}")
        assert record is not None
        return record


@contextmanager
def _publishers(context: CheckContext, kind: QueueKind = QueueKind.FIFO) -> Iterator[_Publishers]:
    with context.backends(2) as backends:
        yield _Publishers(context.queue_on(backends[0], kind), backends)


@check("CRD-4", needs="coordination")
def a_guarded_publish_does_both_or_neither(context: CheckContext) -> None:
    """With the expected version, the job is there and the record written; with another, neither."""
    with _publishers(context) as publishers:
        queue, message = publishers.queue, publishers.queue.message
        publishers.expect_refused(message("x"), Guard("guard", 7, b"no"), "as there was no record")
        first = publishers.expect_published(message("a"), Guard("guard", ABSENT, b"a"))
        publishers.expect_refused(message("x"), Guard("guard", ABSENT, b"no"), "as there was a record")
        second = publishers.expect_published(message("b"), Guard("guard", first.version, b"\0b"))
        publishers.expect_refused(message("x"), Guard("guard", first.version, b"no"), "with a stale version")
        ahead = Guard("guard", second.version + 1, b"no")
        publishers.expect_refused(message("x"), ahead, "with a version that was never given")
        store = publishers.backends[1].coordination
        version = store.put("guard", b"by a put", expected=second.version)
        demand("CRD-4", version is not None, "a put didn't know the version that a guarded publish gave")
        third = publishers.expect_published(message("c"), Guard("guard", version or ABSENT, b"c"))
        demand("CRD-4", store.delete("guard", expected=third.version), "its record couldn't be deleted")
        publishers.expect_refused(message("x"), Guard("guard", third.version, b"no"), "after a delete")
        last = publishers.expect_published(message("d"), Guard("guard", ABSENT, b""))
        versions = [first.version, second.version, version, third.version, last.version]
        demand("CRD-1", len(set(versions)) == 5, f"the versions were {versions}")
        consumer = queue.consumer()
        came = [queue.receive_one(consumer) for _ in range(4)]
        whole = [(each.id, each.body, each.attempt) for each in came]
        expected = [(id_, message(id_).body, 1) for id_ in "abcd"]
        demand("CRD-4", whole == expected, f"{whole} came, and {expected} were published")
        queue.receive_nothing(consumer)


@check("CRD-4", "PUB-3", needs="coordination")
def an_undeclared_queue_leaves_the_record_as_it_was(context: CheckContext) -> None:
    """It raises QueueNotFound, and the next guarded publish with the same version succeeds."""
    with _publishers(context) as publishers:
        first = publishers.expect_published(publishers.queue.message("a"), Guard("guard", ABSENT, b"a"))
        for guard in (Guard("new", ABSENT, b"no"), Guard("guard", first.version, b"no")):
            there = publishers.record(guard.key)
            message = publishers.queue.message("x")
            error = context.failure_of(
                partial(publish_guarded, publishers.backends[0], "nowhere", message, guard)
            )
            demand("PUB-3", isinstance(error, QueueNotFound), f"a queue that isn't there raised {error!r}")
            record = publishers.record(guard.key)
            demand("CRD-4", record == there, f"nothing was published, and the record is {record}")
            publishers.expect_published(publishers.queue.message(f"after-{guard.key}"), guard)


@check("CRD-4", needs="coordination")
def a_duplicate_writes_the_record(context: CheckContext) -> None:
    """With dedupe, a live id is answered DUPLICATE, and the record is written: the job is there."""
    if not context.capabilities.dedupe:
        return
    with _publishers(context) as publishers:
        queue = publishers.queue
        consumer = queue.consumer()
        queue.publish("dead", "held")
        receipt = queue.receive_one(consumer).receipt
        queue.receive_one(consumer)
        queue.settle_ok(consumer, Dead(receipt, "rejected", "no good"))
        queue.publish("ready")
        queue.publish("delayed", delay_s=3600.0)
        for id_ in ("ready", "delayed", "held", "dead"):
            publishers.expect_published(queue.message(id_), Guard(id_, ABSENT, b"seen"), DUPLICATE)
            refused = Guard(id_, ABSENT, b"again")
            publishers.expect_refused(queue.message(id_), refused, "as there was a record")
        queue.expect_counts(ready=1, delayed=1, in_flight=1, dead=1)


@check("CRD-4", "RES-1", needs="coordination")
def a_guarded_job_may_have_a_used_id(context: CheckContext) -> None:
    """Under the id of a job that has ended, it is a new job, and nothing is known of the former one."""
    with _publishers(context) as publishers:
        queue, message = publishers.queue, publishers.queue.message("job")
        consumer = queue.consumer()
        for number in range(3):
            publishers.expect_published(message, Guard(f"{number}", ABSENT, b""))
            if context.capabilities.results:
                found = queue.backend.result(queue.name, "job")
                demand("RES-1", found is None, f"published under a guard, a used id is known by {found}")
            delivery = queue.receive_one(consumer)
            demand("CRD-4", (delivery.id, delivery.attempt) == ("job", 1), f"a used id came as {delivery}")
            queue.settle_ok(consumer, Ack(delivery.receipt, b"{}" if number else None))
        publishers.expect_published(message, Guard("last", ABSENT, b""))
        queue.backend.purge(queue.name)
        if context.capabilities.results:
            found = queue.backend.result(queue.name, "job")
            demand("RES-1", found is None, f"published under a guard and purged, it is known by {found}")


@check("CRD-4", needs="coordination")
def a_guarded_job_keeps_its_delay_and_its_body(context: CheckContext) -> None:
    """It is delayed as it says and never early, and its bytes come back as they were."""
    soon_s = context.capabilities.delay_resolution_s + 0.2
    with _publishers(context) as publishers:
        queue = publishers.queue
        body = b'{"note":"gr\xc3\xb6\xc3\x9fe \\u0000"}'
        sent = context.harness.now()
        publishers.expect_published(Message("soon", body, 0, soon_s), Guard("soon", ABSENT, b""))
        publishers.expect_published(Message("far", body, 0, 3600.0), Guard("far", ABSENT, b""))
        came = queue.receive_when_due(queue.consumer(), sent + soon_s, "CRD-4")
        demand("CRD-4", (came.id, came.body) == ("soon", body), f"{came} came, and {body!r} was published")
        queue.expect_counts(delayed=1, in_flight=1)


@check("CRD-4", needs="coordination")
def a_guarded_job_keeps_its_priority(context: CheckContext) -> None:
    """Published under guards, jobs come in the order of their priorities."""
    if not context.capabilities.priority:
        return
    with _publishers(context, QueueKind.PRIORITY) as publishers:
        queue = publishers.queue
        queue.publish("middle", priority=5)
        for id_, priority in (("lowest", 0), ("high", 7), ("highest", 9)):
            publishers.expect_published(Message(id_, b"{}", priority), Guard(id_, ABSENT, b""))
        queue.expect_counts(ready=4)
        came = queue.drain(queue.consumer(), 4)
        demand("CRD-4", came == ["highest", "high", "middle", "lowest"], f"by priority, {came} came")


@check("CRD-4", "CRD-3", needs="coordination")
def the_record_of_a_guard_has_its_time(context: CheckContext) -> None:
    """It ends when the guard says, and one without a time keeps it for good; then another may publish."""
    with _publishers(context) as publishers:
        store, message = publishers.backends[0].coordination, publishers.queue.message
        guard = Guard("guard", ABSENT, b"", 0.3)
        put = timed(store, partial(publishers.publish, message("a"), guard))
        end = end_of(put, 0.3)
        record = publishers.record()
        there = record is not None or not end.is_surely_ahead(store.now())
        demand("CRD-4", there, "the record of a guard with a time isn't there")
        version = store.put("kept", b"", ttl_s=0.3)
        kept = publishers.publish(message("kept"), Guard("kept", version or ABSENT, b""))
        wait_until_over(context, store, end_of(timed(store, lambda: None), 0.3))
        wait_until_over(context, store, end)
        demand("CRD-4", publishers.record() is None, "the record of a guard is there after its time")
        demand("CRD-4", kept is None or publishers.record("kept"), "a guard without a time didn't keep it")
        publishers.expect_published(message("b"), guard._replace(ttl_s=None))


@check("CRD-4", needs="coordination")
def of_many_publishers_at_once_one_publishes(context: CheckContext) -> None:
    """Fifty of two clients publish jobs of their own under one guard at once: one job is there."""
    with _publishers(context) as publishers:
        expected = ABSENT
        for number in range(3):
            calls = [
                partial(
                    publishers.publish,
                    publishers.queue.message(f"job-{number}-{n}"),
                    Guard("guard", expected, b"%d" % n),
                    by=n % 2,
                )
                for n in range(50)
            ]
            told = [outcome for outcome in at_once(context, *calls) if outcome is not None]
            found = f"of 50 that published at once under one guard, {len(told)} did"
            demand("CRD-4", [each.status for each in told] == [ACCEPTED], found)
            publishers.queue.expect_counts(ready=number + 1)
            record = publishers.record()
            own = f"job-{number}-{record.value.decode()}" if record else None
            demand("CRD-4", own == told[0].id, f"{told[0].id} was published, and the record is {record}")
            expected = record.version if record else ABSENT


@check("CRD-4", needs="coordination")
def each_slot_is_published_once(context: CheckContext) -> None:
    """Four schedulers publish fifteen slots, one after the other: each slot is one job, in order."""
    slots = 15

    def schedule(publishers: _Publishers, number: int) -> None:
        store = publishers.backends[number % 2].coordination
        while True:
            record = store.get(["next"]).get("next")
            slot = int(record.value) if record else 0
            if slot == slots:
                return
            guard = Guard("next", record.version if record else ABSENT, b"%d" % (slot + 1))
            publishers.publish(Message(f"slot-{slot}-{number}", b"{}"), guard, by=number % 2)

    with _publishers(context) as publishers:
        at_once(context, *[partial(schedule, publishers, number) for number in range(4)])
        publishers.queue.expect_counts(ready=slots)
        came = [id_.split("-")[1] for id_ in publishers.queue.drain(publishers.queue.consumer(), slots)]
        expected = [str(slot) for slot in range(slots)]
        demand("CRD-4", came == expected, f"the slots were published as {came}")


@check("CRD-4", needs="guarded_publish")
def nobody_sees_one_without_the_other(context: CheckContext) -> None:
    """While jobs are published under a guard, each look finds as many jobs as the record counts."""
    times = 25
    with _publishers(context) as publishers:

        def publish() -> None:
            expected = ABSENT
            for number in range(times):
                message = publishers.queue.message(f"job-{number}")
                publishers.publish(message, Guard("guard", expected, b"%d" % (number + 1)))
                record = publishers.record()
                expected = record.version if record else ABSENT

        def counted() -> int:
            record = publishers.record()
            return int(record.value) if record else 0

        def look() -> None:
            while (recorded := counted()) < times:
                jobs = publishers.backends[1].counts(publishers.queue.name).waiting
                demand("CRD-4", jobs >= recorded, f"the record counts {recorded} jobs, and {jobs} are there")
                recorded = counted()
                demand("CRD-4", recorded >= jobs, f"{jobs} jobs are there, and the record counts {recorded}")

        at_once(context, publish, look)


@check("CRD-4", "CON-1", needs="guarded_publish")
def a_guarded_publish_whose_reply_is_lost_is_answered_truly(context: CheckContext) -> None:
    """It is ACCEPTED or UNKNOWN, and job and record are both there, or neither is; the guard then decides."""
    with _publishers(context) as publishers:
        mine, message = publishers.backends[0], publishers.queue.message("job")
        guard = Guard("guard", ABSENT, b"mine")
        publishers.expect_published(publishers.queue.message("first"), Guard("first", ABSENT, b""))
        context.cut_reply(mine)
        try:
            outcome = mine.publish_guarded(publishers.queue.name, message, guard)
        except BackendUnavailable:
            told = UNKNOWN
        else:
            demand("CON-1", outcome is not None, "a publish that counted says that the version was another")
            assert outcome is not None
            told = outcome.status
        demand("CON-1", told in (ACCEPTED, UNKNOWN), f"a new job under a guard was answered {told}")
        record, waiting = publishers.record(), publishers.queue.counts().waiting - 1
        both = (record is not None) == bool(waiting)
        demand("CRD-4", both, f"after a lost reply there are {waiting} jobs, and the record is {record}")
        demand("CRD-4", waiting or told is UNKNOWN, f"it was {told}, and there is no job")
        again = publishers.publish(message, guard)
        demand(
            "CRD-4", (again is None) == bool(waiting), f"asked again, with {waiting} jobs, it says {again}"
        )
        publishers.queue.expect_counts(ready=2)


@check("CRD-4", "CON-1", needs="guarded_publish")
def a_guarded_publish_survives_a_cut_connection(context: CheckContext) -> None:
    """After a cut it is answered as it counted, or isn't known; asked again, there is one job."""
    with _publishers(context) as publishers:
        queue, consumer = publishers.queue, publishers.queue.consumer()
        for number in range(3):
            guard, message = Guard(f"guard-{number}", ABSENT, b""), queue.message(f"job-{number}")
            context.harness.sever(publishers.backends[0])
            for _ in range(2):
                error = context.failure_of(partial(publishers.publish, message, guard))
                allowed = error is None or isinstance(error, BackendUnavailable)
                demand("CON-1", allowed, f"after a cut, a guarded publish raised {error!r}")
            demand("CRD-4", publishers.record(guard.key) is not None, "asked twice, it wrote no record")
            delivery = queue.receive_one(consumer)
            demand("CRD-4", delivery.id == message.id, f"after a cut, {delivery.id} came")
            queue.settle_ok(consumer, Ack(delivery.receipt))
        queue.expect_counts()


# -- where it is declared off ---------------------------------------------------------------------


def _demand_refusal(call: Callable[[], object], what: str) -> None:
    refused: UnsupportedCapability | None = None
    try:
        call()
    except UnsupportedCapability as error:
        refused = error
    assert refused is not None, f"{what} was not refused, against the declared capabilities"
    assert len(str(refused).split()) > 5, f"{what} is refused by {refused!r}, which isn't a sentence"


@refusal("coordination")
def a_store_is_refused(context: CheckContext) -> None:
    """Where there is none, asking for it raises, and what needs it publishes nothing."""
    with context.queue() as queue:
        backend, guard = queue.backend, Guard("guard", ABSENT, b"")
        assert not backend.capabilities.guarded_publish, "without a store, no publish can be guarded by one"
        _demand_refusal(lambda: backend.coordination, "a coordination store")
        own = partial(backend.publish_guarded, queue.name, queue.message("job"), guard)
        for call in (own, partial(publish_guarded, backend, queue.name, queue.message("job"), guard)):
            _demand_refusal(call, "a guarded publish")
        queue.expect_counts()


@refusal("guarded_publish")
def a_guarded_publish_is_refused(context: CheckContext) -> None:
    """Where it isn't one step, the backend's own raises; no job is published, and no record written."""
    with context.queue() as queue:
        backend, guard = queue.backend, Guard("guard", ABSENT, b"")
        call = partial(backend.publish_guarded, queue.name, queue.message("job"), guard)
        _demand_refusal(call, "a guarded publish in one step")
        queue.expect_counts()
        if backend.capabilities.coordination:
            assert backend.coordination.get(["guard"]) == {}, "a refused guarded publish wrote its record"
