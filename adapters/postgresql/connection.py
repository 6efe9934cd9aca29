"""One connection to the server, on which no wait lasts for ever.

A cursor of psycopg waits for an answer without a limit. So this uses :mod:`psycopg.pq`, psycopg's public
lower layer, which leaves the waiting to its caller.
"""

import os
import secrets
import selectors
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from .errors import ConnectFailed, ConnectionBroke, NoAnswer, RefusedByServer, in_one_line

Parameter = bytes | None
_SLICE_S = 0.25
"""The longest time, in seconds, after which a wait looks whether it is to end early."""
_DROP_EVERY = 256
"""The number of statements after which notifications are dropped. A pooler shares connections, so
notifications that another client listens for may arrive here. The driver keeps them in memory until they are
read."""
_NOTHING = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK


def make_selector() -> selectors.BaseSelector:
    """Return a selector that needs no file descriptor of its own."""
    return getattr(selectors, "PollSelector", selectors.SelectSelector)()


class Statement(NamedTuple):
    """A statement; its parameters and its answer have the binary format."""

    sql: str
    parameters: int
    is_planned_anew: bool = False
    """Whether it is never prepared. PostgreSQL would keep a plan that it made while the tables were small."""


class Answer:
    """The rows that a statement returned."""

    __slots__ = ("_result", "rows")

    def __init__(self, result: Any) -> None:
        self._result = result
        self.rows: int = result.ntuples

    def value(self, row: int, column: int) -> bytes | None:
        """Return one value; None for NULL."""
        value: bytes | None = self._result.get_value(row, column)
        return value

    def row(self, row: int, columns: Sequence[int] | None = None) -> list[bytes | None]:
        """Return the values of one row: of these columns, or of all."""
        get = self._result.get_value
        return [get(row, column) for column in columns or range(self._result.nfields)]

    def all_rows(self) -> list[list[bytes | None]]:
        """Return the values of all rows."""
        return [self.row(row) for row in range(self.rows)]


