"""The way to the server: connections, retries, and the one seam where the driver's errors become ours."""

import logging
import threading
from collections.abc import Callable, Sequence
from math import ceil, inf
from time import monotonic
from typing import Any

from redis import exceptions as driver
from redis.sentinel import MasterNotFoundError

from ...domain import RetryPolicy
from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, Closed, JobsError
from .connections import Argument, Ask, BrokenOff, Command, Connections
from .greeting import Greeting
from .scripts import Script, evalsha, evaluate

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
_IN_DOUBT = (BrokenOff, driver.InvalidResponse)
"""What leaves open whether the command ran."""
_DENIED = (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError)

Call = tuple[Script, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""


class OutOfReach(Exception):
    """The server couldn't be reached in time.

    Args:
        error: Why.
        may_have_run: Whether the command was sent, so that it may or may not have run.
    """

    def __init__(self, error: Exception, may_have_run: bool) -> None:
        self.error = error
        self.may_have_run = may_have_run
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
        retry_timeout_s: Seconds to keep trying before a call fails.
        logger: Where an outage is told: once when it begins, once when it ends.
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
    ) -> None:
        self._address = address
        self._commands = commands
        self._waits = waits
        self._owner = owner
        self.retry_timeout_s = retry_timeout_s
        self._logger = logger
        self.restore: Callable[[], None] = lambda: None
        """Called when a queue isn't there, which is then looked for once more."""
        self._greeting = Greeting(address)
        commands.greet = waits.greet = self._greet
        self._outage: Exception | None = None
        """What the first call met that couldn't reach the server; None while it can be reached."""
        self._out_since = 0.0
        self._broke = False
        """Whether ever a call broke off: what it sent may be on its way still, however late it is."""
        self._ends = inf
        """When to begin no more calls."""
        self._closing = threading.Event()

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        retry_timeout_s: float | None = None,
    ) -> Any:
        """Run a script, and try again until it answers or patience ends.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            retry_timeout_s: Seconds to keep trying, in place of the link's; 0 for one try, less for none.

        Raises:
            OutOfReach: the server couldn't be reached for as long as patience lasts.
            BackendError: the server refused.
            Closed: the link was closed.
        """
        return self._persist(
            evaluate, self._commands.ask, script, keys, arguments, retry_timeout_s=retry_timeout_s
        )

    def command(self, *words: Argument, retry_timeout_s: float | None = None) -> Any:
        """Run a command that may run twice; otherwise as :meth:`run`."""
        return self._persist(self._commands.ask_parsed, *words, retry_timeout_s=retry_timeout_s)

    def resume(self, keys: Sequence[str], lease_ms: int) -> None:
        """Keep outages from ending the leases of a queue, from now on; otherwise as :meth:`run`."""
        self._persist(self._greeting.resume, self._commands.ask, keys, lease_ms)

    def forget(self, keys: Sequence[str]) -> None:
        """Do that no more."""
        self._greeting.forget(keys)

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
            came, *answers = self._waits.ask(wait) if then is None else self._waits.ask(wait, evalsha(*then))
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

    def end_soon(self) -> None:
        """Have all calls from now on end within one patience, together."""
        self._ends = monotonic() + self.retry_timeout_s

    @property
    def left_s(self) -> float:
        """How many seconds are left of that time."""
        return self._ends - monotonic()

    def close(self) -> None:
        """Drop every connection; calls under way and to come raise Closed."""
        self._closing.set()
        self._commands.close()
        self._waits.close()

    def _greet(self, ask: Ask) -> None:
        self._greeting(ask, 0.0 if self._outage is None else monotonic() - self._out_since)

    def _persist(
        self, call: Callable[..., Any], *arguments: Any, retry_timeout_s: float | None = None
    ) -> Any:
        now = monotonic()
        give_up = min(
            now + (self.retry_timeout_s if retry_timeout_s is None else retry_timeout_s), self._ends
        )
        if give_up < now:
            raise self.too_late()
        tries = 0
        may_have_run = looked_again = False
        while True:
            if self._closing.is_set():
                raise Closed(f"this {self._owner} is closed")
            try:
                answer = call(*arguments)
            except JobsError:
                raise
            except Exception as error:
                may_have_run = may_have_run or isinstance(error, _IN_DOUBT)
                if str(error).startswith("NOQUEUE") and not looked_again:
                    looked_again = True
                    self.restore()
                    continue
                passing = isinstance(error, _PASSING) or str(error).startswith(_PASSING_REFUSALS)
                if isinstance(error, _DENIED) or not passing:
                    raise self._translated(error, may_have_run) from error
                tries += 1
                self._tell_out(error)
                delay_s = _BACKOFF.delay_s(tries)
                if monotonic() + delay_s >= give_up:
                    raise OutOfReach(error, may_have_run) from error
                self._closing.wait(delay_s)
            else:
                self._tell_back()
                return answer

    def too_late(self) -> OutOfReach:
        """What to raise where no time is left to send anything."""
        waits = TimeoutError("no answer came to the calls before this one")
        return OutOfReach(self._outage or waits, may_have_run=False)

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
        # Whoever answers next is to be greeted: it may have refused for long, or be the successor of one that
        # was demoted.
        self._commands.drop_idle()
        self._waits.drop_idle()
        if self._outage is None:
            self._outage, self._out_since = error, monotonic()
            self._logger.warning(
                "Redis at %s is out of reach, trying again: %s", self._address, _described(error)
            )

    def _tell_back(self) -> None:
        if self._outage is not None:
            self._outage = None
            self._logger.warning("Redis at %s is back", self._address)


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
