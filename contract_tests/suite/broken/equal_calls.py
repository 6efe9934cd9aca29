"""Faults of calls with many: what holds for one of them is taken for all."""

from collections.abc import Sequence

from ...ports import Ack, Retry, Settled, Settlement
from .administration import keeps_results
from .fault_registry import breaks
from .pass_through import BrokenConsumer, PassThrough


@breaks("SET-3")
class ABatchOfRetriesHasOneError(PassThrough):
    """Of several retries in one call, all are noted with the error of the first."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        errors = [each.error for each in settlements if isinstance(each, Retry)]
        sent = [each._replace(error=errors[0]) if isinstance(each, Retry) else each for each in settlements]
        return super().settle(consumer, sent, take)


@breaks("RES-1", where=keeps_results)
class ABatchOfResultsHasOneTime(PassThrough):
    """The results of one call are kept for as long as the first of them."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        times = [each.result_ttl_s for each in settlements if isinstance(each, Ack)]
        sent = [
            each._replace(result_ttl_s=times[0]) if isinstance(each, Ack) else each for each in settlements
        ]
        return super().settle(consumer, sent, take)
