"""What leaves for the broker, from publishers and from consumers: addressed, sent, and sent again."""

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from ...domain.errors import BackendError, BackendUnavailable, Closed, JobsError
from .admin import Admin, not_declared
from .delays import Lane, lane_of, route
from .frames import Properties
from .link import Link
from .publisher import Fate, Post, Publisher
from .topology import Names
from .wire import LineBroken


class Parcel(NamedTuple):
    """A job, or a dead letter, that is to be put somewhere in its queue."""

    properties: Properties
    body: bytes
    delay_s: float = 0.0
    dead: bool = False


class Sent(NamedTuple):
    """What became of a parcel."""

    fate: Fate
    error: JobsError | None = None


_CONFIRMED = Sent(Fate.CONFIRMED)


class Outbox:
    """The client's one way to publish; any thread may use it."""

    def __init__(self, link: Link, admin: Admin) -> None:
        self._link = link
        self._admin = admin
        self._publisher = Publisher(link.heart, link.servers)

    def send(self, names: Names, parcels: Sequence[Parcel]) -> list[Sent]:
        """Put ``parcels`` into the queue, in order, and say what became of each.

        What never left is tried again for as long as patience lasts; what may have arrived isn't. A delay
        queue that doesn't exist returns its messages: it is made, and they are sent again.

        Raises:
            BackendUnavailable: the server couldn't be reached, nothing was sent.
            AccessDenied: the server refuses this user.
            Closed: the client was closed.
        """
        posts = [_addressed(names, parcel) for parcel in parcels]
        sent = self._send(names, posts)
        give_up = monotonic() + self._link.retry_timeout_s
        while returned := [
            place
            for place, parcel in enumerate(parcels)
            if parcel.delay_s > 0 and sent[place].fate is Fate.UNROUTABLE
        ]:
            try:
                self._make_levels(names, [parcels[place] for place in returned])
                again = self._send(names, [posts[place] for place in returned])
            except (BackendError, Closed) as error:
                again = [Sent(Fate.UNSENT, error)] * len(returned)
            for place, outcome in zip(returned, again, strict=True):
                sent[place] = outcome
            if monotonic() >= give_up:  # another client purges the queue again and again
                break
        return sent

    def _make_levels(self, names: Names, parcels: Sequence[Parcel]) -> None:
        highest: dict[Lane, int] = {}
        for properties, _, delay_s, _ in parcels:
            lane = lane_of(names, properties.priority)
            highest[lane] = max(highest.get(lane, 0), route(delay_s).level)
        for lane, top in highest.items():
            self._admin.make_levels(lane, top)

    def _send(self, names: Names, posts: Sequence[Post]) -> list[Sent]:
        sent = [Sent(Fate.UNSENT)] * len(posts)
        unsent = list(range(len(posts)))
        failure: JobsError | None = None

        def attempt(timeout_s: float) -> None:
            nonlocal unsent
            fates = self._publisher.send([posts[place] for place in unsent], timeout_s)
            for place, fate in zip(unsent, fates, strict=True):
                sent[place] = self._told(names, fate)
            unsent = [place for place in unsent if sent[place].fate is Fate.UNSENT]
            if unsent and self._publisher.blocked is None:
                raise LineBroken(ConnectionError("the connection broke before all was sent"))

        try:
            self._link.persist(attempt)
        except (BackendUnavailable, Closed) as error:
            if isinstance(error, Closed) and len(unsent) == len(posts):
                raise
            failure = error
        if unsent:
            why = failure or self._blocked()
            for place in unsent:
                sent[place] = Sent(Fate.UNSENT, why)
        return sent

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def _told(self, names: Names, fate: Fate) -> Sent:
        match fate:
            case Fate.CONFIRMED:
                return _CONFIRMED
            case Fate.UNROUTABLE:
                return Sent(fate, not_declared(names.queue))
            case Fate.REFUSED:
                return Sent(fate, BackendError("RabbitMQ refused to keep it: is its disk or a queue full?"))
            case Fate.UNWRITABLE:
                return Sent(fate, BackendError("RabbitMQ has no room for its id, priority, history or body"))
            case Fate.UNKNOWN:
                return Sent(fate, self._why_unknown())
            case Fate.UNSENT:
                return Sent(fate)

    def _why_unknown(self) -> BackendError:
        if (cause := self._publisher.broken_by) is not None:
            try:
                self._link.refuse(LineBroken(cause))
            except BackendError as refused:
                return refused
        reason = self._publisher.blocked_when_broken
        blocked = f" while it takes no messages ({reason})" if reason else ""
        return BackendUnavailable(f"the connection to RabbitMQ broke before the confirm{blocked}")

    def _blocked(self) -> BackendError:
        return BackendUnavailable(
            f"RabbitMQ takes no messages at present ({self._publisher.blocked}): nothing was published; "
            "give it memory or disk space, or let consumers catch up"
        )


def _addressed(names: Names, parcel: Parcel) -> Post:
    """Address a parcel by its queue's name: the broker returns it if there is no such queue."""
    properties, body, delay_s, dead = parcel
    if delay_s <= 0:
        return Post("", names.dead if dead else names.work, properties, body)
    level, hops = route(delay_s)
    delayed = properties._replace(headers=(properties.headers or {}) | hops)
    return Post("", lane_of(names, properties.priority).level(level), delayed, body)
