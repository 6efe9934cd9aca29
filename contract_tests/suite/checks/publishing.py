"""PUB: what publishing promises."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from ...domain import Job, Queue, QueueKind
from ...domain.bounds import MAX_BODY_BYTES
from ...domain.errors import InvalidInput, QueueNotFound, SchemaMismatch
from ...ports import Ack, Dead, Message, PublishStatus, Release, Retry
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import expect_accepted
from ..modes import EVERY_MODE
from ..queue_calls import calls_naming
from ..registry import check, refusal
from ..violation import demand


@check("PUB-1")
def a_published_job_is_visible_at_once(context: CheckContext) -> None:
    """Once publish has returned, another client counts the job and its consumer receives it."""
    with context.backends(2) as (publisher, other):
        publisher.declare(Queue("jobs"))
        expect_accepted(publisher.publish("jobs", [Message("a", b'{"n":1}')]))
        waiting = other.counts("jobs").waiting
        demand("PUB-1", waiting == 1, f"one job is published, and another client counts {waiting}")
        came = context.receive(other.open_consumer("jobs"))
        demand("PUB-1", len(came) == 1, f"one job is published, and {len(came)} came")
        demand("PUB-1", (came[0].id, came[0].body) == ("a", b'{"n":1}'), f"it came as {came[0]}")
        fresh = (came[0].attempt, came[0].number, came[0].crashes)
        demand("PUB-1", fresh == (1, 1, 0), f"attempt, number and crashes of a new job are {fresh}")


@check("PUB-1")
def equal_jobs_are_as_many_jobs(context: CheckContext) -> None:
    """Jobs that differ in nothing but their ids are told apart, in whatever state they are."""
    with context.queue() as queue:
        expect_accepted(queue.backend.publish(queue.name, [Message(id_, b"{}") for id_ in "abcd"]))
        expect_accepted(queue.backend.publish(queue.name, [Message("e", b"{}")]))
        queue.expect_counts(ready=5)
        consumer = queue.consumer()
        held = [queue.receive_one(consumer) for _ in range(4)]
        bodies = {delivery.body for delivery in held}
        demand("PUB-1", bodies == {b"{}"}, f"equal bodies came as {bodies}")
        queue.settle(consumer, Ack(held[0].receipt))
        queue.settle(consumer, Dead(held[1].receipt, "rejected", "no good"))
        queue.settle(consumer, Retry(held[2].receipt, 3600.0, "later"))
        queue.expect_counts(ready=1, delayed=1, in_flight=1, dead=1)


@check("PUB-1")
def a_body_arrives_as_it_was(context: CheckContext) -> None:
    """An empty body, one of every byte and one as large as is allowed come out as they went in."""
    every_byte = bytes(range(256))
    bodies = {"empty": b"", "bytes": every_byte, "large": every_byte * (MAX_BODY_BYTES // len(every_byte))}
    with context.queue() as queue:
        expect_accepted(
            queue.backend.publish(queue.name, [Message(id_, body) for id_, body in bodies.items()])
        )
        consumer = queue.consumer()
        for id_, body in bodies.items():
            delivery = queue.receive_one(consumer)
            demand("PUB-1", delivery.id == id_, f"{delivery.id} came where {id_} should")
            size = len(delivery.body)
            demand(
                "PUB-1", delivery.body == body, f"the {id_} body, of {len(body)} bytes, has {size} or others"
            )


@check("PUB-2")
def an_id_is_kept_to_the_end(context: CheckContext) -> None:
    """Any id that is allowed is that of the outcome, the delivery and the dead letter, and is no other's."""
    ids = ["a", "A", ".", "..", "-", "a.b", "a-b", "a_b", "x" * 127 + "y", "x" * 127 + "z"]
    with context.queue() as queue:
        answered = [outcome.id for outcome in queue.publish(*ids)]
        demand("PUB-2", answered == ids, f"the outcomes of {ids} are of {answered}")
        consumer = queue.consumer()
        for id_ in ids:
            delivery = queue.receive_one(consumer)
            demand("PUB-2", delivery.id == id_, f"{id_} came as {delivery.id}")
            demand("PUB-2", delivery.body == queue.message(id_).body, f"{id_} came with another's body")
            queue.settle(consumer, Dead(delivery.receipt, "rejected", "no good"))
        letters = [letter.id for letter in queue.backend.dead_letters(queue.name)]
        demand("PUB-2", letters == ids, f"the dead letters are {letters}")


