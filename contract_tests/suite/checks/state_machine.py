"""A Hypothesis state machine: an adapter and the model do the same steps, and must agree."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict
from ...ports import (
    Ack,
    Capabilities,
    ConsumerBackend,
    Dead,
    Delivery,
    Lease,
    Message,
    Next,
    PublishOutcome,
    PublishStatus,
    Release,
    Retry,
    Settlement,
)
from ..check_context import LONG_LEASE_S, CheckContext
from ..draws import CONSUMERS, COUNTS, DELAYS, ENDS, PLACES, PRIORITIES, WHO, picked
from ..model import Model, ModelJob, State
from ..registry import check
from ..violation import demand

_NAME = "jobs"
_FAR_S = 86_400.0
_ROUNDING_S = 0.001
"""Added to a wait, so that rounding doesn't end it too early."""
_MANY = 12
"""How many jobs are published before a queue is purged or deleted, so that enough builds up."""


@check("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9")
def the_adapter_and_the_model_agree(context: CheckContext) -> None:
    """No job is lost and none runs twice, in any order of calls and with any consumer dying."""
    profile = context.profile
    examples = profile.machine_examples if context.harness.virtual_time else profile.waited_machine_examples
    settings = context.settings(examples, stateful_step_count=profile.machine_steps)
    # Hypothesis makes the instances, so what they need hangs on a class of their own.
    machine = type("QueueMachine", (QueueMachine,), {"context": context})
    run_state_machine_as_test(context.seeded(machine), settings=settings)


