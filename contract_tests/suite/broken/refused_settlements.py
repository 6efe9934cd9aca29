"""Faults of jobs of which more is said after the broker has refused a settlement."""

from collections.abc import Callable, Sequence

from ...domain.errors import BackendUnavailable
from ...ports import Ack, Dead, Delivery, Message, Retry, Settled, Settlement
from .fault_bases import DuplicatesJobs
from .fault_registry import breaks
from .lost_requests import Refuses
from .pass_through import BrokenConsumer


class _RefusesRetries(Refuses, DuplicatesJobs):
    """Keeps what was refused, by its receipt."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.refused: dict[str, Retry] = {}

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        if self.refuses and (retries := [each for each in settlements if isinstance(each, Retry)]):
            self.refused.update((each.receipt, each) for each in retries)
            raise BackendUnavailable("the broker is full")
        return super().settle(consumer, settlements, take)


@breaks("SET-1")
class CarriesOutARefusedRetryAsWell(_RefusesRetries):
    """A retry that was refused stays in a buffer. The job is acknowledged, and then retried, too."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for each in settlements:
            if isinstance(each, Ack | Dead) and self.refused.pop(each.receipt, None) is not None:
                job: Delivery = self.delivered[each.receipt]
                self.put_copy(consumer.client, consumer.queue, Message(job.id, job.body))
        return answer


@breaks("SET-1")
class SendsARefusedRetryInPlaceOfAnAck(_RefusesRetries):
    """What was said first is sent again, whatever is said later: an acknowledged job runs once more."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        sent = [self.refused.get(each.receipt, each) for each in settlements]
        return super().settle(consumer, sent, take)