@check("PUB-2", modes=EVERY_MODE)
def the_id_is_the_jobs_own(context: CheckContext) -> None:
    """The id that publish returns is that of the job that the handler sees."""
    with app_on(context) as app:
        returned = [
            app.publish(Numbers(x=1)),
            app.publish(Job(schema_name=QUEUE, payload=Numbers(), id="mine")),
        ]
        demand("PUB-2", returned[1] == "mine", f"job 'mine' was published as {returned[1]!r}")
        consumer = app.consume(app.recorder(), 2)
        demand("PUB-2", consumer.ran(returned), f"published as {returned}, the handlers saw {consumer.ids}")


@check("PUB-3")
def an_undeclared_queue_is_refused(context: CheckContext) -> None:
    """Every call that names a queue which isn't declared, or no longer, raises QueueNotFound.

    It creates nothing, so that it raises it again. That of no job names its queue as well.
    """
    with context.backends(1) as (backend,):
        backend.declare(Queue("deleted"))
        backend.delete("deleted")
        for queue in ("nowhere", "deleted"):
            for what, call in list(calls_naming(backend, queue).items()) * 2:
                error = context.failure_of(call)
                is_refused = isinstance(error, QueueNotFound)
                demand("PUB-3", is_refused, f"{what} of a queue that is {queue} raised {error!r}")


@check("PUB-4")
def a_batch_is_answered_item_by_item_in_order(context: CheckContext) -> None:
    """Each message of a batch gets its own outcome, in order, and each that is accepted is there."""

    @context.property(size=st.integers(0, 60))
    def _(size: int) -> None:
        with context.queue() as queue:
            ids = [f"job-{n}" for n in range(size)]
            outcomes = queue.publish(*ids)
            demand("PUB-4", [outcome.id for outcome in outcomes] == ids, "outcomes aren't in order")
            queue.expect_counts(ready=size)


@check("PUB-4")
def a_large_batch_is_whole(context: CheckContext) -> None:
    """A batch of 3,000 messages of 1 KiB is accepted, and every one of them is delivered."""
    with context.queue() as queue:
        ids = [f"job-{n}" for n in range(3000)]
        padding = b'{"pad":"%b"}' % (b"x" * 1000)
        outcomes = queue.backend.publish(queue.name, [Message(id_, padding) for id_ in ids])
        statuses = {outcome.status for outcome in outcomes}
        demand("PUB-4", len(outcomes) == len(ids), f"{len(ids)} messages got {len(outcomes)} answers")
        demand("PUB-4", statuses == {PublishStatus.ACCEPTED}, f"{len(ids)} messages were answered {statuses}")
        consumer, received = queue.consumer(), list[str]()
        while len(received) < len(ids):
            deliveries = queue.receive(consumer, 500)
            demand("PUB-4", deliveries, f"only {len(received)} of {len(ids)} came")
            received += [delivery.id for delivery in deliveries]
            consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
        whole = sorted(received) == sorted(ids)
        demand("PUB-4", whole, f"{len(received)} came, {len(set(received))} of them different, of {len(ids)}")
        demand("PUB-4", received == ids, "they didn't come in the order of the batch")


@check("PUB-4", "PUB-6")
def an_invalid_item_costs_no_other(context: CheckContext) -> None:
    """All items of a batch are validated first: the bad are rejected with their error, the good are sent."""
    good, bad = st.just({"x": 1.0}), st.sampled_from([{"x": "one"}, {"y": None}, "text", None])

    @context.property(items=st.lists(st.one_of(good, bad), max_size=12))
    def _(items: list[Any]) -> None:
        with app_on(context) as app:
            outcomes = [handle.outcome for handle in app.orchestrator.publish_batch(QUEUE, items)]
            accepted = [outcome.status is PublishStatus.ACCEPTED for outcome in outcomes]
            demand("PUB-4", accepted == [item == {"x": 1.0} for item in items], f"{items} gave {accepted}")
            errors = [outcome.error for outcome in outcomes if outcome.status is PublishStatus.REJECTED]
            demand("PUB-4", all(isinstance(error, InvalidInput) for error in errors), f"errors are {errors}")
            waiting = app.orchestrator.count_queue_messages(QUEUE)
            demand("PUB-4", waiting == sum(accepted), f"{waiting} jobs wait")


