"""A Hypothesis state machine: an adapter and the model do the same steps, and must agree."""

import sys

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    run_state_machine_as_test,
)

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict
from ...domain.lifecycle import State
from ...ports import (
    Ack,
    ConsumerBackend,
    Lease,
    PublishStatus,
)
from ..check_context import CheckContext
from ..check_queue import LONG_LEASE_S
from ..draws import CONSUMERS, COUNTS, DELAYS, ENDS, PLACES, PRIORITIES, WHO, picked
from ..model import Model
from ..registry import check
from ..violation import demand
from .compared_queue import FAR_S, NAME, ComparedQueue, step

_ROUNDING_S = 0.001
"""Added to a wait, so that rounding doesn't end it too early."""
_MANY = 12
"""How many jobs are published before a queue is purged or deleted, so that enough builds up."""


@check("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", takes_long=True)
def the_adapter_and_the_model_agree(context: CheckContext) -> None:
    """No job is lost and none runs twice, in any order of calls and with any consumer dying."""
    profile = context.profile
    examples = profile.machine_examples if context.harness.virtual_time else profile.waited_machine_examples
    settings = context.settings(examples, stateful_step_count=profile.machine_steps)
    # Hypothesis makes the instances, so what they need hangs on a class of their own.
    machine = type("QueueMachine", (QueueMachine,), {"context": context})
    with context.repeating():
        run_state_machine_as_test(context.seeded(machine), settings=settings)


