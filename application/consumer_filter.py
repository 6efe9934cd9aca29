"""A consumer backend around another, that ends some of the jobs it takes and passes on the others."""

from abc import abstractmethod
from collections.abc import Sequence
from time import monotonic

from ..ports import ConsumerBackend, Delivery, Settled, Settlement
from .consumer_decorator import ConsumerDecorator


class ConsumerFilter(ConsumerDecorator):
    """Passes on only jobs that are to run, and goes on waiting where none of those that came is.

    Args:
        inner: Where the jobs come from.
    """

    def __init__(self, inner: ConsumerBackend) -> None:
        super().__init__(inner)
        self._is_interrupted = False
        """Whether the receive that runs was interrupted."""

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up_s = monotonic() + timeout_s
        self._is_interrupted = False  # an interrupt from before ends, as ever, a receive that finds no job
        while deliveries := self._inner.receive(max_jobs, timeout_s):
            if to_run := self._keep(deliveries):
                return to_run
            if self._is_interrupted:  # a broker that has more may not see that
                break
            timeout_s = max(0.0, give_up_s - monotonic())
        return []

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._inner.interrupt()

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        settled = self._inner.settle(settlements, take=take)
        return settled._replace(deliveries=self._keep(settled.deliveries)) if settled.deliveries else settled

    @abstractmethod
    def _keep(self, deliveries: list[Delivery]) -> list[Delivery]:
        """End those of the jobs that aren't to run, and return the others."""
