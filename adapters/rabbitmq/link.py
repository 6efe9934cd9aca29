"""The way to the server, what a call does when it breaks, and the seam where pika's errors become ours."""

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from pika import ConnectionParameters, exceptions

from ...domain import RetryPolicy
from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable, Closed
from .wire import Heart, LineBroken, LineClosed, Unfit

_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
_PROBABLY_DENIED = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)
"""What pika makes of a connection that ends while it is made, whether or not the server said why."""
_ACCESS_REFUSED = 403
_NOT_FOUND = 404
_RESOURCE_LOCKED = 405
_PRECONDITION_FAILED = 406
_NOT_ALLOWED = 530
AnswerT = TypeVar("AnswerT")


class RefusedByServer(BackendError):
    """The server closed the channel for what was asked; the message is its own."""


class Missing(RefusedByServer):
    """What was named doesn't exist."""


class Locked(RefusedByServer):
    """What was named belongs to another connection."""


class Differs(RefusedByServer):
    """What was declared exists with other settings."""


_REFUSALS: dict[int, type[BackendError]] = {
    _NOT_FOUND: Missing,
    _RESOURCE_LOCKED: Locked,
    _PRECONDITION_FAILED: Differs,
}


class Link:
    """What the lines of one client share: the heart, the servers, patience, and the log of outages.

    Args:
        servers: Whom to connect to; the first that answers.
        address: What to call them in messages; no credentials.
        retry_timeout_s: Seconds to keep trying before a call fails.
        logger: Where an outage is told: once when it begins, once when it ends.
    """

    def __init__(
        self,
        servers: Sequence[ConnectionParameters],
        address: str,
        *,
        retry_timeout_s: float,
        logger: logging.Logger,
    ) -> None:
        self.heart = Heart(logger)
        self.servers = servers
        self.retry_timeout_s = retry_timeout_s
        self._address = address
        self._logger = logger
        self._closing = threading.Event()
        self._out = False

    def persist(self, call: Callable[[float], AnswerT]) -> AnswerT:
        """Make a call that may be made twice, again and again until it is answered or patience ends.

        Args:
            call: Given how many seconds it may take.

        Raises:
            BackendUnavailable: the server couldn't be reached for as long as patience lasts.
            RefusedByServer: it answered, with a refusal.
            AccessDenied: it doesn't let this user do so.
            Closed: the client was closed.
        """
        give_up = monotonic() + self.retry_timeout_s
        tries = 0
        while True:
            if self._closing.is_set():
                raise Closed("this RabbitMQClient is closed")
            try:
                answer = call(max(0.01, give_up - monotonic()))
            except LineClosed:
                raise Closed("this RabbitMQClient, or its consumer, is closed") from None
            except LineBroken as broken:
                self.refuse(broken)
                tries += 1
                self._tell_out(broken.cause)
                delay_s = _BACKOFF.delay_s(tries)
                if monotonic() + delay_s >= give_up:
                    raise self.unavailable(broken) from broken.cause
                self._closing.wait(delay_s)
            else:
                self._tell_back()
                return answer

    def refuse(self, broken: LineBroken) -> None:
        """Raise what the server meant, where it broke the line on purpose."""
        cause = broken.cause
        if isinstance(broken, Unfit):
            raise BrokerUnsuitable(f"RabbitMQ at {self._address}: {cause}") from cause
        if _denies(cause):
            raise AccessDenied(f"RabbitMQ at {self._address} denies access: {_said(cause)}") from cause
        if isinstance(cause, exceptions.ChannelClosedByBroker):
            if cause.reply_code == _ACCESS_REFUSED:
                raise AccessDenied(f"RabbitMQ at {self._address}: {_said(cause)}") from cause
            if (refusal := _REFUSALS.get(cause.reply_code)) is not None:
                raise refusal(_said(cause)) from cause

    def unavailable(self, broken: LineBroken) -> BackendUnavailable:
        """What to tell the caller of an outage."""
        return BackendUnavailable(
            f"no RabbitMQ answers at {self._address} ({broken}); "
            "is it running? Start one with: rabbitmq-server"
        )

    def close(self) -> None:
        """Stop the heart; calls under way and to come raise Closed."""
        self._closing.set()
        self.heart.stop()

    def stop_trying(self) -> None:
        """Let no call try again."""
        self._closing.set()

    def _tell_out(self, cause: BaseException) -> None:
        if not self._out:
            self._out = True
            self._logger.warning(
                "RabbitMQ at %s is out of reach, trying again: %s: %s",
                self._address,
                type(cause).__name__,
                cause,
            )

    def _tell_back(self) -> None:
        if self._out:
            self._out = False
            self._logger.warning("RabbitMQ at %s is back", self._address)


def _denies(cause: BaseException) -> bool:
    """Whether the server closed the connection because it doesn't want this user."""
    if isinstance(cause, _PROBABLY_DENIED):
        return any(f"({code})" in str(cause) for code in (_ACCESS_REFUSED, _NOT_ALLOWED))
    if isinstance(cause, exceptions.ConnectionClosed):
        return cause.reply_code in (_ACCESS_REFUSED, _NOT_ALLOWED)
    return isinstance(cause, exceptions.AuthenticationError)


def _said(cause: BaseException) -> str:
    """The server's own words."""
    return str(getattr(cause, "reply_text", "")) or str(cause) or type(cause).__name__
