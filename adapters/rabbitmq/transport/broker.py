"""What the connections of one client share, and the seam where pika's errors become ours."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import TypeVar

from pika import ConnectionParameters, exceptions

from ....domain import RetryPolicy
from ....domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable
from ...shared.error_messages import client_closed
from ...shared.server_settings import is_loopback
from ...shared.unreachable import remedy
from .errors import (
    NOT_FOUND,
    ClosedByClient,
    ConnectionBroken,
    Differs,
    Locked,
    Missing,
    Unanswered,
    Unsuitable,
)
from .heartbeat import HeartbeatThread

_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
_LOCK_PAUSE_S = 0.05
"""Between two attempts to get a lock."""
_PROBABLY_DENIED = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)
"""What pika makes of a connection that ends while it is made, whether or not the server said why."""
_ACCESS_REFUSED = 403
_RESOURCE_LOCKED = 405
_PRECONDITION_FAILED = 406
_NOT_ALLOWED = 530
_INTERNAL_ERROR = 541
_REFUSALS: dict[int, type[BackendError]] = {
    NOT_FOUND: Missing,
    _RESOURCE_LOCKED: Locked,
    _PRECONDITION_FAILED: Differs,
}
AnswerT = TypeVar("AnswerT")


class Broker:
    """The servers, the heartbeat thread, the retries and the log of outages of one client.

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
        self.heartbeat = HeartbeatThread(logger)
        self.servers = servers
        self.retry_timeout_s = retry_timeout_s
        self._address = address
        self._logger = logger
        self._closing = threading.Event()
        self._is_out = False

    def retry(self, call: Callable[[float], AnswerT]) -> AnswerT:
        """Make a call that may be made twice, again and again until it is answered or the time is up.

        Args:
            call: Given how many seconds it may take.

        Raises:
            BackendUnavailable: the server couldn't be reached for ``retry_timeout_s``.
            RefusedByServer: it answered, with a refusal.
            AccessDenied: it doesn't let this user do so.
            Closed: the client was closed.
        """
        give_up = monotonic() + self.retry_timeout_s
        tries, told = 0, None
        while True:
            if self._closing.is_set():
                raise client_closed("RabbitMQClient")
            try:
                answer = call(max(0.01, give_up - monotonic()))
            except ClosedByClient:
                raise client_closed("RabbitMQClient, or its consumer,") from None
            except ConnectionBroken as broken:
                self.raise_refusal(broken)
                tries += 1
                self._log_outage(broken.cause)
                if told is None or not isinstance(broken.cause, TimeoutError):  # the last try is cut short
                    told = broken
                delay_s = _BACKOFF.delay_s(tries)
                if monotonic() + delay_s >= give_up:
                    raise self.unavailable(told) from told.cause
                self._closing.wait(delay_s)
            else:
                self._log_recovery()
                return answer

    def wait_for_lock(self, attempt: Callable[[], AnswerT | None], busy: str) -> AnswerT:
        """Try to get an exclusive queue, with pauses, until an attempt returns something or the time is up.

        Args:
            attempt: Returns None, or raises Locked, while another connection has what it wants.
            busy: What to tell the caller then.

        Raises:
            BackendUnavailable: the others didn't finish within ``retry_timeout_s``.
        """
        give_up = monotonic() + self.retry_timeout_s
        while True:
            with suppress(Locked):
                if (answer := attempt()) is not None:
                    return answer
            if monotonic() >= give_up:
                raise BackendUnavailable(busy)
            sleep(_LOCK_PAUSE_S)

    def raise_refusal(self, broken: ConnectionBroken) -> None:
        """Raise what the server meant, if it broke the connection or channel on purpose."""
        cause = broken.cause
        if isinstance(cause, BackendError):  # of an action that refused the channel
            raise cause
        if isinstance(broken, Unsuitable):
            raise BrokerUnsuitable(f"RabbitMQ at {self._address}: {cause}") from cause
        if _denies(cause):
            raise AccessDenied(
                f"RabbitMQ at {self._address} denies access: {_said(cause)}; correct the user, the password "
                "and the vhost, or what the user may do"
            ) from cause
        if isinstance(cause, exceptions.ChannelClosedByBroker):
            if cause.reply_code == _ACCESS_REFUSED:
                raise AccessDenied(f"RabbitMQ at {self._address}: {_said(cause)}") from cause
            refusal = _REFUSALS.get(cause.reply_code)
            if refusal is not None and not _is_out_of_reach(cause):
                raise refusal(_said(cause)) from cause

    def unavailable(self, broken: ConnectionBroken) -> BackendUnavailable:
        """Return what to tell the caller of an outage."""
        if _is_out_of_reach(broken.cause):
            return BackendUnavailable(
                f"RabbitMQ at {self._address} answers, but can't reach a queue for now "
                f"({_said(broken.cause)}): is the node away that keeps it, or does it hang?"
            )
        if _is_internal(broken.cause):
            return BackendUnavailable(
                f"RabbitMQ at {self._address} answers with an error of its own ({_said(broken.cause)}): is a "
                "node of its cluster away? Its log says more"
            )
        if isinstance(broken.cause, exceptions.IncompatibleProtocolError):
            fix = "what answers there doesn't speak AMQP: check the host, the port, and whether it uses TLS"
        elif isinstance(broken, Unanswered):
            fix = "it takes connections: does it hang, or is the majority of its cluster's nodes away?"
        else:
            is_local = all(is_loopback(server.host) for server in self.servers)
            fix = remedy(broken.cause, start="rabbitmq-server", is_local=is_local)
        return BackendUnavailable(f"no RabbitMQ answers at {self._address} ({broken}); {fix}")

    def stop_retrying(self) -> None:
        """Let no call try again."""
        self._closing.set()

    def close(self) -> None:
        """Stop the heartbeat thread; calls under way and to come raise Closed."""
        self.stop_retrying()
        self.heartbeat.stop()

    def _log_outage(self, cause: BaseException) -> None:
        if not self._is_out:
            self._is_out = True
            self._logger.warning(
                "RabbitMQ at %s is out of reach, trying again: %s: %s",
                self._address,
                type(cause).__name__,
                cause,
            )

    def _log_recovery(self) -> None:
        if self._is_out:
            self._is_out = False
            self._logger.warning("RabbitMQ at %s is back", self._address)


def _denies(cause: BaseException) -> bool:
    """Return whether the server closed the connection because it doesn't want this user."""
    if isinstance(cause, _PROBABLY_DENIED):
        return any(f"({code})" in str(cause) for code in (_ACCESS_REFUSED, _NOT_ALLOWED))
    if isinstance(cause, exceptions.ConnectionClosed):
        return cause.reply_code in (_ACCESS_REFUSED, _NOT_ALLOWED)
    return isinstance(cause, exceptions.AuthenticationError)


def _is_out_of_reach(cause: BaseException) -> bool:
    """Return whether the server knows what wasn't found, but the node that keeps it is away or silent."""
    is_missing = isinstance(cause, exceptions.ChannelClosed) and cause.reply_code == NOT_FOUND
    return is_missing and not _said(cause).removeprefix("NOT_FOUND - ").startswith("no ")


def _is_internal(cause: BaseException) -> bool:
    return isinstance(cause, exceptions.ConnectionClosedByBroker) and cause.reply_code == _INTERNAL_ERROR


def _said(cause: BaseException) -> str:
    """Return the server's own words."""
    return str(getattr(cause, "reply_text", "")) or str(cause) or type(cause).__name__
