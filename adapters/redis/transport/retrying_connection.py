"""The connection to the server: it retries, and makes the driver's errors ours."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil, inf
from time import monotonic
from typing import Any

from redis import exceptions as driver
from redis.sentinel import MasterNotFoundError

from ....domain import RetryPolicy
from ....domain.errors import AccessDenied, BackendUnavailable, JobsError
from ...shared.error_messages import client_closed
from ...shared.unreachable import remedy
from ..errors import RefusedByServer, ServerUnreachable, refuse_for_now
from ..scripts import Script
from .commands import Argument, Command
from .connections import ConnectionBroke, Connections
from .evaluate import evalsha, evaluate
from .on_connect import OnConnect, refuses_writes

_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
_PAUSE_S = 0.05
"""How many seconds to pause after a wait at the server that failed."""
_PASSING = (
    driver.ConnectionError,
    driver.TimeoutError,
    driver.ReadOnlyError,
    driver.MasterDownError,
    driver.ClusterDownError,
    driver.TryAgainError,
    OSError,
)
"""Errors of a server that will be back, or has a successor."""
_PASSING_REFUSALS = {
    "NOREPLICAS": "too few of its replicas keep up for its min-replicas-to-write: look whether they run",
    "MISCONF": "look at its log: is its disk full?",
    "BUSY ": "a script runs for long: look which program sent it",
}
"""How the errors begin that pass by themselves, and what to do about each."""
_MISSING = ("NOQUEUE", "NONEXT")
"""How the errors begin that name a missing queue: that of the script, or one that it publishes into."""
_IN_DOUBT = (ConnectionBroke, driver.InvalidResponse)
"""Errors that leave open whether the command ran."""
_DENIALS = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure in script")
"""How the errors begin of a server that denies access."""
_DENIED = (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError)

Call = tuple[Script, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""


class RetryingConnection:
    """Connections to one server, shared by a client and its consumers; a call is retried until answered.

    The driver's own retries are off: it can't know which commands may run twice. Here every script may, since
    each that must not be applied twice carries a request number and is answered as before.

    Args:
        address: What to call the server in messages; no credentials.
        commands: The connections for short calls.
        waits: The connections for calls that may block.
        owner: What to call, in messages, the object that closes it.
        retry_timeout_s: Seconds to keep trying before a call fails.
        logger: Logs an outage once when it begins and once when it ends.
        is_local: Whether the server should be on this machine.
    """

    def __init__(
        self,
        address: str,
        commands: Connections,
        waits: Connections,
        *,
        owner: str,
        retry_timeout_s: float,
        logger: logging.Logger,
        is_local: bool = True,
    ) -> None:
        self._address = address
        self._is_local = is_local
        self._commands = commands
        self._waits = waits
        self._owner = owner
        self.retry_timeout_s = retry_timeout_s
        self._logger = logger
        self.redeclare: Callable[[], None] = lambda: None
        """Called when a queue is missing. Then the script is run once more."""
        self._on_connect = OnConnect(address)
        commands.on_connect = waits.on_connect = self._on_connect
        self._outage: Exception | None = None
        """The error with which the present outage began; None while the server can be reached."""
        self._ever_broke = False
        """Whether a call ever broke off. What it sent may still be on its way, however long ago that was."""
        self._deadline = inf
        """No call begins after this moment."""
        self._closing = threading.Event()
        self._is_closing = self._closing.is_set

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        retry_timeout_s: float | None = None,
    ) -> Any:
        """Run a script, and try again until the server answers or time is up.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            retry_timeout_s: Seconds to keep trying, in place of the usual; 0 for one try, less for none.

        Raises:
            ServerUnreachable: the server couldn't be reached in time.
            BackendError: the server refused.
            Closed: the connection was closed.
        """
        call = partial(evaluate, self._commands.execute, script, keys, arguments)
        return self._retry(call, retry_timeout_s=retry_timeout_s, writes=script.writes)

    def command(self, *words: Argument, retry_timeout_s: float | None = None) -> Any:
        """Run a command that may run twice; otherwise as :meth:`run`."""
        call = partial(self._commands.execute_parsed, *words)
        return self._retry(call, retry_timeout_s=retry_timeout_s)

    def protect_leases(self, keys: Sequence[str], lease_ms: int) -> None:
        """Keep outages from ending the leases of a queue, from now on; otherwise as :meth:`run`."""
        self._retry(partial(self._on_connect.protect_leases, self._commands.execute, keys, lease_ms))

    def unprotect_leases(self, keys: Sequence[str]) -> None:
        """Stop doing so."""
        self._on_connect.unprotect_leases(keys)

    def unlink_unless_late(self, *keys: str) -> None:
        """Remove the keys that turn late requests away; if one may still come, let them expire instead."""
        if not self._ever_broke:
            self.command("UNLINK", *keys)

    def wait(
        self, streams: Sequence[tuple[str, str]], seconds: float, then: Call | None = None
    ) -> tuple[dict[str, str], Any]:
        """Wait for a new entry in any of ``streams``.

        Args:
            streams: Their names, each with the last id seen.
            seconds: How long to wait at most.
            then: A script to run as soon as the wait is over. It is sent along with the wait: the server runs
                it at that moment, and the entry and the answer arrive together.

        Returns:
            The ids of the new entries, by stream; if an error ended the wait, the given ids. And the answer
            of ``then``, or None if none came: it may or may not have run, and :meth:`run` is to run it again.
        """
        due = monotonic() + seconds
        block_ms = str(max(1, ceil(seconds * 1000)))  # 0 would be for ever
        names = [name for name, _ in streams]
        ids = [last for _, last in streams]
        commands: list[Command] = [("XREAD", "COUNT", "1", "BLOCK", block_ms, "STREAMS", *names, *ids)]
        if then is not None:
            commands.append(evalsha(*then))
        try:
            came, *answers = self._waits.execute(*commands)
            if isinstance(came, Exception):
                raise came
        except _DENIED as error:
            raise self._translated(error) from error
        except (*_PASSING, *_IN_DOUBT, driver.ResponseError, ValueError) as error:
            # The call that follows finds out what is the matter, and deals with it.
            self._logger.debug("a wait ended early: %s", type(error).__name__)
            self._ever_broke = True
            if isinstance(error, (*_PASSING, ConnectionBroke)):  # whoever calls next looks at the server
                self._note_failure(min(due, monotonic()))
            self._closing.wait(min(seconds, _PAUSE_S))  # should every wait fail, this is no storm
            return dict(streams), None
        news = {name.decode(): entries[-1][0].decode() for name, entries in came or ()}
        answer = answers[0] if answers else None
        if isinstance(answer, Exception):
            if isinstance(answer, driver.ReadOnlyError):  # demoted: wait at its successor
                self._waits.drop_idle()
            return news, None
        return news, answer

    def listen(self, stream: str, last: str, seconds: float) -> list[tuple[bytes, list[bytes]]] | None:
        """Wait for entries of a stream behind ``last``, and return them; None if an error ended the wait.

        Args:
            stream: Its name.
            last: The last id seen.
            seconds: How long to wait at most.
        """
        block_ms = str(max(1, ceil(seconds * 1000)))  # 0 would be for ever
        try:
            (came,) = self._waits.execute(("XREAD", "BLOCK", block_ms, "STREAMS", stream, last))
            if isinstance(came, Exception):
                raise came
        except (*_DENIED, *_PASSING, *_IN_DOUBT, driver.ResponseError, ValueError) as error:
            self._logger.debug("a wait ended early: %s", type(error).__name__)
            if isinstance(error, driver.ReadOnlyError):
                self._waits.drop_idle()
            self._closing.wait(min(seconds, _PAUSE_S))
            return None
        return came[0][1] if came else []

    @property
    def is_open(self) -> bool:
        """Whether it wasn't closed."""
        return not self._is_closing()

    def start_closing(self) -> None:
        """Have all calls from now on end within ``retry_timeout_s``, together."""
        self._deadline = monotonic() + self.retry_timeout_s

    @property
    def closing_left_s(self) -> float:
        """How many seconds of that are left."""
        return self._deadline - monotonic()

    def close(self) -> None:
        """Drop every connection; calls under way and to come raise Closed."""
        self._closing.set()
        self._commands.close()
        self._waits.close()

    def _retry(
        self, call: Callable[[], Any], *, retry_timeout_s: float | None = None, writes: bool = False
    ) -> Any:
        now = monotonic()
        timeout_s = self.retry_timeout_s if retry_timeout_s is None else retry_timeout_s
        give_up = min(now + timeout_s, self._deadline)
        if give_up < now:
            raise self.out_of_time()
        tries = 0
        may_have_run = redeclared = False
        while True:
            if self._is_closing():
                raise client_closed(self._owner)
            try:
                answer = call()
            except JobsError:
                raise
            except Exception as error:
                may_have_run = may_have_run or isinstance(error, _IN_DOUBT)
                if str(error).startswith(_MISSING) and not redeclared:
                    redeclared = True
                    self.redeclare()
                    continue
                passing = isinstance(error, _PASSING) or _remedy_of_refusal(error) is not None
                if isinstance(error, _DENIED) or not passing:
                    raise self._translated(error, may_have_run) from error
                tries += 1
                self._log_outage(error)
                delay_s = _BACKOFF.delay_s(tries)
                if monotonic() + delay_s >= give_up:
                    raise ServerUnreachable(error, may_have_run) from error
                self._closing.wait(delay_s)
            else:
                if self._on_connect.unwritten_since is not None or self._outage is not None:
                    self._note_success(writes=writes)
                return answer

    def out_of_time(self) -> ServerUnreachable:
        """Return the error of a call that has no time left to send anything."""
        waits = TimeoutError("no answer came to the calls before this one")
        return ServerUnreachable(self._outage or waits, may_have_run=False)

    @contextmanager
    def outages(self) -> Iterator[None]:
        """Raise BackendUnavailable for an outage."""
        try:
            yield
        except RefusedByServer as refusal:
            refuse_for_now(refusal)
            raise
        except ServerUnreachable as out:
            raise self.unavailable(out) from out.error

    def unavailable(self, out: ServerUnreachable) -> BackendUnavailable:
        """Return what an outage is to the caller."""
        what, fix = "Redis refuses commands", _remedy_of_refusal(out.error)
        if fix is None:
            what, fix = "no Redis answers", self._remedy_of_outage(out.error)
        if out.may_have_run:
            fix += ". It may have done what it was asked last"
        return BackendUnavailable(f"{what} at {self._address} ({_described(out.error)}); {fix}")

    def _remedy_of_outage(self, error: Exception) -> str:
        if isinstance(error, MasterNotFoundError):
            return "look whether it runs, or another that they elect; check sentinels= and sentinel_service="
        return remedy(error, start="redis-server", is_local=self._is_local)

    def _translated(self, error: Exception, may_have_run: bool = False) -> Exception:
        text = str(error)
        if isinstance(error, _DENIED) or text.startswith(_DENIALS):
            return AccessDenied(
                f"Redis at {self._address} denies access: {text}; correct the username and the password, or "
                "what the user may do"
            )
        if isinstance(error, driver.InvalidResponse):
            text = f"what answers at {self._address} isn't Redis ({text}); correct the host and the port"
        elif text.startswith("DB index"):
            text = f"{text}; use a lower db, or raise `databases` in the server's redis.conf"
        if isinstance(error, driver.RedisError):
            return RefusedByServer(text, may_have_run)
        return error

    def _log_outage(self, error: Exception) -> None:
        self._ever_broke = True
        self._note_failure(monotonic())
        if self._outage is None:
            self._outage = error
            self._logger.warning(
                "Redis at %s is out of reach, trying again: %s", self._address, _described(error)
            )

    def _note_failure(self, moment: float) -> None:
        self._on_connect.note_failure(moment)
        # Look at the server anew: it may have refused for long, or the next be the successor of one demoted.
        self._commands.drop_idle()
        self._waits.drop_idle()

    def _note_success(self, *, writes: bool) -> None:
        """Note that a call succeeded. One that only reads doesn't show that a server takes writes again."""
        if writes:
            self._on_connect.note_write()
        elif self._on_connect.unwritten_since is not None:
            self._commands.drop_idle()  # the next write looks at the server first
        if self._outage is not None and (writes or not refuses_writes(self._outage)):
            self._outage = None
            self._logger.warning("Redis at %s is back", self._address)


def _described(error: Exception) -> str:
    if isinstance(error, MasterNotFoundError):  # whose own message is a page long
        if "Authentication" in str(error):
            return "a Sentinel wants another sentinel_password"
        return "no Sentinel names a server that is up"
    return f"{type(error).__name__}: {error}"


def _remedy_of_refusal(error: Exception) -> str | None:
    """Say what to do about a refusal that passes by itself; None if the error is another."""
    text = str(error)
    return next((fix for begins, fix in _PASSING_REFUSALS.items() if text.startswith(begins)), None)