@check("PUB-5", needs="dedupe")
def a_live_id_is_published_once(context: CheckContext) -> None:
    """An id that is ready, delayed, in flight or dead is answered DUPLICATE, within a batch as across."""

    @context.property(ids=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
    def _(ids: list[str]) -> None:
        with context.queue() as queue:
            seen: set[str] = set()
            for id_, outcome in zip(
                ids, queue.backend.publish(queue.name, [queue.message(id_) for id_ in ids]), strict=True
            ):
                expected = PublishStatus.DUPLICATE if id_ in seen else PublishStatus.ACCEPTED
                demand("PUB-5", outcome.status is expected, f"{id_} of {ids} was {outcome.status}")
                seen.add(id_)
            queue.expect_counts(ready=len(seen))


@check("PUB-5", needs="dedupe")
def a_duplicate_changes_nothing_in_any_state(context: CheckContext) -> None:
    """Whatever state a job is in, publishing its id again leaves it, its body and its place alone."""
    with context.queue() as queue:
        queue.publish("flying", "dead", "released", "retried", "ready")
        queue.publish("delayed", delay_s=3600)
        consumer = queue.consumer()
        flying, dead, released, retried = (queue.receive_one(consumer) for _ in range(4))
        queue.settle_ok(consumer, Dead(dead.receipt, "rejected", "no good"))
        queue.settle_ok(consumer, Release(released.receipt, 3600.0))
        queue.settle_ok(consumer, Retry(retried.receipt, 3600.0, "no good yet"))
        ids = ("flying", "dead", "released", "retried", "ready", "delayed")
        again = [Message(id_, b'{"another":"body"}') for id_ in ids]
        for outcome in queue.backend.publish(queue.name, again):
            demand("PUB-5", outcome.status is PublishStatus.DUPLICATE, f"live {outcome.id}: {outcome.status}")
        queue.expect_counts(ready=1, delayed=3, in_flight=1, dead=1)
        came = queue.receive_one(consumer)
        demand("PUB-5", came.body == queue.message("ready").body, f"the duplicate changed a body: {came}")
        queue.settle_ok(consumer, Ack(flying.receipt))


@refusal("dedupe")
def a_second_publish_is_a_second_job(context: CheckContext) -> None:
    """Without dedupe, publishing an id twice is answered truly: twice accepted, and twice delivered."""
    with context.queue() as queue:
        queue.publish("a")
        queue.publish("a")
        queue.expect_counts(ready=2)


@check("PUB-6")
def what_breaks_a_rule_is_never_sent(context: CheckContext) -> None:
    """A bad payload, priority, delay, name, schema or size raises a typed error, and no job appears."""
    with app_on(context) as app:
        publish = app.orchestrator.publish
        refused: list[tuple[type[Exception], Callable[[], object]]] = [
            (InvalidInput, lambda: publish(QUEUE, {"x": "one"})),
            (InvalidInput, lambda: publish(QUEUE, 7)),  # type: ignore[call-overload]
            (InvalidInput, lambda: publish(QUEUE, Numbers(), priority=11)),
            (InvalidInput, lambda: publish(QUEUE, Numbers(), priority=1)),  # on a fifo queue
            (InvalidInput, lambda: publish(QUEUE, Numbers(), delay_s=-1)),
            (InvalidInput, lambda: publish(QUEUE, Numbers(), delay_s=float("nan"))),
            (InvalidInput, lambda: publish("no such name!", Numbers())),
            (InvalidInput, lambda: publish(QUEUE, Numbers(note="x" * 5_000_000))),
            (InvalidInput, lambda: publish(QUEUE, Job(schema_name=QUEUE, payload=Numbers(), id="a b"))),
            (SchemaMismatch, lambda: publish(QUEUE, Job(schema_name="other", payload=Numbers()))),
            (QueueNotFound, lambda: publish("nowhere", Numbers())),
        ]
        for number, (expected, call) in enumerate(refused):
            try:
                call()
            except expected:
                continue
            raise AssertionError(f"case {number} was not refused with {expected.__name__}")
        waiting = app.orchestrator.count_queue_messages(QUEUE)
        demand("PUB-6", waiting == 0, f"of what was refused, {waiting} jobs wait")


@check("PUB-6")
def an_unknown_kind_is_refused(context: CheckContext) -> None:
    """A queue name or kind that breaks the rules never reaches the broker."""
    for name, kind in [("", "fifo"), ("a/b", "fifo"), ("x" * 129, "fifo"), ("jobs", "lifo")]:
        try:
            Queue(name, kind)  # type: ignore[arg-type]
        except InvalidInput:
            continue
        raise AssertionError(f"queue {name!r} of kind {kind!r} was not refused")
    with context.backends(1) as (backend,):
        backend.declare(Queue("x" * 128, QueueKind.FIFO))
        backend.declare(Queue("A-z_0.9", QueueKind.FIFO))
