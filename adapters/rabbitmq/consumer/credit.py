"""How many jobs a consumer lets the broker send."""

from collections.abc import Callable
from functools import partial
from time import monotonic

from .channel import ConsumerChannel

_LULL_S = 0.05
"""How long to wait for jobs that the broker may send still."""
_STEP_S = 0.005
"""How long between two looks meanwhile."""
_GRACE_S = 0.25
"""How long to wait for jobs that the broker just counted; another consumer may have been quicker."""
_HALVED = 200
"""From how many jobs on they are taken in halves."""
_REFILL_S = 0.005
"""How long to wait for what the broker sends in place of settled jobs, while others run."""
_MUCH_MORE, _MUCH_LESS = 1.25, 0.5
"""How many times as many jobs a consumer must want as before for the broker to be told at once."""
_LASTING_S = 1.0
"""After how long it is told that the consumer wants a little less."""


class Credit:
    """The credit that the broker has, and what it is asked to send.

    Never more than was counted: credit that is left has to be taken back, and what the broker sends just then
    counts as delivered, and as a crash.

    Args:
        channel: Where the jobs come in.
        prefetch: How many the consumer takes at once; None adapts.
        timeout_s: How long a request may take.
    """

    def __init__(self, channel: ConsumerChannel, prefetch: int | None, timeout_s: float) -> None:
        self._channel = channel
        self._prefetch = prefetch
        self._timeout_s = timeout_s
        self.limit = 0
        """How many jobs the broker may keep a consumer of many at once at; 0 where each is asked for."""
        self._reached_s = 0.0
        """When the consumer last wanted as many."""

    def allow(self, limit: int) -> None:
        """Let the broker keep the consumer at ``limit`` jobs, from the next call that receives or settles on.

        A small difference changes nothing at first: words to the broker cost more than is won.
        """
        now, present = monotonic(), self.limit
        lasting = now - self._reached_s >= _LASTING_S
        if limit > present * _MUCH_MORE or limit < (present if lasting else present * _MUCH_LESS):
            self.limit = limit
        if limit >= self.limit:
            self._reached_s = now

    def stand(self, limit: int) -> None:
        """Have the broker keep the consumer at ``limit`` jobs, if it doesn't."""
        channel = self._channel
        if channel.standing != limit or channel.missing:
            channel.request(partial(channel.stand, limit), self._timeout_s)

    def cut(self) -> None:
        """Have the broker keep the consumer at no more than the limit, once it may send none anyway.

        What crosses a cancellation counts as a crash. So nothing may be settled meanwhile.
        """
        channel, limit = self._channel, self.limit
        if channel.standing and channel.prefetch > limit and not channel.credit:
            channel.request(channel.cancel, self._timeout_s)
            self.stand(limit)

    def grant(self, jobs: int) -> None:
        """Have so many jobs come, those that are here already among them."""
        channel = self._channel
        more = max(0, jobs - len(channel.arrivals))
        if more != channel.credit:
            channel.request(partial(channel.set_credit, more), self._timeout_s)

    def withdraw(self) -> None:
        """Have nothing more come, once what may be on its way is here."""
        channel, give_up = self._channel, monotonic() + _LULL_S
        while channel.credit and not self._is_idle(give_up):
            channel.loop.wait(lambda: not channel.credit, _STEP_S)
        channel.request(partial(channel.set_credit, 0), self._timeout_s)

    def _is_idle(self, give_up: float) -> bool:
        self._channel.request(self._channel.count, self._timeout_s)
        return self._channel.depth <= 0 or monotonic() >= give_up

    def may_stand(self, take: int, *, settles_all: bool) -> bool:
        """Return whether the broker may go on to send jobs by itself, if it does."""
        standing = self._channel.standing
        return not standing or (standing == take and settles_all and self._is_deep(take))

    def after_settling(self, take: int) -> tuple[int | None, int]:
        """Return how many more jobs may come now, and how many to wait for a moment.

        None leaves the credit as it is: some may come this moment, so that only the loop can tell how many.
        """
        if self.limit or self._channel.standing or not take:
            return None, 0
        if not self._is_deep(take):
            return 0, 0
        more = max(0, take - len(self._channel.arrivals))
        return more, take if more and not self._may_halve(take) else 0

    def for_next(self, take: int, ready: int) -> int:
        """Have up to ``take`` of the ``ready`` jobs come; return how many to wait for."""
        channel = self._channel
        if self.limit:
            self.stand(self.limit)
            return take
        if self._is_deep(take) and self._may_halve(take):
            # The broker syncs before it sends more, and would wait for the consumer then. So the consumer
            # begins with one half while the other is on its way.
            channel.standing = take
            return -(-take // 2)
        if ready and not channel.credit:
            self.grant(min(take, ready))
        return take

    def wait_for_jobs(self, enough: int, ready: int, give_up: float, over: Callable[[], bool]) -> None:
        """Wait for what the broker is about to send, ``ready`` by its own count.

        Args:
            enough: For how many to wait, if so many are ready.
            ready: How many arrived or are ready.
            give_up: Until when to wait for the first, of ``monotonic``.
            over: Whether to wait no longer.
        """
        channel = self._channel
        arrivals, wait = channel.arrivals, channel.loop.wait
        enough = min(enough, ready)
        if self.limit and channel.standing:  # jobs run meanwhile
            if give_up:
                wait(lambda: arrivals or over(), max(0.0, give_up - monotonic()))
            elif len(arrivals) < (enough := min(enough, len(arrivals) + channel.credit)):
                wait(lambda: len(arrivals) >= enough or over(), _REFILL_S)
            return
        if not 0 < enough <= len(arrivals):
            soon = monotonic() + _GRACE_S
            first_by = max(give_up, soon) if ready else give_up
            wait(lambda: arrivals or over(), max(0.0, first_by - monotonic()))
            if len(arrivals) < enough:
                wait(lambda: len(arrivals) >= enough or over(), _GRACE_S)

    def _is_deep(self, take: int) -> bool:
        """Return whether so many jobs are surely ready that the broker needn't be asked.

        Others take some meanwhile, as many as this consumer perhaps.
        """
        return self._channel.depth >= 2 * take

    def _may_halve(self, take: int) -> bool:
        """Return whether jobs may be taken in halves: they are very short, or they wouldn't be so many.

        Only where the broker may send so many as it is: asking it anew each time costs more than is won.
        """
        return self._prefetch is None and take >= _HALVED and take == self._channel.prefetch
