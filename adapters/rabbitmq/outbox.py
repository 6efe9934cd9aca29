"""What leaves for the broker, from publishers and from consumers: addressed, sent, and sent again."""

from collections.abc import Sequence
from typing import NamedTuple

from ...domain.errors import BackendError, BackendUnavailable, Closed, JobsError
from .admin import Admin, not_declared
from .frames import Properties
from .link import Link
from .publisher import Fate, Post, Publisher
from .topology import Names, delay_of
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

        What never left is tried again for as long as patience lasts; what may have arrived isn't.

        Raises:
            QueueNotFound: some are to wait, and the queue doesn't exist; nothing was sent.
            BackendUnavailable: likewise, and the server couldn't be asked.
            AccessDenied: the server refuses this user.
            Closed: the client was closed.
        """
        posts = self._addressed(names, parcels)
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

    def require(self, names: Names) -> None:
        """Raise QueueNotFound where the queue doesn't exist."""
        self._admin.count(names.work, names.queue)

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def _addressed(self, names: Names, parcels: Sequence[Parcel]) -> list[Post]:
        posts, highest = [], -1
        for properties, body, delay_s, dead in parcels:
            if delay_s > 0:
                level, key = delay_of(delay_s)
                highest = max(highest, level)
                posts.append(Post(names.delay(level), key, properties, body))
            else:
                posts.append(Post("", names.dead if dead else names.work, properties, body))
        if highest >= 0:
            self._admin.make_ladder(names, highest)
        return posts

    def _told(self, names: Names, fate: Fate) -> Sent:
        match fate:
            case Fate.CONFIRMED:
                return _CONFIRMED
            case Fate.UNROUTABLE:
                return Sent(fate, not_declared(names.queue))
            case Fate.REFUSED:
                return Sent(fate, BackendError("RabbitMQ refused to keep it: is its disk or a queue full?"))
            case Fate.UNWRITABLE:
                return Sent(fate, BackendError("RabbitMQ has no room for its id, its priority or its body"))
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
