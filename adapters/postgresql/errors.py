"""The one seam where the server's and the driver's errors become ours."""

import re

from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable
from ..shared.unreachable import remedy

NO_QUEUE = "MJ404"
"""What our own functions raise for a queue that isn't declared."""
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
    "58P01",
    "72000",
)
_TAKEN = "23505"
_FULL = ("53100", "53200", "53400")
_DENIED = ("28", "42501")
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no pg_hba\.conf entry|role .* does not exist|not permitted to log in"
    r"|no password supplied|permission denied|certificate"
)
_NO_DATABASE = re.compile(r"database .* does not exist")


class RefusedByServer(Exception):
    """The server answered with an error; the message is its own. It never gets to the caller.

    Args:
        code: Its five characters, the SQLSTATE.
        text: The message.
    """

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)

    @property
    def has_no_schema(self) -> bool:
        """Whether the tables or functions aren't there, or not yet."""
        return self.code in _NO_SCHEMA

    @property
    def is_passing(self) -> bool:
        """Whether another try may succeed: the server restarts or was demoted, others were in the way."""
        return self.code.startswith(_PASSING) or self.code == _TAKEN

    @property
    def ends_connection(self) -> bool:
        """Whether to go on by another connection, perhaps to another server."""
        return self.code.startswith(("08", "57P", "25006", "25P0", "53300"))


class ConnectionBroke(Exception):
    """The connection broke after something was sent, or no answer came in time."""


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


def refused_login(error: ConnectFailed, address: str) -> BackendError | None:
    """Return what to tell of a login that the server will refuse however often it is tried, else None."""
    text = str(error)
    if _NO_DATABASE.search(text):
        return BrokerUnsuitable(f"PostgreSQL at {address}: {text}; create it with createdb, or name another")
    if _REFUSED_LOGIN.search(text):
        return AccessDenied(
            f"PostgreSQL at {address} denies access: {text}; correct the user, the password or pg_hba.conf"
        )
    return None


def unavailable(out: ServerUnreachable, address: str, *, is_local: bool) -> BackendUnavailable:
    """Return what an outage is to the caller."""
    code = getattr(out.error, "code", "")
    if code == "25006":
        fix = "this server is a standby: name all servers in the URL, with target_session_attrs=read-write"
    elif code == "53300":
        fix = "raise max_connections, or run fewer workers"
    elif code == "57014":
        fix = "a statement was cancelled: raise statement_timeout for this user"
    else:
        fix = remedy(out.error, start="pg_ctlcluster 15 main start", is_local=is_local)
    return BackendUnavailable(f"no PostgreSQL answers at {address} ({out.error}); {fix}")


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
