"""What a gate is."""

from collections.abc import Mapping, Sequence, Set

from ...ports import Delivery, Settlement


class Gate:
    """Says of the jobs that a consumer has taken which may run, and hears which have ended.

    Each method does nothing until a gate overrides it. None raises an error because a store can't be reached:
    the gate decides without it.
    """

    def admit(self, jobs: Sequence[Delivery]) -> Mapping[str, Settlement]:
        """Return how to settle those of these jobs that must not run, by receipt.

        Args:
            jobs: Those that were just taken.
        """
        return {}

    def before_settling(
        self, settlements: Sequence[Settlement], jobs: Mapping[str, Delivery]
    ) -> Sequence[Settlement]:
        """Return what to tell the broker in place of these settlements, in the same order.

        A job that is settled by :class:`Cancel` instead counts as cancelled.

        Args:
            settlements: What the consumer says.
            jobs: The jobs that were taken and aren't settled yet, by receipt.
        """
        return settlements

    def ended(self, jobs: Sequence[Delivery]) -> None:
        """Note that these jobs have ended, as the broker has confirmed: done, dead or cancelled."""

    def cancelled(self, jobs: Sequence[Delivery]) -> Set[str]:
        """Return the receipts of those of these running jobs that are to be cancelled.

        A consumer asks each time that it has extended their leases.
        """
        return frozenset()
