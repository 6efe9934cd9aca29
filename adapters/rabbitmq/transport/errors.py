"""How a request to RabbitMQ can fail, below the errors that callers see."""

from ....domain.errors import BackendError

NOT_FOUND = 404
"""AMQP's code for a queue that doesn't exist, or that can't be reached."""


class ConnectionBroken(Exception):
    """The connection, or its channel, broke before the answer came; ``cause`` says why."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(f"{type(cause).__name__}: {cause}")


class Unreachable(ConnectionBroken):
    """No connection could be made: nothing was sent."""


class Unanswered(ConnectionBroken):
    """The server took the connection, and then was silent for longer than a request may take."""


class Unsuitable(ConnectionBroken):
    """The server can't keep what this adapter promises; ``cause`` says why."""


class ClosedByClient(Exception):
    """The connection was closed by its owner."""


class RefusedByServer(BackendError):
    """The server closed the channel for what was asked; the message is its own."""


class Missing(RefusedByServer):
    """What was named doesn't exist."""


class Locked(RefusedByServer):
    """What was named belongs to another connection."""


class Differs(RefusedByServer):
    """What was declared exists with other settings."""


def no_answer(timeout_s: float, *, is_connected: bool) -> ConnectionBroken:
    """Return what breaks a connection that is silent for so long, or isn't made in that time."""
    kind = Unanswered if is_connected else ConnectionBroken
    return kind(TimeoutError(f"no answer within {timeout_s:g} s"))
