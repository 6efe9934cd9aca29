"""Puts messages into queues, for publishers and consumers: addressed, sent, and sent again."""

from collections.abc import Callable, Sequence
from time import monotonic

from ...domain.errors import BackendError, BackendUnavailable, Closed, JobsError
from ...ports import Message, PublishOutcome, PublishStatus
from ..shared.chunks import in_chunks
from ..shared.error_messages import not_declared
from .delays import DelayLevels, levels_of, route
from .message import fresh_properties
from .topology import Names
from .transport.broker import Broker
from .transport.errors import ConnectionBroken
from .transport.publishing import Outgoing, PublishConnection, SendState

_CHUNK_JOBS = 2000
"""The most messages that are sent before their confirms are waited for."""
_CHUNK_BYTES = 8 * 1024 * 1024
_ROUNDS_OF_REFUSED = 3
"""How often delayed messages are sent again that were refused: a full delay level refuses each time."""
_MAKE_ROOM = "give it memory or disk space, or let consumers catch up"
_Send = Callable[[Sequence[Outgoing], float], None]
_STATUS = {SendState.CONFIRMED: PublishStatus.ACCEPTED, SendState.UNKNOWN: PublishStatus.UNKNOWN}
"""Of a message in another state it is known that it isn't in its queue."""
_ERRORS = {
    SendState.REFUSED: "RabbitMQ refused to keep it: is its disk or a queue full?",
    SendState.UNWRITABLE: "its id, priority, history or body is too long for AMQP, or out of range",
}


