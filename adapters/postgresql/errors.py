"""Makes errors of ours of those of the server and of the driver. No other module does."""

import re

from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable

NO_QUEUE = "MJ404"
"""What our own functions raise for a queue that isn't declared."""
NO_NEXT_QUEUE = "MJ405"
"""What they raise if the queue of a next job isn't declared; the message is its name."""
_NO_SCHEMA = ("3F000", "42P01", "42704")
_NO_FUNCTION = "42883"
_PASSING = (
    "08",
    "57P0",
    "25006",
    "40001",
    "40P01",
    "53300",
    "57014",
    "55P03",
    "25P03",
    "25P04",
    "53000",
    "58",
    "72000",
)
_BY_OTHERS = ("40", "55P03", "57014")
"""A conflict, a lock that didn't come in time, a time limit: what others do may cause these."""
TAKEN = "23505"
"""A key exists already, such as the token of a request that was carried out before."""
_FULL = ("53100", "53200", "53400")
_NAMELESS = {("XX000", "quota exceeded"): "53100", ("42501", "read-only file system"): "58030"}
"""What the server has no code of its own for: the code that it gives, and a part of its message."""
_DENIED = ("28", "42501")
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no pg_hba\.conf entry|role .* does not exist|not permitted to log in"
    r"|no password supplied|permission denied|certificate"
)
_NO_DATABASE = re.compile(r"database .* does not exist")


_SEVERAL = "Multiple connection attempts failed. All failures were:"
"""What psycopg writes between the last failure and all of them, each as ``- host: …: the failure``."""
_ATTEMPT = re.compile(r"\n- host: .*?, hostaddr: '[^']*': ")
_IS_IT_RUNNING = "Is the server running on that host and accepting TCP/IP connections?"
_LOGIN_REMEDY = "correct the user, the password or pg_hba.conf"
_LOGIN_REMEDIES = (
    (re.compile("no encryption|SSL off"), "encrypt with sslmode=verify-full, or correct pg_hba.conf"),
    (re.compile("valid client certificate"), "name the client's certificate with sslcert and sslkey"),
    (re.compile("certificate"), "correct sslrootcert, the host's name, or the server's certificate"),
)
"""Remedies for refused logins, by the words of libpq or of the server."""
_FULL_OF_CLIENTS = "raise max_connections, or run fewer workers"
_NO_WRITES = (
    "if this server is a standby, name all servers in the URL, with target_session_attrs=read-write; "
    "else set default_transaction_read_only = off"
)
_WAIT = "try again later"
_HANGS = (
    "check the host, the port and whether the server hangs, or waits for a lock or for a standby, as "
    "pg_stat_activity shows"
)
_REMEDIES = {
    "25006": _NO_WRITES,
    "40": "it was in the way of other sessions: look at pg_locks for what they do to the tables",
    "53300": _FULL_OF_CLIENTS,
    "57014": "a statement was cancelled: raise statement_timeout for this user",
    "55P03": "a statement waited too long for a lock: raise lock_timeout for this user",
}
"""Remedies for what the server refuses for a while, by how its error code begins."""
_NOT_REACHED = "is it running, and may this machine reach it? Check the host, the port and the firewall"
_CONNECT_REMEDIES = (
    (
        re.compile("refused|No such file"),
        "is it running, and on this port? Correct the port, or start it: systemctl start postgresql",
    ),
    (re.compile("too many (clients|connections)|connection slots"), _FULL_OF_CLIENTS),
    (re.compile("does not support SSL"), "set ssl = on there, or connect with sslmode=prefer"),
    (re.compile("starting up|shutting down|recovery mode"), "it restarts: wait, and read its log"),
    (re.compile("session is (not )?read-only|hot standby mode"), _NO_WRITES),
    (
        re.compile("invalid response to SSL|authentication request|closed the connection unexpectedly"),
        "is it a PostgreSQL, or does another server listen there? Check the port",
    ),
    (re.compile("failed to resolve|translate host name"), "correct the host's name"),
    (
        re.compile("timeout expired"),
        "check the host, the port and the firewall, and whether the server hangs",
    ),
)
"""Remedies for connections that can't be made, by the words of libpq or of the server. The first one is for a
server of this machine."""