class Connection:
    """A connection that was just opened.

    Args:
        parameters: Those of libpq.
        timeout_s: How long to wait for the connection.
        prepares: Whether statements are prepared, which a pooler may not allow.
        is_over: Whether a wait is to end early.

    Raises:
        ConnectFailed: it couldn't be made.
    """

    def __init__(
        self, parameters: Mapping[str, Any], timeout_s: float, *, prepares: bool, is_over: Callable[[], bool]
    ) -> None:
        timeout = max(2, round(timeout_s))  # libpq takes no less
        try:
            self._driver = psycopg.connect(**{"connect_timeout": timeout, **parameters}, autocommit=True)
        except psycopg.Error as error:
            raise ConnectFailed(in_one_line(str(error))) from None
        self._driver.add_notice_handler(self._note)
        self._pg = self._driver.pgconn
        self._pg.nonblocking = 1
        self.prepares = prepares
        self._prepared: dict[str, bytes] = {}
        self._executed = 0
        prefix = b"mtj_" + secrets.token_hex(8).encode()
        self._names = (b"%s_%d" % (prefix, number) for number in count())
        """Names of prepared statements. No other connection uses them: behind a pooler, two clients may share
        a connection of the server, which would run the other client's statement. No name is used again, not
        even if its statement failed: PgBouncer takes such a name for used."""
        self._is_over = is_over
        self._selector = make_selector()
        self._selector.register(self._pg.socket, selectors.EVENT_READ)
        self._pid = os.getpid()
        self._is_ending = False
        """Whether the server announced the end of the connection while it was idle."""
        self.is_usable = True

    @property
    def socket(self) -> int:
        """Its file descriptor."""
        return int(self._pg.socket)

    @property
    def reported_pid(self) -> int:
        """The server's process, as it was told at the login; a pooler tells a number of its own."""
        return int(self._pg.backend_pid)

    @property
    def server_version(self) -> int:
        """As PostgreSQL numbers it: 150020 for 15.20."""
        return int(self._pg.server_version)

    def execute(self, statement: Statement, parameters: Sequence[Parameter], timeout_s: float) -> Answer:
        """Run a statement, and return its rows.

        Raises:
            RefusedByServer: the server answered with an error.
            ConnectionBroke: the connection broke, or no answer came in time; the statement may have run.
        """
        until = monotonic() + timeout_s
        self._executed += 1
        try:
            if self._executed % _DROP_EVERY == 0:
                self.notifications()
            return self._execute(statement, parameters, until)
        except RefusedByServer as error:
            if error.ends_connection:
                self.close()
            raise
        # Also an interrupt: the answer that is still to come belongs to no later statement.
        except BaseException:
            self.close()
            raise

    def _execute(self, statement: Statement, parameters: Sequence[Parameter], until: float) -> Answer:
        pg, sql = self._pg, statement.sql
        formats = [1] * statement.parameters
        try:
            if self.prepares and not statement.is_planned_anew:
                name = self._prepared.get(sql)
                if name is None:
                    name = next(self._names)
                    pg.send_prepare(name, sql.encode())
                    self._result(until)
                    self._prepared[sql] = name
                pg.send_query_prepared(name, parameters, formats, 1)
            else:
                pg.send_query_params(sql.encode(), parameters, None, formats, 1)
        except psycopg.Error as error:
            raise ConnectionBroke(_message(error)) from None
        return Answer(self._result(until))

    def run_script(self, sql: str, timeout_s: float) -> None:
        """Run several statements as one transaction; otherwise as :meth:`execute`."""
        try:
            self._pg.send_query(sql.encode())
            self._result(monotonic() + timeout_s)
        except RefusedByServer as error:
            if error.ends_connection:
                self.close()
            raise
        except psycopg.Error as error:
            self.close()
            raise ConnectionBroke(_message(error)) from None
        except BaseException:
            self.close()
            raise

    def _result(self, until: float) -> Any:
        """Wait for the answer, and read all of it."""
        pg, last, failed = self._pg, None, None
        try:
            self._flush(until)
            while True:
                self._read_next(until)
                result = pg.get_result()
                if result is None:
                    break
                if result.status in _NOTHING:
                    last = result
                else:
                    failed = failed or result
        except psycopg.Error as error:
            if failed is None:
                raise ConnectionBroke(_message(error)) from None
        if failed is not None:
            code = failed.error_field(pq.DiagnosticField.SQLSTATE)
            text = failed.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
            severity = failed.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
            # The server dies, or ends the connection after it had answered: it may have committed, or not.
            if code is None or severity == b"PANIC" or (severity == b"FATAL" and last is not None):
                raise ConnectionBroke((failed.error_message or b"").decode(errors="replace").strip())
            raise RefusedByServer(code.decode(), (text or b"").decode(errors="replace"))
        return last

    def _flush(self, until: float) -> None:
        while self._pg.flush():
            self._wait(until, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self._pg.consume_input()

    def _read_next(self, until: float) -> None:
        """Read until the next result is there."""
        while self._pg.is_busy():
            self._wait(until, selectors.EVENT_READ)
            self._pg.consume_input()

    def _wait(self, until: float, events: int) -> None:
        self._selector.modify(self._pg.socket, events)
        while True:
            left_s = until - monotonic()
            if left_s <= 0 or self._is_over():
                raise NoAnswer("no answer came in time")
            if self._selector.select(min(left_s, _SLICE_S)):
                return

    def notifications(self) -> list[bytes]:
        """Read what has come, without waiting, and return the payloads of notifications.

        Raises:
            ConnectionBroke: the connection broke.
        """
        try:
            self._pg.consume_input()
            return [notify.extra for notify in iter(self._pg.notifies, None)]
        except psycopg.Error as error:
            raise ConnectionBroke(_message(error)) from None

    def has_ended(self) -> bool:
        """Return whether it is known that the connection has ended while it was idle."""
        try:
            self._read_all()
        except ConnectionBroke:
            return True
        return self._is_ending

    def _read_all(self) -> None:
        """Read what has come, without waiting, and drop notifications."""
        self._selector.modify(self._pg.socket, selectors.EVENT_READ)
        while self._selector.select(0):
            self.notifications()

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._is_ending = True

    def close(self) -> None:
        """Close the connection, unless it belongs to the process that forked this one."""
        self.is_usable = False
        if os.getpid() == self._pid:
            self._driver.close()


def _message(error: Exception) -> str:
    return " ".join(str(error).split())