class QueueMachine(ComparedQueue):
    """One queue, two clients, three consumers that live, and others that die.

    As Hypothesis repeats its draws, which rules can be chosen depends on the steps before, and on no clock. A
    rule that finds nothing to do does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filled = 0
        """How many were published since the queue was last emptied."""
        self.took = self.delayed = self.dead_lettered = False
        """Whether jobs were received, delayed and dead-lettered, so that there may be such jobs now."""
        self.steps = 0
        self.looks_every = 1
        """After how many steps to look at what can be seen."""

    @initialize(kind=st.sampled_from(QueueKind), looks_every=st.sampled_from([1, 5]))
    def declare(self, kind: QueueKind, looks_every: int) -> None:
        """Start with a queue of a kind that the adapter has.

        Many a call that only looks also puts right what is due or over. So some examples look seldom, but for
        a broker whose time is real: a look tells, too, when it has caught up.
        """
        self.steps_taken.append(f"state.declare({kind=!s}, {looks_every=})")
        self.looks_every = looks_every if self.context.harness.virtual_time else 1
        self.kind = kind if self.has(kind) else QueueKind.FIFO
        self.backend.declare(Queue(NAME, self.kind))
        self.model = Model(self.kind, self.capabilities.redelivery)
        self.consumers = [(self.open(LONG_LEASE_S), []) for _ in range(CONSUMERS)]

    # -- publishing -------------------------------------------------------------------------------

    @step(count=COUNTS, priority=PRIORITIES, delay=st.sampled_from(["none", *DELAYS]))
    def publish(self, count: int, priority: int, delay: str) -> None:
        """Publish one, or a batch."""
        self.filled += count
        self.delayed |= delay == "soon"
        self.put(count, priority, self.seconds(delay))

    @precondition(lambda self: self.capabilities.dedupe and self.filled)
    @step()
    def publish_again(self) -> None:
        """Publish all ids that are still live, in whatever state, through the other client."""
        live = self.live_jobs()
        others = [
            job.message._replace(body=b'{"another":"body"}', delay_s=FAR_S if number % 2 else 0.0)
            for number, job in enumerate(live)
        ]
        outcomes = self.other.publish(NAME, others)
        for job, outcome in zip(live, outcomes, strict=True):
            is_known = outcome.status is PublishStatus.DUPLICATE
            demand("PUB-5", is_known, f"{job.id}, which is {job.state.name}, was {outcome.status}")

    # -- delivering -------------------------------------------------------------------------------

    @precondition(lambda self: self.filled)
    @step(who=WHO, max_jobs=COUNTS)
    def receive(self, who: int, max_jobs: int) -> None:
        """A consumer takes what is ready."""
        consumer, receipts = self.consumers[who]
        self.took = True
        receipts.extend(self.take(consumer, max_jobs))

    # -- settling ---------------------------------------------------------------------------------

    @precondition(lambda self: self.took)
    @step(who=WHO, ends=st.lists(st.tuples(PLACES, ENDS), min_size=1, max_size=4), max_jobs=st.integers(0, 3))
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
    @step(who=WHO, max_jobs=COUNTS, end=ENDS)
    def work(self, who: int, max_jobs: int, end: tuple[str, str]) -> None:
        """A consumer takes what is ready and settles it at once, all in the same way."""
        consumer, receipts = self.consumers[who]
        self.took = True
        self.expect(*end)
        taken = self.take_some(consumer, max_jobs)
        receipts.extend(taken)
        self.send(consumer, [self.settlement(receipt, *end) for receipt in taken])

    @precondition(lambda self: self.took)
    @step(who=WHO)
    def extend(self, who: int) -> None:
        """Extend all that one consumer ever held."""
        for consumer, receipts in picked(self.holders(), who):
            outcomes = consumer.extend(receipts)
            found = f"{len(outcomes)} answers for {len(receipts)} receipts"
            demand("LSE-3", len(outcomes) == len(receipts), found)
            for receipt, outcome in zip(receipts, outcomes, strict=True):
                self.model.extend(receipt, outcome)

    def expect(self, how: str, delay: str) -> None:
        """Such an end may leave a job that is due soon, or dead."""
        self.delayed |= how in ("retry", "release", "then", "dead then") and delay == "soon"
        self.dead_lettered |= how in ("dead", "dead then")

    # -- cancelling -------------------------------------------------------------------------------

    @precondition(lambda self: self.capabilities.cancel and self.filled > 1)
    @step(which=PLACES, many=st.booleans())
    def cancel(self, which: int, many: bool) -> None:
        """Cancel a job that waits, runs, is dead or was cancelled; or it and another."""
        jobs = [*self.live_jobs(), *self.model.in_state(State.CANCELLED, State.ENDING)]
        chosen = [job for each in range(1 + many) for job in picked(jobs, which + 7 * each)]
        outcomes = self.backend.cancel(NAME, [job.id for job in chosen])
        for job, outcome in zip(chosen, outcomes, strict=True):
            self.model.cancel(job, outcome)

    # -- dying ------------------------------------------------------------------------------------

    @precondition(lambda self: self.filled)
    @step(max_jobs=COUNTS, how=st.sampled_from(["crash", "close", "expire", "close"]), extend=st.booleans())
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
                self.model.release(job)
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
    @step()
    def sever(self) -> None:
        """The connections of both clients break."""
        for backend in (self.backend, self.other):
            self.context.harness.sever(backend)
        if self.capabilities.lease is Lease.CONNECTION:
            for _, receipts in self.consumers:
                for job in self.model.held(receipts):
                    self.model.lose(job)
        self.look()  # so both connect again: a redrive that met the cut could raise, as it isn't repeated

    # -- time -------------------------------------------------------------------------------------

    @precondition(lambda self: self.delayed)
    @step(first_only=st.booleans())
    def let_time_pass(self, first_only: bool) -> None:
        """What was to be due soon is due, or the first of it; no more time passes than that takes."""
        harness = self.context.harness
        self.delayed = first_only
        if soon := self.due_soon():
            due = (min if first_only else max)(job.due_by for job in soon) + self.resolution_s
            harness.advance(max(0.0, due - harness.now()) + _ROUNDING_S)
            self.model.pass_delays(harness.now(), self.resolution_s)

    @precondition(lambda self: self.delayed and self.context.harness.virtual_time)
    @step(part=st.sampled_from([0.2, 0.5, 0.9]))
    def let_a_part_of_a_delay_pass(self, part: float) -> None:
        """So much of the time passes that the next job has yet to wait: it may not come yet."""
        harness = self.context.harness
        if soon := self.due_soon():
            left_s = min(job.due for job in soon) - harness.now()
            harness.advance(max(0.0, left_s) * part)

    # -- administration ---------------------------------------------------------------------------

    @precondition(lambda self: self.dead_lettered)
    @step(some=st.lists(PLACES, min_size=1), all_of_them=st.booleans(), discard=st.booleans())
    def redrive_or_discard(self, some: list[int], all_of_them: bool, discard: bool) -> None:
        """Redrive or discard some dead letters, or all; an unknown id is passed over."""
        dead = self.model.in_state(State.DEAD)
        chosen = dead if all_of_them else [job for which in some for job in picked(dead, which)]
        ids = None if all_of_them else ["unknown", *(job.id for job in chosen)]
        unique = {job.id: job for job in chosen}.values()
        changed = (self.backend.discard if discard else self.backend.redrive)(NAME, ids)
        demand("DLQ-3" if discard else "DLQ-2", changed == len(unique), f"{changed} of {len(unique)}")
        (self.model.discard if discard else self.model.redrive)(unique)

    @precondition(lambda self: self.filled > _MANY)
    @step(delete=st.booleans())
    def purge_or_delete(self, delete: bool) -> None:
        """Purge what waits; or delete the queue, and start over under the same name."""
        self.filled = 0
        if delete:
            self.backend.delete(NAME)
            self.model.delete()
            self.backend.declare(Queue(NAME, self.kind))
            return
        waiting = self.model.in_state(State.READY, State.DELAYED)
        purged = self.backend.purge(NAME)
        demand("ADM-2", purged == len(waiting), f"{purged} were purged, expected {len(waiting)}")
        self.model.purge()

    @precondition(lambda self: self.filled > 1)
    @step(kind=st.sampled_from(QueueKind))
    def declare_again(self, kind: QueueKind) -> None:
        """Declare the queue as it is, or as another kind, which must be refused."""
        if not self.has(kind):
            return
        try:
            self.other.declare(Queue(NAME, kind))
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
        self.steps += 1
        if self.steps % self.looks_every == 0:
            self.look()

    def look(self) -> None:
        """Hold what can be seen against the model."""
        self.context.eventually(self.check_counts)
        self.context.eventually(lambda: self.model.check_dead(self.other.dead_letters(NAME, limit=1000)))
        if self.capabilities.results:
            self.model.check_results(self.other.results(NAME, list(self.model.jobs)))

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
                self.model.release(job)
            consumer.close()
        self.what_can_be_seen_agrees()
        if self.due_soon():
            self.let_time_pass(first_only=False)
        consumer = self.open(LONG_LEASE_S)
        while self.model.surely_ready(harness.now(), self.resolution_s):
            for receipt in self.take(consumer, 10):
                self.send(consumer, [Ack(receipt)])
        left = consumer.receive(10, 0.0)
        demand("SET-1", not left, f"{[delivery.id for delivery in left]} came when all was done")
        self.model.look()
        self.look()
