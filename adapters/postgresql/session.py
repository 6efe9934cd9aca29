"""The way to the server: connections that all threads share, and requests that are tried until answered."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TypeVar

from ...domain import RetryPolicy
from ...domain.errors import BackendError
from ..shared.error_messages import client_closed, not_declared
from .binary_format import FALSE, TRUE
from .connection import Answer, Connection, Parameter, Statement
from .errors import (
    NO_NEXT_QUEUE,
    NO_QUEUE,
    TAKEN,
    ConnectFailed,
    ConnectionBroke,
    NextQueueMissing,
    NoAnswer,
    Outage,
    RefusedByServer,
    ServerUnreachable,
    answer_lost,
    refused_login,
    translated,
    unavailable,
)
from .settings import ServerSettings

AnswerT = TypeVar("AnswerT")

_BACKOFF = RetryPolicy(base_delay_s=0.02, max_delay_s=1.0)
_LONG_S = 60.0
"""How long a statement may take that looks at each job of a queue; a server that froze costs as much."""
_NOT_PREPARED = ("26000", "42P05", "0A000")
"""What is answered where a pooler gives each statement another connection, or the tables have changed."""
_SHORT_S = 5.0
_MOST_IDLE = 16
_END_WHAT_IS_GIVEN_UP = "SET client_connection_check_interval = '1s'"
"""A statement whose client is gone would else wait for a lock to the end, and hold its connection; each new
try would take one more."""

_inherited: list[Connection] = []
"""Connections of the process that this one was forked from: to close one here would disturb it there."""


class Session:
    """Connections to one server; any thread may call.

    Args:
        settings: The server.
        schema: The schema of the tables.
        owner: What errors say is closed, once it is.
        retry_timeout_s: Seconds to keep trying before a call fails.
        logger: Logs an outage once when it begins and once when it ends.
        after_outage: Called with each new connection before anything else is sent over it, and with how many
            seconds the server was out of reach. If the server refused a consumer's request, it is also called
            before the next request of a consumer, with the refusal.
    """

    def __init__(
        self,
        settings: ServerSettings,
        schema: str,
        owner: str,
        *,
        retry_timeout_s: float,
        logger: logging.Logger,
        after_outage: Callable[[Connection, Outage], None] = lambda connection, outage: None,
    ) -> None:
        self.settings = settings
        self.schema = schema
        self.retry_timeout_s = retry_timeout_s
        self._owner = owner
        self._prepares = settings.prepared
        self._logger = logger
        self._deadline = inf
        self._after_outage = after_outage
        self.on_reached: Callable[[], None] = lambda: None
        """Called once the server is reached again, which may be another of its hosts; by any thread."""
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Connection] = []
        self._closing = threading.Event()
        self._away_since: float | None = None
        """When the first try of the present outage began; None while the server can be reached."""
        self._outage = False
        """Whether the outage was logged."""
        self._refused_by: RefusedByServer | None = None
        """What the server refused the last request of a consumer by, for a reason that may concern all
        clients."""

    def run(
        self,
        statement: Statement,
        parameters: Sequence[Parameter],
        *,
        queue: str = "",
        again: int | None = None,
        once: bool = False,
        of_consumer: bool = False,
        retry_timeout_s: float | None = None,
    ) -> Answer:
        """Run a statement until it is answered, and return its rows.

        Args:
            statement: The statement.
            parameters: Its parameters.
            queue: The queue that it is about, for errors.
            again: The place of the parameter that says that the statement may have run before. Without one,
                it may run twice.
            once: Whether to give up as soon as the statement may have run, so that it doesn't run twice.
            of_consumer: Whether it is a consumer's request: it ends or extends leases.
            retry_timeout_s: Seconds to keep trying, in place of the usual.

        Raises:
            ServerUnreachable: the server couldn't be reached in time.
            QueueNotFound: the queue isn't declared.
            BackendError: the server refused.
            Closed: the session was closed.
        """
        timeout_s = self.retry_timeout_s if retry_timeout_s is None else retry_timeout_s
        give_up = min(monotonic() + timeout_s, self._deadline)

        def call(connection: Connection, may_have_run: bool) -> Answer:
            sent = parameters
            if again is not None:
                sent = list(parameters)
                sent[again] = TRUE if may_have_run or parameters[again] == TRUE else FALSE
            return connection.execute(statement, sent, max(0.05, give_up - monotonic()))

        return self._retry(call, give_up, queue, once=once, of_consumer=of_consumer)

    def look(self, statement: Statement, parameters: Sequence[Parameter] = (), *, queue: str = "") -> Answer:
        """Run a statement that may take long and may run twice; raise BackendUnavailable in an outage.

        Otherwise as :meth:`run`.
        """
        return self.work(lambda connection: connection.execute(statement, parameters, _LONG_S), queue=queue)

    def change(self, statement: Statement, parameters: Sequence[Parameter], *, queue: str) -> Answer:
        """Run a statement that returns how much it changed. It runs once: a second run would return less.

        It uses the connection of the thread's last request, if no other thread has taken that.

        Raises:
            BackendUnavailable: the server couldn't be reached in time, or it isn't known what was changed.
            BackendError: otherwise as of :meth:`run`.
        """

        def call(connection: Connection) -> Answer:
            try:
                return connection.execute(statement, parameters, _LONG_S)
            except (ConnectionBroke, RefusedByServer) as error:
                is_open = isinstance(error, ConnectionBroke) or error.may_have_run
                if is_open and not self._closing.is_set():
                    raise answer_lost(error, self.settings.address) from error
                raise

        return self.work(call, queue=queue)

    def work(self, call: Callable[[Connection], AnswerT], *, queue: str = "") -> AnswerT:
        """Have ``call`` use a connection, perhaps more than once; errors as of :meth:`look`."""
        give_up = min(monotonic() + self.retry_timeout_s, self._deadline)
        try:
            return self._retry(lambda connection, _: call(connection), give_up, queue)
        except ServerUnreachable as out:
            raise self.unavailable(out) from out.error

    def unavailable(self, out: ServerUnreachable) -> BackendError:
        """Return what an outage is to the caller."""
        return unavailable(out, self.settings.address, is_local=self.settings.is_local)

    def connect(self, host: tuple[str, int] | None = None) -> Connection:
        """Open a connection, which the caller closes.

        Args:
            host: To this one of several hosts, whether or not it takes jobs; by default to one that does.

        Raises:
            ConnectFailed: it can't be made now.
        """
        settings = self.settings if host is None else self.settings.of(host)
        # Each host has so long: one that hangs leaves time for the next.
        timeout_s = min(self.retry_timeout_s / len(settings.hosts), 5.0)
        is_over = self._closing.is_set
        return Connection(settings.parameters, timeout_s, prepares=self._prepares, is_over=is_over)

    def start_closing(self) -> None:
        """Have all calls from now on end within ``retry_timeout_s``, together."""
        self._deadline = monotonic() + self.retry_timeout_s

    def close(self) -> None:
        """Close the connections; calls under way and to come raise Closed."""
        self.leave_parent()
        self._closing.set()
        self._drop_idle()

    def leave_parent(self) -> None:
        """After a fork: leave the connections to the process that made them."""
        if os.getpid() != self._pid:
            _inherited.extend(self._idle)
            self._begin()

    def _retry(
        self,
        call: Callable[[Connection, bool], AnswerT],
        give_up: float,
        queue: str,
        *,
        once: bool = False,
        of_consumer: bool = False,
    ) -> AnswerT:
        tries, may_have_run = 0, False
        told: Exception | None = None
        while True:
            self.leave_parent()
            if self._closing.is_set():
                raise client_closed(self._owner)
            began, connection = monotonic(), self._take_live() if once else self._take_idle()
            was_idle = connection is not None
            refused_by = self._refused_by if of_consumer else None
            try:
                connection = connection or self._open()
                if refused_by is not None:
                    self._tell_after_outage(connection, refused_by)
                answer = call(connection, may_have_run)
            except (ConnectFailed, ConnectionBroke, RefusedByServer) as error:
                may_have_run = may_have_run or isinstance(error, ConnectionBroke)
                if isinstance(error, RefusedByServer):
                    may_have_run = may_have_run or error.may_have_run or error.code == TAKEN
                    if of_consumer and error.is_outage:
                        self._note_refused(error)
                failed: Exception = error
            else:
                self._keep(connection)
                if self._refused_by is refused_by:  # else another thread was refused meanwhile
                    self._refused_by = None
                if self._away_since is not None:
                    self._note_reached()
                return answer
            if connection is not None and connection.is_usable:
                self._keep(connection)
            self._refuse(failed, queue, prepared=connection is not None and connection.prepares)
            if not isinstance(failed, RefusedByServer) or failed.ends_connection:
                self._note_away(failed, began, was_idle=was_idle)
            tries += 1
            # The last try has little time left. If it ends without an answer, an earlier error says more.
            if told is None or not isinstance(failed, NoAnswer):
                told = failed
            delay_s = _BACKOFF.delay_s(tries)
            if monotonic() + delay_s >= give_up or (once and isinstance(failed, ConnectionBroke)):
                if self._closing.is_set():
                    raise client_closed(self._owner) from failed
                raise ServerUnreachable(told, may_have_run) from told
            self._closing.wait(delay_s)

    def _refuse(self, error: Exception, queue: str, *, prepared: bool) -> None:
        """Raise the error if another try would fail as well.

        Args:
            error: What the try failed by.
            queue: The queue that it was about.
            prepared: Whether the statement was to be prepared.
        """
        address = self.settings.address
        if isinstance(error, RefusedByServer):
            if error.code == NO_QUEUE:
                raise not_declared(queue) from None
            if error.code == NO_NEXT_QUEUE:
                raise NextQueueMissing(str(error)) from None
            if error.code in _NOT_PREPARED and prepared:
                self._drop_idle()
                if error.code != "0A000" and self._prepares:
                    self._prepares = False
                    self._logger.warning("a pooler in between prepares no statements: going on without")
                return
            if not error.is_passing:
                if error.has_no_schema:
                    if queue:  # nothing was ever declared
                        raise not_declared(queue) from error
                    raise error
                raise translated(error, address, self.schema) from error
        elif isinstance(error, ConnectFailed) and (refusal := refused_login(error, address)):
            raise refusal from None

    def _open(self) -> Connection:
        """Open a connection, and tell ``after_outage``."""
        connection = self.connect()
        try:
            with suppress(RefusedByServer):  # some systems can't look for clients that have gone
                connection.run_script(_END_WHAT_IS_GIVEN_UP, _SHORT_S)
            self._tell_after_outage(connection, self._away_s())
        except ConnectionBroke as error:
            raise ConnectFailed(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _note_refused(self, error: RefusedByServer) -> None:
        """Remember what tells most of an outage for all."""
        if self._refused_by is None or self._refused_by.may_concern_one:
            self._refused_by = error

    def _tell_after_outage(self, connection: Connection, outage: Outage) -> None:
        """Call ``after_outage``; if the connection breaks, raise ConnectFailed, as no request was sent."""
        try:
            self._after_outage(connection, outage)
        except ConnectionBroke as error:
            raise ConnectFailed(str(error)) from error

    def _away_s(self) -> float:
        """For how many seconds the server has been out of reach."""
        since = self._away_since
        return 0.0 if since is None else monotonic() - since

    def _note_away(self, error: Exception, began: float, *, was_idle: bool) -> None:
        """Note that the server wasn't reached by a try.

        Args:
            error: Why.
            began: When the try began.
            was_idle: Whether its connection had been idle, so that it may have ended long before.
        """
        self._drop_idle()
        if self._away_since is None:
            self._away_since = began
        if not was_idle and not self._outage and not self._closing.is_set():
            self._outage = True
            self._logger.warning(
                "PostgreSQL at %s is out of reach, trying again: %s", self.settings.address, error
            )

    def _note_reached(self) -> None:
        self._away_since = None
        if self._outage:
            self._outage = False
            self._logger.warning("PostgreSQL at %s is back", self.settings.address)
        self.on_reached()

    def _keep(self, connection: Connection) -> None:
        # The connection was in use when a pooler refused to prepare statements over another one.
        is_outdated = connection.prepares and not self._prepares
        if not connection.is_usable or is_outdated or self._closing.is_set() or len(self._idle) >= _MOST_IDLE:
            connection.close()
        else:
            self._idle.append(connection)
            if self._closing.is_set():  # another thread has closed the session since the check above
                self.close()

    def _drop_idle(self) -> None:
        """Close the idle connections: after an outage each may be dead, or lead to a demoted server."""
        while (connection := self._take_idle()) is not None:
            connection.close()

    def _take_live(self) -> Connection | None:
        """Return an idle connection that hasn't ended; close those that have."""
        while (connection := self._take_idle()) is not None and connection.has_ended():
            connection.close()
        return connection

    def _take_idle(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None
