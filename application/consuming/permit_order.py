"""Which consumer of a process gets the next permit to run jobs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Applicant:
    """What an order knows of one consumer.

    Args:
        rank: Its position on the command line, from 0.
        weight: How many jobs it may run while a consumer of weight 1 runs one.
    """

    rank: int
    weight: int
    spent: float = 0.0
    """How many jobs it has run, divided by its weight."""
    was_idle: bool = True
    """Whether it had no jobs at its last try."""


class PermitOrder(ABC):
    """Chooses among the consumers that want a permit."""

    @abstractmethod
    def first(self, applicants: Sequence[Applicant]) -> Applicant:
        """Return the one of ``applicants``, at least one, that comes first."""

    @abstractmethod
    def charge(self, applicant: Applicant, jobs: int) -> None:
        """Note that a consumer runs so many jobs by its permits."""


class StrictOrder(PermitOrder):
    """As on the command line: a consumer runs jobs only if none of those before it has any."""

    def first(self, applicants: Sequence[Applicant]) -> Applicant:
        """Return the one of the lowest rank."""
        return min(applicants, key=lambda each: each.rank)

    def charge(self, applicant: Applicant, jobs: int) -> None:
        """Count nothing."""


class WeightedOrder(PermitOrder):
    """By weight: of consumers that all have jobs, each runs as many as its weight says, so that none starves.

    The first consumer is the one with the lowest number of jobs divided by its weight. A consumer that had no
    jobs for a while gets no extra turns for that.
    """

    def __init__(self) -> None:
        self._now = 0.0
        """How much the consumer had spent that was charged last, before that."""

    def first(self, applicants: Sequence[Applicant]) -> Applicant:
        """Return the one that has spent the least."""
        return min(applicants, key=lambda each: (each.spent, each.rank))

    def charge(self, applicant: Applicant, jobs: int) -> None:
        """Count the jobs by the consumer's weight."""
        if applicant.was_idle:
            applicant.spent = max(applicant.spent, self._now)
            applicant.was_idle = False
        self._now = max(self._now, applicant.spent)
        applicant.spent += jobs / applicant.weight
