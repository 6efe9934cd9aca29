"""The queue of the state machine: an adapter and the model are called side by side, and must agree."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.strategies import SearchStrategy

from ...domain import QueueKind
from ...domain.lifecycle import State
from ...ports import (
    Ack,
    Capabilities,
    ConsumerBackend,
    Dead,
    Delivery,
    Message,
    Next,
    PublishOutcome,
    PublishStatus,
    Release,
    Retry,
    Settlement,
)
from ..check_context import CheckContext
from ..check_queue import not_accepted
from ..draws import picked
from ..model import IN_FLIGHT, Model, ModelJob
from ..violation import demand

NAME = "jobs"
FAR_S = 86_400.0


def step(**strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """Make the decorated method a rule of the machine that records each time it is called."""

    def decorate(method: Callable[..., None]) -> Any:
        @wraps(method)
        def recorded(self: "ComparedQueue", **values: Any) -> None:
            words = ", ".join(f"{name}={value!r}" for name, value in values.items())
            self.steps_taken.append(f"state.{method.__name__}({words})")
            method(self, **values)

        make: Any = rule  # its overloads name the keywords that strategies may not have
        return make(**strategies)(recorded)

    return decorate


class ComparedQueue(RuleBasedStateMachine):
    """A queue of two clients, and what is known of it; its rules are those of a subclass."""

    context: CheckContext

    def __init__(self) -> None:
        super().__init__()
        context = self.context
        self.stack = ExitStack()
        self.steps_taken: list[str] = []
        """What was done, as Python, for the message of a failure that isn't repeated."""
        self.stack.enter_context(context.example(self.steps_taken))
        self.backend, self.other = self.stack.enter_context(context.backends(2))
        self.capabilities: Capabilities = context.capabilities
        self.resolution_s = self.capabilities.delay_resolution_s
        self.soon_s = self.resolution_s + 0.3
        self.consumers: list[tuple[ConsumerBackend, list[str]]] = []
        self.published = self.answered = 0
        self.kind: QueueKind
        self.model: Model

    def has(self, kind: QueueKind) -> bool:
        """Whether the adapter has queues of this kind."""
        able = {QueueKind.STACK: self.capabilities.stack, QueueKind.PRIORITY: self.capabilities.priority}
        return able.get(kind, True)

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
        outcomes = self.backend.publish(NAME, messages)
        answered = self.context.harness.now()
        demand("PUB-4", len(outcomes) == len(messages), f"{len(outcomes)} outcomes for {len(messages)}")
        for message, outcome in zip(messages, outcomes, strict=True):
            accepted = outcome.status is PublishStatus.ACCEPTED
            demand("PUB-1", accepted, f"of a publish, {not_accepted([outcome])}")
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
        """How long a delay is; on a clock that is moved, no two that end soon are alike."""
        more_s = 0.1 * (self.published % 7) if self.context.harness.virtual_time else 0.0
        return {"none": 0.0, "soon": self.soon_s + more_s, "far": FAR_S}[delay]

    def live_jobs(self) -> list[ModelJob]:
        """The jobs that are not done and not gone."""
        return self.model.in_state(State.READY, State.DELAYED, *IN_FLIGHT, State.DEAD)

    def open(self, lease_s: float) -> ConsumerBackend:
        """Open a consumer on the second client."""
        return self.other.open_consumer(NAME, lease_s=lease_s)

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

    def holders(self) -> list[tuple[ConsumerBackend, list[str]]]:
        """The consumers that ever held a job."""
        return [(consumer, receipts) for consumer, receipts in self.consumers if receipts]

    def settlement(self, receipt: str, how: str, delay: str) -> Settlement:
        """One of the ways in which a delivery can end."""
        match how:
            case "then" if self.capabilities.then:
                return Ack(receipt, then=self.next_job(delay))
            case "ack" | "then":
                self.answered += 1  # no two results are alike, as only the first ack's counts
                return Ack(receipt, None if delay == "none" else b"%d" % self.answered)
            case "retry":
                return Retry(receipt, self.seconds(delay), f"error of {receipt}")
            case "dead" | "dead then":
                then = self.next_job(delay) if how == "dead then" and self.capabilities.then else ()
                return Dead(receipt, "rejected", f"last error of {receipt}", then)
            case _:
                return Release(receipt, self.seconds(delay))

    def next_job(self, delay: str) -> tuple[Next, ...]:
        """A job that an end publishes into this queue."""
        return (Next(NAME, self.new_message(0, self.seconds(delay))),)

    def due_soon(self) -> list[ModelJob]:
        """The jobs whose delay isn't a long one."""
        horizon = self.context.harness.now() + FAR_S / 2
        return [job for job in self.model.in_state(State.DELAYED) if job.due < horizon]

    def check_counts(self) -> None:
        """Hold the broker's counts against the model's."""
        before = self.context.harness.now()
        counts = self.backend.counts(NAME)
        self.model.check_counts(counts, before, self.context.harness.now(), self.resolution_s)