class RefusedByServer(Exception):
    """The server answered with an error; the message is its own. It never gets to the caller.

    Args:
        code: Its five characters, the SQLSTATE.
        text: The message.
    """

    def __init__(self, code: str, text: str) -> None:
        found = (each for (known, part), each in _NAMELESS.items() if code == known and part in text.lower())
        self.code = next(found, code)
        super().__init__(text)

    @property
    def has_no_schema(self) -> bool:
        """Whether tables or functions are missing, perhaps because nobody has made them yet."""
        return self.code in _NO_SCHEMA

    @property
    def is_passing(self) -> bool:
        """Whether another try may succeed: the server restarts, was demoted, or was busy with others."""
        return self.code.startswith(_PASSING) or self.code == TAKEN

    @property
    def is_outage(self) -> bool:
        """Whether the server may refuse all clients. Then no worker can extend its leases, either."""
        return (self.is_passing or self.code in _FULL) and self.code != TAKEN

    @property
    def may_concern_one(self) -> bool:
        """Whether it may be this request only that is refused, for what others do to the rows it needs."""
        return self.code.startswith(_BY_OTHERS)

    @property
    def may_have_run(self) -> bool:
        """Whether the server gave up on a statement that may have been committed."""
        return self.code in ("57P01", "57P02")

    @property
    def ends_connection(self) -> bool:
        """Whether to try again over another connection, perhaps to another server."""
        return self.code.startswith(("08", "57P", "25006", "25P0", "53300"))


Outage = float | RefusedByServer
"""For how many seconds the server was out of reach; or what it refused a request by."""


class ConnectionBroke(Exception):
    """The connection broke after something was sent, or no answer came in time."""


class NoAnswer(ConnectionBroke):
    """No answer came in time."""


class ConnectFailed(Exception):
    """No connection could be made; the message is libpq's."""


class ServerUnreachable(Exception):
    """The server couldn't be reached in time. It never gets to the caller, who is told BackendUnavailable.

    Args:
        error: Why.
        may_have_run: Whether the request was sent, so that it may or may not have been carried out.
    """

    def __init__(self, error: Exception, may_have_run: bool) -> None:
        self.error = error
        self.may_have_run = may_have_run
        super().__init__(str(error))


class DiskFull(BackendUnavailable):
    """The server has no room: nothing was done, nothing is lost, and it goes on when there is room again."""


class NextQueueMissing(BackendError):
    """A queue to publish into isn't declared, and nothing was done. It never gets to the caller.

    Args:
        queue: The queue's name.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"queue {queue!r} isn't declared")


def in_one_line(text: str) -> str:
    """Return why no connection could be made, each failure once and without advice.

    A name such as ``localhost`` often has two addresses, and psycopg tells of the second one twice.
    """
    last, _, several = text.replace(_IS_IT_RUNNING, "").partition(_SEVERAL)
    failures = [" ".join(each.split()) for each in _ATTEMPT.split(several)] if several else []
    return "; ".join(dict.fromkeys(filter(None, failures))) or " ".join(last.split())


def refused_login(error: ConnectFailed, address: str) -> BackendError | None:
    """Return the error for a login that the server will refuse however often it is tried; else None."""
    text = str(error)
    if _NO_DATABASE.search(text):
        return BrokerUnsuitable(f"PostgreSQL at {address}: {text}; create it with createdb, or name another")
    if _REFUSED_LOGIN.search(text):
        fix = next((fix for pattern, fix in _LOGIN_REMEDIES if pattern.search(text)), _LOGIN_REMEDY)
        return AccessDenied(f"PostgreSQL at {address} denies access: {text}; {fix}")
    return None


def unavailable(out: ServerUnreachable, address: str, *, is_local: bool) -> BackendUnavailable:
    """Return the error that tells the caller of an outage."""
    error = out.error
    if isinstance(error, RefusedByServer):
        fix = next((fix for code, fix in _REMEDIES.items() if error.code.startswith(code)), _WAIT)
        return BackendUnavailable(f"PostgreSQL at {address} refuses this for now ({error}); {fix}")
    if isinstance(error, NoAnswer):
        return BackendUnavailable(f"PostgreSQL at {address} doesn't answer ({error}); {_HANGS}")
    text = str(error)
    known = _CONNECT_REMEDIES if is_local else _CONNECT_REMEDIES[1:]
    fix = next((fix for pattern, fix in known if pattern.search(text)), _NOT_REACHED)
    return BackendUnavailable(f"no PostgreSQL answers at {address} ({text}); {fix}")


def answer_lost(error: Exception, address: str) -> BackendUnavailable:
    """Return the error for a change that the server may have made, to an extent that isn't known."""
    return BackendUnavailable(
        f"the connection to PostgreSQL at {address} broke before the answer ({error}): the server may "
        "have done all, some or none of it; look at the queue, and call again if anything is left"
    )


def translated(error: RefusedByServer, address: str, schema: str) -> BackendError:
    """Return the error for the caller if another try would fail as well."""
    if error.code.startswith(_DENIED):
        return AccessDenied(
            f"PostgreSQL at {address} denies access: {error}; grant what docs/postgresql.md says, Privileges"
        )
    if error.code in _FULL:
        return DiskFull(f"PostgreSQL at {address} has no room, nothing was done: free some space ({error})")
    if error.has_no_schema or error.code == _NO_FUNCTION:
        return BrokerUnsuitable(
            f"schema {schema!r} at {address} lacks what this release needs ({error}): it was dropped, or a "
            "newer release has migrated it; start this program again, which says what to do"
        )
    return BackendError(f"PostgreSQL at {address}: {error} ({error.code})")
