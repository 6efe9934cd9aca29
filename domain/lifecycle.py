"""The life of a job as a table: where each event leads from each state, and what it counts.

The contract suite's model reads it, and docs/lifecycle.md draws it. An event that isn't listed for a state
changes nothing, such as a second ack of a job, or the cancel of one that is dead.
"""

from enum import Enum, StrEnum
from typing import NamedTuple

from .dead_reasons import DeadReason


class State(StrEnum):
    """Where a job is. In the last seven states it has ended."""

    NEW = "new"
    """Not published yet. A publish under the id of a job that has ended begins a new life (PUB-5)."""
    DELAYED = "delayed"
    READY = "ready"
    IN_FLIGHT = "in flight"
    """A consumer holds its lease (LSE-1)."""
    CANCELLING = "cancelling"
    """In flight, and to be cancelled (CAN-2)."""
    ENDING = "ending"
    """It was to be cancelled when its lease ended. The broker may count it as ready until it looks."""
    DONE = "done"
    EXPIRED = "expired"
    """It waited for too long, and wasn't run. A backend stores it as done, with a result that says so."""
    REPLACED = "replaced"
    """Another job took its place, and it wasn't run. Also stored as done."""
    CANCELLED = "cancelled"
    DEAD = "dead"
    """A dead letter. It is the one end that a redrive takes back (DLQ-2)."""
    REMOVED = "removed"
    """Purged, discarded, or a dead letter whose time is over: nothing is known of it (ADM-2, DLQ-3)."""
    DELETED = "deleted"
    """Gone with its queue (ADM-3)."""


class Event(Enum):
    """What happens to a job, but for deaths: a :class:`DeadReason` is the event of a job that dies of it."""

    PUBLISH = "publish"
    DELAY = "publish with a delay"
    DUE = "due"
    TAKE = "take"
    ACK = "ack"
    EXPIRE = "expired"
    """The consumer that took it found that it had waited for too long (ADR 124)."""
    REPLACE = "replaced"
    """The consumer that took it found that another job had taken its place (ADR 78)."""
    RETRY = "retry"
    RETRY_LATER = "retry after a delay"
    RELEASE = "release"
    """Its consumer gave it back, for example because it stops (SET-4)."""
    SNOOZE = "snooze"
    """A release with a delay: its handler snoozed, or it waits for a limit (SET-4)."""
    CRASH = "crash"
    """Its lease ended before it was settled (LSE-2, RTY-3)."""
    CANCEL = "cancel"
    """Somebody asked for it to be cancelled (CAN-1)."""
    STOP = "stop"
    """Its consumer settled it as cancelled (CAN-3)."""
    LOOK = "the broker looks"
    REDRIVE = "redrive"
    DISCARD = "discard"
    FORGET = "its time as a dead letter is over"
    """Nothing is known of it then (DLQ-5)."""
    PURGE = "purge"
    DELETE = "the queue is deleted"


class Count(StrEnum):
    """What an event counts, of the numbers that a delivery and a dead letter have."""

    DELIVERY = "delivery"
    ATTEMPT = "attempt"
    """Of the error budget, ``max_attempts`` (RTY-1)."""
    CRASH = "crash"
    """Of the crash budget, ``max_crashes`` (RTY-3)."""
    ERROR = "error"
    """One more failure in the history (SET-3)."""
    ANEW = "all but deliveries begin anew"


class Step(NamedTuple):
    """Where an event leads, and what it counts."""

    state: State
    counts: tuple[Count, ...] = ()


_NOT_DONE = (Event.STOP, Event.RETRY, Event.RETRY_LATER, Event.RELEASE, Event.SNOOZE)
_BY_CONSUMERS = tuple(reason for reason in DeadReason if reason is not DeadReason.REMOVED)
"""The reasons for which a consumer lets a job die. For the remaining one a broker does."""

LIFE: dict[tuple[State, Event | DeadReason], Step] = {
    (State.NEW, Event.PUBLISH): Step(State.READY),
    (State.NEW, Event.DELAY): Step(State.DELAYED),
    (State.DELAYED, Event.DUE): Step(State.READY),
    (State.READY, Event.TAKE): Step(State.IN_FLIGHT, (Count.DELIVERY,)),
    # Only the holder of the lease settles a job, in one of these ways.
    (State.IN_FLIGHT, Event.ACK): Step(State.DONE),
    (State.IN_FLIGHT, Event.EXPIRE): Step(State.EXPIRED),
    (State.IN_FLIGHT, Event.REPLACE): Step(State.REPLACED),
    (State.IN_FLIGHT, Event.STOP): Step(State.CANCELLED),
    (State.IN_FLIGHT, Event.RETRY): Step(State.READY, (Count.ATTEMPT, Count.ERROR)),
    (State.IN_FLIGHT, Event.RETRY_LATER): Step(State.DELAYED, (Count.ATTEMPT, Count.ERROR)),
    (State.IN_FLIGHT, Event.RELEASE): Step(State.READY),
    (State.IN_FLIGHT, Event.SNOOZE): Step(State.DELAYED),
    **{(State.IN_FLIGHT, reason): Step(State.DEAD, (Count.ERROR,)) for reason in _BY_CONSUMERS},
    (State.READY, DeadReason.REMOVED): Step(State.DEAD, (Count.ERROR,)),
    (State.IN_FLIGHT, Event.CRASH): Step(State.READY, (Count.CRASH,)),
    # A job that is to be cancelled never runs again, and counts no failure (CAN-3). An ack ends it as done.
    (State.DELAYED, Event.CANCEL): Step(State.CANCELLED),
    (State.READY, Event.CANCEL): Step(State.CANCELLED),
    (State.IN_FLIGHT, Event.CANCEL): Step(State.CANCELLING),
    (State.CANCELLING, Event.ACK): Step(State.DONE),
    (State.CANCELLING, Event.EXPIRE): Step(State.EXPIRED),
    (State.CANCELLING, Event.REPLACE): Step(State.REPLACED),
    **{(State.CANCELLING, event): Step(State.CANCELLED) for event in (*_NOT_DONE, *_BY_CONSUMERS)},
    (State.CANCELLING, Event.CRASH): Step(State.ENDING, (Count.CRASH,)),
    (State.ENDING, Event.LOOK): Step(State.CANCELLED),
    (State.ENDING, Event.CANCEL): Step(State.CANCELLED),
    # What administrators do.
    (State.DEAD, Event.REDRIVE): Step(State.READY, (Count.ANEW,)),
    (State.DEAD, Event.DISCARD): Step(State.REMOVED),
    (State.DEAD, Event.FORGET): Step(State.REMOVED),
    (State.DELAYED, Event.PURGE): Step(State.REMOVED),
    (State.READY, Event.PURGE): Step(State.REMOVED),
    **{(state, Event.DELETE): Step(State.DELETED) for state in State if state is not State.NEW},
}
"""By state and event."""
