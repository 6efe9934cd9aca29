"""Faults of acks and deaths that publish the next jobs."""

from collections.abc import Callable, Sequence
from typing import Any

from ...domain import Queue
from ...domain.errors import QueueNotFound
from ...ports import (
    Ack,
    Capabilities,
    Dead,
    Delivery,
    JobResult,
    Next,
    Release,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def chains(capabilities: Capabilities) -> bool:
    """Only an adapter whose acks publish can do it wrong."""
    return capabilities.then


def chains_in_one_step(capabilities: Capabilities) -> bool:
    """Likewise."""
    return capabilities.atomic_then


def keeps_results_of_chains(capabilities: Capabilities) -> bool:
    """Likewise, if it keeps results."""
    return capabilities.then and capabilities.results


def publish_next(consumer: BrokenConsumer, settlements: Sequence[Settlement]) -> None:
    """Publish all next jobs by themselves, where that can be done."""
    for settlement in settlements:
        for step in next_jobs_of(settlement):
            consumer.client.inner.publish(step.queue, [step.message])


def next_jobs_of(settlement: Settlement) -> tuple[Next, ...]:
    """The next jobs of a settlement."""
    return settlement.then if isinstance(settlement, Ack | Dead) else ()


def plain(settlements: Sequence[Settlement]) -> list[Settlement]:
    """The settlements without next jobs."""
    return [each._replace(then=()) if isinstance(each, Ack | Dead) else each for each in settlements]


class ChangesNextJobs(PassThrough):
    """Publishes other next jobs than it was given."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        """What is published."""
        return then

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.then:
            return settlement._replace(then=self.changed(settlement.then))
        return settlement

    def each(self, then: tuple[Next, ...], **changes: Any) -> tuple[Next, ...]:
        """The next jobs, with these fields of their messages changed."""
        return tuple(step._replace(message=step.message._replace(**changes)) for step in then)


@breaks("RES-1", where=keeps_results_of_chains)
class KeepsTheResultUnderTheNextJobsId(PassThrough):
    """The result is written behind the next job: if that has the same id, it seems to be that one's."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ids: dict[str, str] = {}
        self._kept: dict[str, bytes] = {}

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._ids.update((delivery.receipt, delivery.id) for delivery in deliveries)
        return deliveries

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        id_ = self._ids.get(settlement.receipt, "")
        if isinstance(settlement, Ack) and any(step.message.id == id_ for step in settlement.then):
            self._kept[id_] = settlement.result or b""
        return settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        if found is None or found.body is not None or not self._kept.get(job_id):
            return found
        return found._replace(body=self._kept[job_id])


@breaks("THEN-1", where=chains)
class DropsNextJobs(ChangesNextJobs):
    """The adapter was written before acks could publish: it acks, and the next job is lost."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return ()


@breaks("THEN-1", where=chains)
class PublishesTheFirstNextJob(ChangesNextJobs):
    """Of several next jobs, the first is published."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return then[:1]


@breaks("THEN-1", where=chains)
class TurnsNextJobsRound(ChangesNextJobs):
    """Next jobs are published last first."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return then[::-1]


@breaks("THEN-1", where=chains)
class CutsLongChains(ChangesNextJobs):
    """The next jobs of one ack are sent in one chunk of 1,000, and what is more is forgotten."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return then[:1000]


@breaks("THEN-1", where=chains)
class GivesNextJobsNoBody(ChangesNextJobs):
    """A next job is published with an empty object as its body."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return self.each(then, body=b"{}")


@breaks("DLY-1", where=chains)
class NextJobsAreNotDelayed(ChangesNextJobs):
    """A next job is ready at once, whatever delay it has."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return self.each(then, delay_s=0.0)


@breaks("ORD-3", where=lambda capabilities: capabilities.then and capabilities.priority)
class NextJobsHaveNoPriority(ChangesNextJobs):
    """A next job has priority 0."""

    def changed(self, then: tuple[Next, ...]) -> tuple[Next, ...]:
        return self.each(then, priority=0)


@breaks("THEN-1", where=chains)
class NextJobsStayInTheirQueue(PassThrough):
    """A next job is published into the queue of the job that is acked."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack):
            then = tuple(Next(consumer.queue, step.message) for step in settlement.then)
            return settlement._replace(then=then)
        return settlement


@breaks("RES-2", where=lambda capabilities: capabilities.then and capabilities.results)
class AChainedJobHasNoResult(PassThrough):
    """An ack with next jobs keeps no result."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.then:
            return settlement._replace(result=None)
        return settlement


@breaks("THEN-2", where=chains_in_one_step)
class PublishesNextJobsFirst(PassThrough):
    """Next jobs are published, and then the ack is sent: also one that is stale."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        missing = [self._is_missing(consumer, each) for each in settlements]
        if any(missing):
            return super().settle(consumer, settlements, take)
        publish_next(consumer, settlements)
        return super().settle(consumer, plain(settlements), take)

    def _is_missing(self, consumer: BrokenConsumer, settlement: Settlement) -> bool:
        declared = {queue.name for queue in consumer.client.inner.queues()}
        return any(step.queue not in declared for step in next_jobs_of(settlement))


@breaks("THEN-2", where=chains_in_one_step)
class PublishesIfAnyAckCounts(PassThrough):
    """The next jobs of a batch are published together, if one ack of it was answered OK."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        if SettleOutcome.OK in answer.outcomes and SettleOutcome.REFUSED not in answer.outcomes:
            publish_next(consumer, settlements)
        return answer


@breaks("THEN-2", where=chains_in_one_step)
class TakesAlreadyForOk(PassThrough):
    """What was settled before is published for once more, as its answer isn't LOST."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        pairs = zip(settlements, answer.outcomes, strict=True)
        publish_next(consumer, [each for each, told in pairs if told is SettleOutcome.ALREADY])
        return answer


@breaks("THEN-3", where=chains)
class ARefusalEndsTheCall(PassThrough):
    """A next queue that isn't declared raises QueueNotFound, and nobody learns which settlements count."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        if SettleOutcome.REFUSED in answer.outcomes:
            raise QueueNotFound("a next queue isn't declared")
        return answer


@breaks("THEN-3", where=chains)
class ARefusalRefusesAll(PassThrough):
    """If one next job of a batch can't be published, no settlement of it counts."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        declared = {queue.name for queue in consumer.client.inner.queues()}
        for each in settlements:
            if any(step.queue not in declared for step in next_jobs_of(each)):
                return Settled([SettleOutcome.REFUSED] * len(settlements), [])
        return super().settle(consumer, settlements, take)


@breaks("THEN-3", where=chains)
class AcksWithoutItsNextJob(PassThrough):
    """An ack whose next queue isn't declared is carried out all the same: the chain ends silently."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        refused = [number for number, told in enumerate(answer.outcomes) if told is SettleOutcome.REFUSED]
        for number in refused:
            consumer.inner.settle(plain([settlements[number]]))
            answer.outcomes[number] = SettleOutcome.OK
        return answer


@breaks("THEN-3", where=chains)
class ARefusedJobIsGivenBack(PassThrough):
    """An ack that is refused releases its job: the receipt settles nothing any more."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        pairs = zip(settlements, answer.outcomes, strict=True)
        refused = [Release(each.receipt) for each, told in pairs if told is SettleOutcome.REFUSED]
        if refused:
            consumer.inner.settle(refused)
        return answer


@breaks("THEN-3", where=chains)
class DeclaresNextQueues(PassThrough):
    """The queue of a next job is declared where there is none, so that a typing error swallows jobs."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        declared = {queue.name for queue in consumer.client.inner.queues()}
        for step in next_jobs_of(settlement):
            if step.queue not in declared:
                consumer.client.inner.declare(Queue(step.queue))
        return settlement


# -- deaths that publish the next jobs ------------------------------------------------------------


class ChangesDeaths(PassThrough):
    """Settles deaths with next jobs in another way, and answers as if it had done what it was told."""

    def changed(self, death: Dead) -> Settlement:
        """What is done instead."""
        return death

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return self.changed(settlement) if isinstance(settlement, Dead) and settlement.then else settlement


@breaks("THEN-4", where=chains)
class DropsNextJobsOfDeaths(ChangesDeaths):
    """The adapter was written when acks alone could publish: the job is dead, and the next one is lost."""

    def changed(self, death: Dead) -> Settlement:
        return death._replace(then=())


@breaks("THEN-4", where=chains)
class PublishesTheFirstNextJobOfADeath(ChangesDeaths):
    """Of several next jobs of a death, the first is published."""

    def changed(self, death: Dead) -> Settlement:
        return death._replace(then=death.then[:1])


@breaks("SET-3", where=chains)
class EndsAChainedDeathAsDone(ChangesDeaths):
    """A death with next jobs is sent as the ack that can publish them, and no dead letter is left."""

    def changed(self, death: Dead) -> Settlement:
        return Ack(death.receipt, then=death.then)


@breaks("THEN-4", where=chains_in_one_step)
class PublishesNextJobsOfDeathsFirst(PassThrough):
    """The next jobs of a death are published, and then the death is sent: also one that is stale."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        declared = {queue.name for queue in consumer.client.inner.queues()}
        deaths = [each for each in settlements if isinstance(each, Dead)]
        if all(step.queue in declared for each in deaths for step in each.then):
            publish_next(consumer, deaths)
            settlements = [each._replace(then=()) if isinstance(each, Dead) else each for each in settlements]
        return super().settle(consumer, settlements, take)


@breaks("THEN-4", where=lambda capabilities: capabilities.then and capabilities.cancel)
class ACancelledDeathPublishes(PassThrough):
    """A death that is answered CANCELLED has published its next jobs: an alert for what isn't dead."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        pairs = zip(settlements, answer.outcomes, strict=True)
        publish_next(consumer, [each for each, told in pairs if told is SettleOutcome.CANCELLED])
        return answer


@breaks("THEN-4", where=chains)
class DeathsBesideAcksPublishNothing(PassThrough):
    """Where a call has acks with next jobs as well, those of its deaths are forgotten."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        if any(isinstance(each, Ack) and each.then for each in settlements):
            settlements = [each._replace(then=()) if isinstance(each, Dead) else each for each in settlements]
        return super().settle(consumer, settlements, take)


@breaks("THEN-3", where=chains)
class DiesWithoutItsNextJob(PassThrough):
    """A death whose next queue isn't declared is carried out all the same: nobody is told of it."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for number, told in enumerate(answer.outcomes):
            if told is SettleOutcome.REFUSED and isinstance(settlements[number], Dead):
                consumer.inner.settle(plain([settlements[number]]))
                answer.outcomes[number] = SettleOutcome.OK
        return answer
