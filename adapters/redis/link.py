"""The way to the server: connections, retries, and the one seam where the driver's errors become ours."""

import logging
import threading
from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic
from typing import Any

from redis import exceptions as driver
from redis.sentinel import MasterNotFoundError

from ...domain import RetryPolicy
from ...domain.errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    BrokerUnsuitable,
    Closed,
    JobsError,
)
from .connections import Argument, Command, Connections
from .scripts import Script

_OLDEST = (7, 0)
_BACKOFF = RetryPolicy(base_delay_s=0.05, max_delay_s=2.0)
_PAUSE_S = 0.05
"""How long to wait instead where waiting isn't possible."""
_PASSING = (
    driver.ConnectionError,
    driver.TimeoutError,
    driver.ReadOnlyError,
    driver.MasterDownError,
    driver.ClusterDownError,
    driver.TryAgainError,
    OSError,
)
"""What comes of a server that will be there again, or has a successor."""
_PASSING_REFUSALS = ("NOREPLICAS", "MISCONF", "BUSY ")
"""How a server begins that refuses for now: too few replicas, no disk to save to, a script that runs long."""
_DENIED = (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError)

Call = tuple[Script, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""


class OutOfReach(Exception):
    """The server can't be reached, or broke the connection: the command may or may not have run."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Link:
    """Connections to one server, shared by a client and its consumers.

    The driver's own retries are off: it can't know which commands may run twice. Here every script may, since
    each that must not be applied twice carries a request number and is answered as before.

    Args:
        address: What to call the server in messages; no credentials.
        commands: For calls that are short.
        waits: For those that may block.
        owner: What to call, in messages, the object that closes it.
        patience_s: Seconds to keep trying before a call fails.
        logger: Where an outage is told: once when it begins, once when it ends.
    """

    def __init__(
        self,
        address: str,
        commands: Connections,
        waits: Connections,
        *,
        owner: str,
        patience_s: float,
        logger: logging.Logger,
    ) -> None:
        self._address = address
        self._commands = commands
        self._waits = waits
        self._owner = owner
        self._patience_s = patience_s
        self._logger = logger
        self._checked = False
        self._server: str | None = None
        """The run id of the server that was met last: another after a restart or a failover."""
        self._standing: dict[Sequence[str], tuple[Script, Sequence[Argument]]] = {}
        self._out = False
        self._broke = False
        """Whether ever a call broke off: what it sent may be on its way still, however late it is."""
        self._closing = threading.Event()

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script, and try again until it answers or patience ends.

        Raises:
            OutOfReach: the server couldn't be reached for as long as patience lasts.
            BackendError: the server refused.
            Closed: the link was closed.
        """
        return self._persist(self._evaluate, script, keys, arguments)

    def stand(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Run a script again, before all else, in a server that was restarted or took another's place."""
        self._standing[tuple(keys)] = (script, arguments)

    def fall(self, keys: Sequence[str]) -> None:
        """Run no script again for these keys."""
        self._standing.pop(tuple(keys), None)

    def command(self, *words: Argument) -> Any:
        """Run a command that may run twice; otherwise as :meth:`run`."""
        return self._persist(self._commands.ask_parsed, *words)

    def forget_requests(self, *keys: str) -> None:
        """Remove what turns away requests that come late, unless one may come: then it expires by itself."""
        if not self._broke:
            self.command("UNLINK", *keys)

    def wait(
        self, streams: Sequence[tuple[str, str]], seconds: float, then: Call | None = None
    ) -> tuple[dict[str, str], Any]:
        """Wait for a new entry in any of ``streams``, given with the last id seen.

        Args:
            streams: Their names, and of each the last id seen.
            seconds: How long to wait at most.
            then: What to run as soon as the wait is over. It is sent along with the wait, so that the server
                runs it at that very moment, and the entry and the answer arrive together.

        Returns:
            The ids of what came, by stream; where an error ended the wait, those that were given. And the
            answer of ``then``, or None where none came: it may or may not have run, and :meth:`run` is to
            run it again.
        """
        block_ms = max(1, ceil(seconds * 1000))  # 0 would be for ever
        names = [name for name, _ in streams]
        ids = [last for _, last in streams]
        wait: Command = ("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", *names, *ids)
        try:
            came, *answers = self._waits.ask(wait) if then is None else self._waits.ask(wait, _evalsha(*then))
            if isinstance(came, Exception):
                raise came
        except _DENIED as error:
            raise self._translated(error) from error
        except (
            driver.ConnectionError,
            driver.TimeoutError,
            driver.ResponseError,
            OSError,
            ValueError,
        ) as error:
            # The call that follows finds out what is the matter, and deals with it.
            self._logger.debug("a wait ended early: %s", type(error).__name__)
            self._broke = True
            self._closing.wait(min(seconds, _PAUSE_S))  # should every wait fail, this is no storm
            return dict(streams), None
        news = {name.decode(): entries[-1][0].decode() for name, entries in came or ()}
        answer = answers[0] if answers else None
        if isinstance(answer, Exception):
            if isinstance(answer, driver.ReadOnlyError):  # demoted: wait at its successor
                self._waits.drop_idle()
            return news, None
        return news, answer

    def close(self) -> None:
        """Drop every connection; calls under way and to come raise Closed."""
        self._closing.set()
        self._commands.close()
        self._waits.close()

    def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        (answer,) = self._commands.ask(_evalsha(script, keys, arguments))
        if isinstance(answer, driver.NoScriptError):  # the server was restarted, or its scripts flushed
            (answer,) = self._commands.ask(("EVAL", script.text, len(keys), *keys, *arguments))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _persist(self, call: Callable[..., Any], *arguments: Any) -> Any:
        give_up = monotonic() + self._patience_s
        tries = 0
        looked_again = False
        while True:
            if self._closing.is_set():
                raise Closed(f"this {self._owner} is closed")
            try:
                if not self._checked:
                    self._check_server()
                answer = call(*arguments)
            except JobsError:
                raise
            except Exception as error:
                if str(error).startswith("NOQUEUE") and not looked_again:
                    looked_again, self._checked = True, False  # may be gone with the server that had it
                    continue
                passing = isinstance(error, _PASSING) or str(error).startswith(_PASSING_REFUSALS)
                if isinstance(error, _DENIED) or not passing:
                    raise self._translated(error, tries > 0) from error
                tries += 1
                self._tell_out(error)
                delay_s = _BACKOFF.delay_s(tries)
                if monotonic() + delay_s >= give_up:
                    raise OutOfReach(error) from error
                self._closing.wait(delay_s)
            else:
                self._tell_back()
                return answer

    def unavailable(self, out: OutOfReach) -> BackendUnavailable:
        """What to tell the caller of an outage."""
        return BackendUnavailable(
            f"no Redis answers at {self._address} ({_described(out.error)}); "
            "is it running? Start one with: redis-server"
        )

    def _translated(self, error: Exception, may_have_run: bool = False) -> Exception:
        text = str(error)
        if isinstance(error, _DENIED) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return AccessDenied(f"Redis at {self._address} denies access: {text}")
        if isinstance(error, driver.RedisError):
            return RefusedByServer(text, may_have_run)
        return error

    def _tell_out(self, error: Exception) -> None:
        self._broke = True
        self._checked = False  # whoever answers next may be another server
        if isinstance(error, driver.ReadOnlyError):  # demoted: its successor may have its name by now
            self._commands.drop_idle()
        if not self._out:
            self._out = True
            self._logger.warning(
                "Redis at %s is out of reach, trying again: %s", self._address, _described(error)
            )

    def _tell_back(self) -> None:
        if self._out:
            self._out = False
            self._logger.warning("Redis at %s is back", self._address)

    def _check_server(self) -> None:
        """Refuse a server that is too old, or would drop things when full; give a new one what stands."""
        about = self._commands.ask_parsed("INFO", "server") | self._commands.ask_parsed("INFO", "memory")
        version = tuple(int(part) for part in str(about["redis_version"]).split(".")[:2])
        if version < _OLDEST and "valkey_version" not in about:
            raise BrokerUnsuitable(
                f"Redis {about['redis_version']} at {self._address}: version {_OLDEST[0]} or newer is needed"
            )
        policy = str(about.get("maxmemory_policy", "noeviction"))
        if int(about.get("maxmemory", 0)) and policy.startswith("allkeys"):
            raise BrokerUnsuitable(
                f"Redis at {self._address} would drop jobs and results when its memory is full: its "
                f"maxmemory-policy is {policy}; set it to noeviction, with CONFIG SET and in its "
                "configuration file"
            )
        if self._server not in (None, about["run_id"]):
            for keys, (script, arguments) in list(self._standing.items()):
                self._evaluate(script, keys, arguments)
        self._server = about["run_id"]
        self._checked = True


class RefusedByServer(BackendError):
    """The server answered with an error; the message is its own.

    Args:
        text: The message.
        may_have_run: Whether the command was sent before, and that answer lost.
    """

    def __init__(self, text: str, may_have_run: bool) -> None:
        self.may_have_run = may_have_run
        super().__init__(text)


def _described(error: Exception) -> str:
    if isinstance(error, MasterNotFoundError):  # whose own message is a page long
        denied = "Authentication" in str(error)
        return "a Sentinel wants another sentinel_password" if denied else "no Sentinel names a server"
    return f"{type(error).__name__}: {error}"


def _evalsha(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)