class Publisher:
    """The client's one way to publish; any thread may use it.

    Args:
        broker: What connections share.
        make_levels: Makes the delay levels of a queue up to one, where they don't exist.
    """

    def __init__(self, broker: Broker, make_levels: Callable[[DelayLevels, int], None]) -> None:
        self._broker = broker
        self._make_levels = make_levels
        self._connection = PublishConnection(broker)

    def publish(self, names: Names, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish the messages of a batch in chunks, and return the outcome of each, in order.

        Raises:
            JobsError: as :meth:`send`, of the first chunk; the outcomes of a later one carry its error.
        """
        outcomes: list[PublishOutcome] = []
        for chunk in in_chunks(messages, _CHUNK_JOBS, max_bytes=_CHUNK_BYTES, size_of=_body_bytes):
            outgoing = [
                Outgoing(
                    names.work,
                    fresh_properties(message.id, message.priority),
                    message.body,
                    message.delay_s,
                )
                for message in chunk
            ]
            try:
                self.send(names, outgoing)
            except (BackendError, Closed) as error:
                if not outcomes:
                    raise
                for sent in outgoing:
                    sent.state, sent.error = SendState.UNSENT, error
            for message, sent in zip(chunk, outgoing, strict=True):
                status = _STATUS.get(sent.state, PublishStatus.REJECTED)
                outcomes.append(PublishOutcome(message.id, status, sent.error))
        return outcomes

    def send(self, names: Names, messages: Sequence[Outgoing]) -> None:
        """Publish messages to parts of one queue, in order, and set the state and error of each.

        What never left is tried again until ``retry_timeout_s`` is up; what may have arrived isn't. A delay
        level that doesn't exist returns its messages: it is made, and they are sent again. One that is being
        deleted refuses them, as a full one does: they are sent again a few times.

        Raises:
            BackendUnavailable: the server couldn't be reached, nothing was sent.
            AccessDenied: the server refuses this user.
            Closed: the client was closed.
        """
        self._deliver(names, messages, self._connection.send)

    def offer(self, names: Names, messages: Sequence[Outgoing]) -> None:
        """Publish messages that the caller can offer again; else as :meth:`send`.

        Where the broker takes no messages at present, this returns at once. What isn't confirmed by then, or
        in time, is ``UNSENT``, or ``UNDER_WAY``: then its state changes by itself, and it isn't to be offered
        again yet.
        """
        self._deliver(names, messages, self._connection.offer)

    @property
    def is_blocked(self) -> bool:
        """Whether the broker is known to take no messages at present."""
        return self._connection.blocked is not None

    def _deliver(self, names: Names, messages: Sequence[Outgoing], send: _Send) -> None:
        delayed = [message for message in messages if message.delay_s > 0]
        for message in delayed:
            _delay(names, message)
        self._send(names, messages, send)
        give_up = monotonic() + self._broker.retry_timeout_s
        rounds = 0
        while again := [message for message in delayed if _is_to_send_again(message, rounds)]:
            rounds += 1
            for message in again:
                message.state, message.error = SendState.UNSENT, None
            try:
                self._make_levels_for(names, again)
                self._send(names, again, send)
            except (BackendError, Closed) as error:
                for message in again:
                    message.state, message.error = SendState.UNSENT, error
            if monotonic() >= give_up:  # another client purges the queue again and again
                break

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _make_levels_for(self, names: Names, messages: Sequence[Outgoing]) -> None:
        highest: dict[DelayLevels, int] = {}
        for message in messages:
            levels = levels_of(names, message.properties.priority)
            highest[levels] = max(highest.get(levels, 0), route(message.delay_s).level)
        for levels, top in highest.items():
            self._make_levels(levels, top)

    def _send(self, names: Names, messages: Sequence[Outgoing], send: _Send) -> None:
        unsent = messages

        def attempt(timeout_s: float) -> None:
            nonlocal unsent
            send(unsent, timeout_s)
            unsent = [message for message in unsent if message.state is SendState.UNSENT]
            if unsent and self._connection.blocked is None:
                raise ConnectionBroken(ConnectionError("the connection broke before all was sent"))

        failure: JobsError | None = None
        try:
            self._broker.retry(attempt)
        except (BackendUnavailable, Closed) as error:
            if isinstance(error, Closed) and len(unsent) == len(messages):
                raise
            failure = error
        for message in messages:
            if message.state is not SendState.CONFIRMED:
                message.error = self._error(names, message.state, failure)

    def _error(self, names: Names, state: SendState, failure: JobsError | None) -> JobsError:
        match state:
            case SendState.UNROUTABLE:
                return not_declared(names.queue)
            case SendState.UNKNOWN:
                return self._why_unknown()
            case SendState.UNDER_WAY if failure is None and self._connection.blocked is None:
                return BackendUnavailable("RabbitMQ hasn't confirmed it yet")
            case SendState.UNSENT | SendState.UNDER_WAY:
                return failure or BackendUnavailable(
                    f"RabbitMQ takes no messages at present ({self._connection.blocked}): nothing was "
                    f"published; {_MAKE_ROOM}"
                )
            case _:
                return BackendError(_ERRORS[state])

    def _why_unknown(self) -> BackendError:
        if (reason := self._connection.blocked) is not None:
            return BackendUnavailable(
                f"RabbitMQ takes no messages at present ({reason}): whether it publishes this one afterwards "
                f"isn't known; {_MAKE_ROOM}"
            )
        if (cause := self._connection.broken_by) is not None:
            try:
                self._broker.raise_refusal(ConnectionBroken(cause))
            except BackendError as refused:
                return refused
        reason = self._connection.blocked_when_broken
        blocked = f" while it takes no messages ({reason})" if reason else ""
        return BackendUnavailable(f"the connection to RabbitMQ broke before the confirm{blocked}")


def _delay(names: Names, message: Outgoing) -> None:
    """Send a message by way of the delay levels: the header of each says where it goes next."""
    level, hops = route(message.delay_s)
    properties = message.properties
    message.properties = properties._replace(headers=(properties.headers or {}) | hops)
    message.exchange = names.delays
    message.queue = levels_of(names, properties.priority).level(level)


def _is_to_send_again(message: Outgoing, rounds: int) -> bool:
    """Return whether a delayed message isn't in its level, and may be once that is made."""
    if message.state is SendState.REFUSED:
        return rounds < _ROUNDS_OF_REFUSED
    return message.state is SendState.UNROUTABLE


def _body_bytes(message: Message) -> int:
    return len(message.body)