class QueueMachine(RuleBasedStateMachine):
    """One queue, two clients, three consumers that live, and others that die.

    As Hypothesis repeats its draws, which rules can be chosen depends on the steps before, and on no clock. A
    rule that finds nothing to do does nothing.
    """

    context: CheckContext

    def __init__(self) -> None:
        super().__init__()
        context = self.context
        self.stack = ExitStack()
        self.stack.enter_context(context.example())
        self.backend, self.other = self.stack.enter_context(context.backends(2))
        self.capabilities: Capabilities = context.capabilities
        self.resolution_s = self.capabilities.delay_resolution_s
        self.soon_s = self.resolution_s + 0.3
        self.consumers: list[tuple[ConsumerBackend, list[str]]] = []
        self.published = 0
        self.filled = 0
        """How many were published since the queue was last emptied."""
        self.took = self.delayed = self.dead_lettered = False
        """Whether jobs were received, delayed and dead-lettered, so that there may be such jobs now."""
        self.model: Model

    @initialize(kind=st.sampled_from(QueueKind))
    def declare(self, kind: QueueKind) -> None:
        """Start with a queue of a kind that the adapter has."""
        self.kind = kind if self.has(kind) else QueueKind.FIFO
        self.backend.declare(Queue(_NAME, self.kind))
        self.model = Model(self.kind, self.capabilities.redelivery)
        self.consumers = [(self.open(LONG_LEASE_S), []) for _ in range(CONSUMERS)]

    def has(self, kind: QueueKind) -> bool:
        """Whether the adapter has queues of this kind."""
        able = {QueueKind.STACK: self.capabilities.stack, QueueKind.PRIORITY: self.capabilities.priority}
        return able.get(kind, True)

    # -- publishing -------------------------------------------------------------------------------

    @rule(count=COUNTS, priority=PRIORITIES, delay=st.sampled_from(["none", *DELAYS]))
    def publish(self, count: int, priority: int, delay: str) -> None:
        """Publish one, or a batch."""
        self.filled += count
        self.delayed |= delay == "soon"
        self.put(count, priority, self.seconds(delay))

    def put(self, count: int, priority: int = 0, delay_s: float = 0.0) -> None:
        """Put so many jobs into the queue, some of them under ids of jobs that have ended."""
        messages: dict[str, Message] = {}
        ended = self.model.in_state(State.DONE, State.CANCELLED, State.REMOVED, State.DELETED)
        for _ in range(count):
            message = self.new_message(priority, delay_s)
            for job in picked(ended, self.published) if self.published % 3 == 1 else []:
                message = message._replace(id=job.id, body=b'{"id":"%b"}' % job.id.encode())
            messages[message.id] = message
        self.publish_all(list(messages.values()))

    def publish_all(self, messages: list[Message]) -> None:
        """Publish a batch, all of which must be accepted."""
        sent = self.context.harness.now()
        outcomes = self.backend.publish(_NAME, messages)
        answered = self.context.harness.now()
        demand("PUB-4", len(outcomes) == len(messages), f"{len(outcomes)} outcomes for {len(messages)}")
        for message, outcome in zip(messages, outcomes, strict=True):
            accepted = outcome.status is PublishStatus.ACCEPTED
            demand("PUB-1", accepted, f"publishing {message.id} was answered {outcome.status}")
            demand("PUB-2", outcome.id == message.id, f"{message.id} was answered as {outcome.id}")
            is_whole = len(outcome) == len(PublishOutcome._fields)
            demand("PUB-4", is_whole, f"an outcome of {len(outcome)} fields: it has {PublishOutcome._fields}")
            self.model.publish(message, sent, answered)

    def new_message(self, priority: int, delay_s: float) -> Message:
        """Make a message of an id that is new."""
        self.published += 1
        id_ = f"job-{self.published}"
        level = priority if self.kind is QueueKind.PRIORITY else 0
        own = b"{}" if self.published % 3 == 0 else b'{"id":"%b"}' % id_.encode()
        return Message(id_, own, level, delay_s)

    def seconds(self, delay: str) -> float:
        """How long a delay is."""
        return {"none": 0.0, "soon": self.soon_s, "far": _FAR_S}[delay]

    def live_jobs(self) -> list[ModelJob]:
        """The jobs that are not done and not gone."""
        return self.model.in_state(State.READY, State.DELAYED, State.IN_FLIGHT, State.DEAD)

    @precondition(lambda self: self.capabilities.dedupe and self.filled)
    @rule()
    def publish_again(self) -> None:
        """Publish all ids that are still live, in whatever state, through the other client."""
        live = self.live_jobs()
        outcomes = self.other.publish(_NAME, [job.message for job in live])
        for job, outcome in zip(live, outcomes, strict=True):
            is_known = outcome.status is PublishStatus.DUPLICATE
            demand("PUB-5", is_known, f"{job.id}, which is {job.state.name}, was {outcome.status}")

    # -- delivering -------------------------------------------------------------------------------

    def open(self, lease_s: float) -> ConsumerBackend:
        """Open a consumer on the second client."""
        return self.other.open_consumer(_NAME, lease_s=lease_s)

    @precondition(lambda self: self.filled)
    @rule(who=WHO, max_jobs=COUNTS)
    def receive(self, who: int, max_jobs: int) -> None:
        """A consumer takes what is ready."""
        consumer, receipts = self.consumers[who]
        self.took = True
        receipts.extend(self.take(consumer, max_jobs))

    def take(self, consumer: ConsumerBackend, max_jobs: int) -> list[str]:
        """Receive, hold that against the model, and return the receipts."""
        harness = self.context.harness
        expected = self.model.surely_ready(harness.now(), self.resolution_s)
        deliveries = self.context.receive(consumer, max_jobs) if expected else consumer.receive(max_jobs, 0.0)
        self.model.receive(deliveries, max_jobs, harness.now())
        demand("I1", deliveries or not expected, f"none came while {[job.id for job in expected]} were ready")
        return [delivery.receipt for delivery in deliveries]

    def take_some(self, consumer: ConsumerBackend, max_jobs: int) -> list[str]:
        """Take what is ready, or else a job that is published for that."""
        if not self.model.in_state(State.READY):
            self.put(1)
        return self.take(consumer, max_jobs)

    # -- settling ---------------------------------------------------------------------------------

    @precondition(lambda self: self.took)
    @rule(who=WHO, ends=st.lists(st.tuples(PLACES, ENDS), min_size=1, max_size=4), max_jobs=st.integers(0, 3))
    def settle(self, who: int, ends: list[tuple[int, tuple[str, str]]], max_jobs: int) -> None:
        """Settle some of what one consumer ever held, in one batch, and take more in the same step."""
        for consumer, receipts in picked(self.holders(), who):
            chosen = {receipts[which % len(receipts)]: end for which, end in ends}
            settlements = [self.settlement(receipt, *end) for receipt, end in chosen.items()]
            deliveries = self.send(consumer, settlements, take=max_jobs)
            self.model.receive(deliveries, max_jobs, self.context.harness.now())
            receipts.extend(delivery.receipt for delivery in deliveries)
        for _, (how, delay) in ends:
            self.expect(how, delay)

    @precondition(lambda self: self.filled)
    @rule(who=WHO, max_jobs=COUNTS, end=ENDS)
    def work(self, who: int, max_jobs: int, end: tuple[str, str]) -> None:
        """A consumer takes what is ready and settles it at once, all in the same way."""
        consumer, receipts = self.consumers[who]
        self.took = True
        self.expect(*end)
        taken = self.take_some(consumer, max_jobs)
        receipts.extend(taken)
        self.send(consumer, [self.settlement(receipt, *end) for receipt in taken])

    def send(
        self, consumer: ConsumerBackend, settlements: Sequence[Settlement], *, take: int = 0
    ) -> list[Delivery]:
        """Settle, hold the answers against the model, and return what was taken in the same step."""
        now = self.context.harness.now
        sent = now()
        answer = consumer.settle(settlements, take=take)
        answered = now()
        demand("SET-1", len(answer.outcomes) == len(settlements), f"{len(answer.outcomes)} answers")
        for settlement, outcome in zip(settlements, answer.outcomes, strict=True):
            self.model.settle(settlement, outcome, sent, answered)
        return answer.deliveries

    @precondition(lambda self: self.took)
    @rule(who=WHO)
    def extend(self, who: int) -> None:
        """Extend all that one consumer ever held."""
        for consumer, receipts in picked(self.holders(), who):
            outcomes = consumer.extend(receipts)
            found = f"{len(outcomes)} answers for {len(receipts)} receipts"
            demand("LSE-3", len(outcomes) == len(receipts), found)
            for receipt, outcome in zip(receipts, outcomes, strict=True):
                self.model.extend(receipt, outcome)

    def holders(self) -> list[tuple[ConsumerBackend, list[str]]]:
        """The consumers that ever held a job."""
        return [(consumer, receipts) for consumer, receipts in self.consumers if receipts]

    def settlement(self, receipt: str, how: str, delay: str) -> Settlement:
        """One of the ways in which a delivery can end."""
        match how:
            case "then" if self.capabilities.then:
                return Ack(receipt, then=(Next(_NAME, self.new_message(0, self.seconds(delay))),))
            case "ack" | "then":
                return Ack(receipt, None if delay == "none" else f'"{receipt}"'.encode())
            case "retry":
                return Retry(receipt, self.seconds(delay), f"error of {receipt}")
            case "dead":
                return Dead(receipt, "rejected", f"last error of {receipt}")
            case _:
                return Release(receipt, self.seconds(delay))

    def expect(self, how: str, delay: str) -> None:
        """Such an end may leave a job that is due soon, or dead."""
        self.delayed |= how in ("retry", "release", "then") and delay == "soon"
        self.dead_lettered |= how == "dead"

    # -- cancelling -------------------------------------------------------------------------------

    @precondition(lambda self: self.capabilities.cancel and self.filled > 1)
    @rule(which=PLACES, many=st.booleans())
    def cancel(self, which: int, many: bool) -> None:
        """Cancel a job that waits, runs, is dead or was cancelled; or it and another."""
        jobs = [*self.live_jobs(), *self.model.in_state(State.CANCELLED, State.ENDING)]
        chosen = [job for each in range(1 + many) for job in picked(jobs, which + 7 * each)]
        outcomes = self.backend.cancel(_NAME, [job.id for job in chosen])
        for job, outcome in zip(chosen, outcomes, strict=True):
            self.model.cancel(job, outcome)

    # -- dying ------------------------------------------------------------------------------------

    @precondition(lambda self: self.filled)
    @rule(max_jobs=COUNTS, how=st.sampled_from(["crash", "close", "expire", "close"]), extend=st.booleans())
    def end_a_consumer(self, max_jobs: int, how: str, extend: bool) -> None:
        """A consumer dies with jobs in flight, is too slow to settle them, or closes before it does."""
        if how == "expire" and self.capabilities.lease is Lease.CONNECTION:
            how = "crash"
        harness = self.context.harness
        consumer = self.open(LONG_LEASE_S if how == "close" else harness.lease_s)
        receipts = self.take_some(consumer, max_jobs)
        if how == "close":
            consumer.close()
            for job in self.model.held(receipts):
                self.model.come_back(job)
            return
        if how == "crash":
            harness.crash(consumer)
        harness.advance(harness.redelivery_s(harness.lease_s))
        for job in self.model.held(receipts):
            self.model.lose(job)
        if how == "expire":
            self.settle_too_late(consumer, receipts, extend)
            consumer.close()

    def settle_too_late(self, consumer: ConsumerBackend, receipts: list[str], extend: bool) -> None:
        """Ack what is no longer the consumer's, with or without trying to extend it first."""
        if extend:
            for receipt, outcome in zip(receipts, consumer.extend(receipts), strict=True):
                self.model.extend(receipt, outcome)
        self.send(consumer, [Ack(receipt) for receipt in receipts])

    @precondition(lambda self: self.filled > 1)
    @rule()
    def sever(self) -> None:
        """The connections of both clients break."""
        for backend in (self.backend, self.other):
            self.context.harness.sever(backend)
        if self.capabilities.lease is Lease.CONNECTION:
            for _, receipts in self.consumers:
                for job in self.model.held(receipts):
                    self.model.lose(job)

    # -- time -------------------------------------------------------------------------------------

    def due_soon(self) -> list[ModelJob]:
        """The jobs whose delay isn't a long one."""
        horizon = self.context.harness.now() + _FAR_S / 2
        return [job for job in self.model.in_state(State.DELAYED) if job.due < horizon]

    @precondition(lambda self: self.delayed)
    @rule()
    def let_time_pass(self) -> None:
        """What was to be due soon is due; no more time passes than that takes, as it may be real."""
        harness = self.context.harness
        self.delayed = False
        if soon := self.due_soon():
            due = max(job.due_by for job in soon) + self.resolution_s
            harness.advance(max(0.0, due - harness.now()) + _ROUNDING_S)
            self.model.pass_delays(harness.now(), self.resolution_s)

    # -- administration ---------------------------------------------------------------------------

    @precondition(lambda self: self.dead_lettered)
    @rule(some=st.lists(PLACES, min_size=1), all_of_them=st.booleans(), discard=st.booleans())
    def redrive_or_discard(self, some: list[int], all_of_them: bool, discard: bool) -> None:
        """Redrive or discard some dead letters, or all; an unknown id is passed over."""
        dead = self.model.in_state(State.DEAD)
        chosen = dead if all_of_them else [job for which in some for job in picked(dead, which)]
        ids = None if all_of_them else ["unknown", *(job.id for job in chosen)]
        unique = {job.id: job for job in chosen}.values()
        changed = (self.backend.discard if discard else self.backend.redrive)(_NAME, ids)
        demand("DLQ-3" if discard else "DLQ-2", changed == len(unique), f"{changed} of {len(unique)}")
        (self.model.drop if discard else self.model.redrive)(unique)

    @precondition(lambda self: self.filled > _MANY)
    @rule(delete=st.booleans())
    def purge_or_delete(self, delete: bool) -> None:
        """Purge what waits; or delete the queue, and start over under the same name."""
        self.filled = 0
        if delete:
            self.backend.delete(_NAME)
            self.model.delete()
            self.backend.declare(Queue(_NAME, self.kind))
            return
        waiting = self.model.in_state(State.READY, State.DELAYED)
        purged = self.backend.purge(_NAME)
        ending = self.model.in_state(State.ENDING)
        is_right = len(waiting) <= purged <= len(waiting) + len(ending)
        demand("ADM-2", is_right, f"{purged} were purged, expected {len(waiting)}")
        self.model.drop([*waiting, *ending])

    @precondition(lambda self: self.filled > 1)
    @rule(kind=st.sampled_from(QueueKind))
    def declare_again(self, kind: QueueKind) -> None:
        """Declare the queue as it is, or as another kind, which must be refused."""
        if not self.has(kind):
            return
        try:
            self.other.declare(Queue(_NAME, kind))
        except QueueConflict:
            demand("ADM-1", kind is not self.kind, "declaring it again as it is raised")
        else:
            demand("ADM-1", kind is self.kind, f"a {self.kind} queue could be declared as {kind}")

    # -- always -----------------------------------------------------------------------------------

    @invariant()
    def what_can_be_seen_agrees(self) -> None:
        """The counts, the listing of the dead and the results are the model's."""
        if not hasattr(self, "model"):
            return
        self.context.eventually(self.check_counts)
        self.context.eventually(lambda: self.model.check_dead(self.other.dead_letters(_NAME, limit=1000)))
        if self.capabilities.results:
            self.model.check_results(self.other.results(_NAME, list(self.model.jobs)))

    def check_counts(self) -> None:
        """Hold the broker's counts against the model's."""
        before = self.context.harness.now()
        counts = self.backend.counts(_NAME)
        self.model.check_counts(counts, before, self.context.harness.now(), self.resolution_s)

    def teardown(self) -> None:
        """Heal everything, and demand that every job ends (I8); then clean up."""
        try:
            if hasattr(self, "model") and sys.exc_info()[0] is None:
                self.heal_and_finish()
        finally:
            self.stack.__exit__(*sys.exc_info())

    def heal_and_finish(self) -> None:
        """Release and drain everything: each job ends exactly once."""
        harness = self.context.harness
        for consumer, receipts in self.consumers:
            for job in self.model.held(receipts):
                self.model.come_back(job)
            consumer.close()
        self.what_can_be_seen_agrees()
        if self.due_soon():
            self.let_time_pass()
        consumer = self.open(LONG_LEASE_S)
        while self.model.surely_ready(harness.now(), self.resolution_s):
            for receipt in self.take(consumer, 10):
                self.send(consumer, [Ack(receipt)])
        left = consumer.receive(10, 0.0)
        demand("SET-1", not left, f"{[delivery.id for delivery in left]} came when all was done")
        for job in self.model.in_state(State.ENDING):  # a consumer has looked
            job.state = State.CANCELLED
        self.what_can_be_seen_agrees()
