"""Faults of orders that are taken for one another: of ids, arrivals, priorities, due times and deaths."""

from collections.abc import Callable, Sequence

from ...domain import Queue, QueueKind
from ...domain.bounds import MAX_LISTED
from ...ports import Ack, DeadLetter, Delivery, Message, PublishOutcome, Release, Settled, Settlement
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .order import prioritizes, stacks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("DLQ-1")
class PagesTheDeadById(PassThrough):
    """All dead letters are listed by their deaths, and a page of them by the primary key, which is the id."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        if limit >= 100:
            return super().dead_letters(client, queue, limit, offset)
        letters = super().dead_letters(client, queue, MAX_LISTED, 0)
        return sorted(letters, key=lambda letter: letter.id)[offset : offset + limit]


@breaks("DLY-2")
class ABatchIsDueInItsOrder(PassThrough):
    """The delayed jobs of a batch are one list, of which those in front are due first."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        delays = iter(sorted(message.delay_s for message in messages))
        sent = [message._replace(delay_s=delay_s) for message, delay_s in zip(messages, delays, strict=True)]
        return super().publish(client, queue, sent)


class KnowsKinds(RecordsDeliveries):
    """Knows the kind of each queue, and what was published."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.kinds: dict[str, QueueKind] = {}
        self.messages: dict[str, Message] = {}

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        self.kinds[queue.name] = queue.kind

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self.messages[message.id] = message
        return message

    def publish_anew(self, consumer: BrokenConsumer, deliveries: Sequence[Delivery]) -> None:
        """Publish these jobs again, in this order, each with its own priority."""
        again = [self.messages[each.id]._replace(delay_s=0.0) for each in deliveries]
        consumer.client.inner.publish(consumer.queue, again)


@breaks("ORD-4", where=stacks)
class AStackTurnsRoundWhatIsReleasedTogether(KnowsKinds):
    """Several jobs that one call releases are pushed onto their stack again, the last one on top."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        back = [each.receipt for each in settlements if isinstance(each, Release) and not each.delay_s]
        if self.kinds[consumer.queue] is not QueueKind.STACK or len(back) < 2:
            return super().settle(consumer, settlements, take)
        sent = [Ack(each.receipt) if each.receipt in back else each for each in settlements]
        outcomes = super().settle(consumer, sent, 0).outcomes
        self.publish_anew(consumer, [self.delivered[receipt] for receipt in back])
        return Settled(outcomes, self.receive(consumer, take, 0.0) if take else [])


@breaks("ORD-4", where=prioritizes)
class TheDeadReturnBehindTheirEquals(KnowsKinds):
    """The jobs of a consumer that died keep their priority, and stand behind all others that have it."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        came = super().incoming(consumer, deliveries)
        crashed = [each for each in came if each.crashes and self.kinds[consumer.queue] is QueueKind.PRIORITY]
        if not crashed:
            return came
        consumer.inner.settle([Ack(delivery.receipt) for delivery in crashed])
        self.publish_anew(consumer, crashed)
        others = [delivery for delivery in came if delivery not in crashed]
        return others or self.incoming(consumer, consumer.inner.receive(len(crashed), 0.0))
