"""The gates of a queue without a concurrency limit, or without a rate: they let each job start."""

from collections.abc import Iterable, Sequence
from math import inf

from ...ports import Delivery, Release, Settlement, SettleOutcome
from ..broker.store_outage import StoreOutage
from .held_job import HeldJob
from .held_jobs import HeldJobs
from .spare_places import SparePlaces


class NoPlaceGate:
    """Has a place for each job. :class:`PlaceGate` overrides what a concurrency limit needs.

    Args:
        held: The jobs of the consumer that may not start yet.
    """

    def __init__(self, held: HeldJobs) -> None:
        self._held = held

    @property
    def running(self) -> int:
        """How many jobs were passed on and have places."""
        return 0

    @property
    def asks_again_s(self) -> float:
        """When to ask again for the places of held jobs, or to look for jobs that may overtake them."""
        return inf

    @property
    def gives_back_s(self) -> float:
        """When to give back what wasn't given back while the store was away."""
        return inf

    # -- taking -----------------------------------------------------------------------------------

    def slots(self, max_jobs: int) -> int:
        """Return for how many jobs to have places, of a call for ``max_jobs``."""
        return max_jobs

    def look_size(self) -> int:
        """Return how many jobs to take to find one that may overtake those that wait."""
        return 0

    def taken(
        self, deliveries: Sequence[Delivery], now: float, spare: SparePlaces | None, *, may_start: bool
    ) -> list[HeldJob]:
        """Return the jobs to hold of those that were just taken; none if all start at once.

        Args:
            deliveries: The jobs.
            now: When they were taken, by the consumer's clock.
            spare: Places of jobs that were settled by the same call.
            may_start: Whether these start as soon as they have places.
        """
        return [HeldJob(delivery, now) for delivery in deliveries]

    def ask(self, jobs: Sequence[HeldJob], max_jobs: int) -> list[Release]:
        """Ask for the places of as many jobs as may start, and return the releases of those too many to hold.

        Args:
            jobs: Those that need nothing but a place until they have a turn, in order.
            max_jobs: How many may start.
        """
        return []

    def leave_lines_of(self, jobs: Iterable[HeldJob]) -> None:
        """Leave the places of jobs that can't use them, and their lines: these jobs wait for turns."""

    def start(self, jobs: Iterable[HeldJob]) -> None:
        """Note that jobs are passed on."""

    def pass_freed_on(self) -> None:
        """Leave lines in which jobs here are next for a free place, if none of them can start."""

    # -- settling ---------------------------------------------------------------------------------

    def before_settling(self, settlements: Sequence[Settlement], take: int) -> SparePlaces | None:
        """Give back the places of jobs that have ended, before another consumer can receive them again.

        Args:
            settlements: How the jobs are settled.
            take: For how many other jobs this call is.

        Returns:
            Those that aren't given back, as they may be passed on.
        """
        return None

    def settled(self, settlements: Sequence[Settlement], outcomes: Sequence[SettleOutcome]) -> None:
        """Give back the places that stayed with jobs which the broker ended."""

    def let_go(self, receipts: Iterable[str], *, keep_places: bool) -> list[HeldJob]:
        """Hold jobs no longer that are about to be released; return those that were held.

        Args:
            receipts: Which.
            keep_places: Whether they keep their places, or their positions in line.
        """
        return self._held.take(receipts)

    def end_held(self, jobs: Sequence[HeldJob]) -> None:
        """Give back the places of jobs that were held and don't run."""

    # -- keeping ----------------------------------------------------------------------------------

    def extend(self, receipts: Sequence[str]) -> set[str]:
        """Extend the places of jobs that run, and return the receipts of those that lost theirs.

        Raises:
            BackendUnavailable: the store is away, and jobs wait then.
        """
        return set()

    def lose(self, receipts: Sequence[str]) -> None:
        """Forget the places of jobs that others may have."""

    def give_back(self) -> None:
        """Give back what wasn't given back while the store was away."""

    def close(self) -> None:
        """Give back all places, as the consumer releases its jobs."""


class NoTurnGate:
    """Has a turn for each job at once. :class:`TurnGate` overrides what a rate needs."""

    lets_all_start = True
    """Whether no job ever waits for its turn."""

    @property
    def none_is_due(self) -> bool:
        """Whether it is known that no turn can be had at once."""
        return False

    def note_taken(self, jobs: Sequence[HeldJob]) -> None:
        """Note jobs that were just taken."""

    def far(self, jobs: Iterable[HeldJob]) -> list[HeldJob]:
        """Return the jobs whose turns can't be reserved yet. Jobs of other keys may overtake them."""
        return []

    def room(self, room: int, at_hand: int) -> int:
        """Return how many jobs to take, of as many as there is room for.

        Args:
            room: For how many jobs there is room.
            at_hand: How many jobs are held that nothing keeps but their turns.
        """
        return room

    def look_size(self, running: int) -> int:
        """Return how many jobs to take to find one that may overtake those that wait.

        Args:
            running: How many jobs have places and run.
        """
        return 0

    def admit(
        self,
        jobs: Sequence[HeldJob],
        far: Sequence[HeldJob],
        most: int,
        within_s: float,
        outage: StoreOutage,
        *,
        may_release: bool,
    ) -> tuple[list[HeldJob], list[Release]]:
        """Return the jobs whose turns have come, and the releases of those whose turns are too far away.

        Args:
            jobs: Those that may run as soon as they have a turn, in order.
            far: Those that :meth:`far` returned. They get no turn here, as they may lack a place.
            most: How many of them may start.
            within_s: Reserve no turn that comes later than this.
            outage: Whether the store is away.
            may_release: Whether the broker takes jobs back at present; else there are no releases.
        """
        return list(jobs), []

    def note_kept(self, jobs: Sequence[HeldJob]) -> None:
        """Note jobs that were taken before, and that the broker couldn't take back."""
        self.note_taken(jobs)

    def changes_s(self, jobs: Sequence[HeldJob], now: float) -> float:
        """Return when to look again: the turn of a held job comes, or jobs may be taken again."""
        return inf
