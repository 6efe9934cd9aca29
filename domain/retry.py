"""When a failed job runs again, and when it is dead."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

from .bounds import MAX_ATTEMPTS, check_int, check_seconds
from .errors import InvalidInput
from .signatures import why_not_called_with

DelayFunction: TypeAlias = Callable[[int, BaseException | None], float]
"""Returns seconds to wait, given the attempt that failed, from 1, and what its handler raised, or None."""
Errors: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed job runs again, and two separate budgets. By default the delays double, with full jitter.

    The error budget ``max_attempts`` counts failures of the handler. The job is dead once that many attempts
    have failed (RTY-1). The crash budget ``max_crashes`` counts deliveries whose worker seems to have
    died: it lost its connection, or its lease ended. The job is dead once that many deliveries were lost, so
    a job that kills its worker can't run for ever (RTY-3).

    Args:
        max_attempts: How often a job runs at most, 1 or more. A job's own ``max_attempts`` overrides it.
        base_delay_s: The longest delay before the second attempt, in seconds. It doubles with each attempt.
        max_delay_s: The longest delay before any attempt, in seconds.
        max_crashes: How many deliveries may be lost before the job is dead, 1 or more. A delivery that ended
            in a retry or a release doesn't count.
        jitter: Whether each of the doubling delays is drawn at random, from 0 to the longest. So jobs that
            failed together don't come back together.
        delays_s: Other delays, in place of the doubling ones, without jitter: seconds, the same each time; or
            a list of seconds, of which the last one repeats; or a function that returns seconds, given the
            number of the attempt that failed, from 1, and what its handler raised, or None if it raised
            nothing.
        retry_on: The exceptions after which a job runs again: a class or a tuple of classes. After any other
            it is dead at once. By default it runs again after all.
        dont_retry_on: The exceptions after which it is dead at once, in place of ``retry_on``. ``RetryLater``
            and ``Snooze`` go before both.

    Raises:
        InvalidInput: a value is out of range, or two of them contradict each other.
    """

    max_attempts: int = 3
    base_delay_s: float = 1.0
    max_delay_s: float = 300.0
    max_crashes: int = 5
    jitter: bool = True
    delays_s: float | Sequence[float] | DelayFunction | None = None
    retry_on: Errors = ()
    dont_retry_on: Errors = ()

    def __post_init__(self) -> None:
        check_int("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        check_int("max_crashes", self.max_crashes, 1, MAX_ATTEMPTS)
        check_seconds("base_delay_s", self.base_delay_s)
        check_seconds("max_delay_s", self.max_delay_s)
        if not isinstance(self.jitter, bool):
            raise InvalidInput(f"jitter {self.jitter!r:.80}: must be True or False")
        if self.delays_s is not None:
            object.__setattr__(self, "delays_s", self._checked_delays(self.delays_s))
        for name in ("retry_on", "dont_retry_on"):
            object.__setattr__(self, name, _checked_errors(name, getattr(self, name)))
        if self.retry_on and self.dont_retry_on:
            raise InvalidInput("retry_on and dont_retry_on: pass one; nothing but retry_on is retried then")

    def _checked_delays(self, delays_s: object) -> float | tuple[float, ...] | DelayFunction:
        doubling = {"base_delay_s", "max_delay_s", "jitter"}
        for each in fields(self):
            if each.name in doubling and getattr(self, each.name) != each.default:
                raise InvalidInput(f"{each.name} has no effect beside delays_s: pass one of them")
        if callable(delays_s):
            _check_arguments(delays_s)
            return delays_s
        if not isinstance(delays_s, Iterable) or isinstance(delays_s, str | bytes):
            return check_seconds("delays_s", delays_s)
        delays = tuple(check_seconds("delays_s", each) for each in delays_s)
        if not delays:
            raise InvalidInput("delays_s []: give at least one delay; max_attempts=1 retries nothing")
        if len(delays) >= self.max_attempts:
            raise InvalidInput(
                f"delays_s has {len(delays)} delays, and max_attempts={self.max_attempts} has "
                f"{self.max_attempts - 1} of them used: pass max_attempts={len(delays) + 1}"
            )
        return delays

    def retries(self, error: BaseException) -> bool:
        """Say whether a job whose handler raised ``error`` runs again, if attempts are left."""
        if self.retry_on:
            return isinstance(error, self.retry_on)
        return not isinstance(error, self.dont_retry_on)

    def runs_alone(self, crashes: int) -> bool:
        """Whether a job of which so many deliveries were lost runs while its consumer runs no other.

        After one, most jobs are innocent: somebody killed the worker, or another job did. After two, the job
        may have killed both. If ``max_crashes`` is 3 or less, one is enough: few deliveries are left.
        """
        return crashes >= min(2, max(1, self.max_crashes - 2))

    def longest_delay_s(self, attempt: int) -> float:
        """Return the longest of the doubling delays, in seconds, after ``attempt`` (from 1) has failed."""
        doublings = min(attempt - 1, 64)  # 2**64 s is past every cap; more would overflow a float
        return float(min(self.max_delay_s, self.base_delay_s * 2.0**doublings))

    def delay_s(self, attempt: int, *, error: BaseException | None = None) -> float:
        """Return the delay, in seconds, after ``attempt`` (from 1) has failed.

        Args:
            attempt: The attempt that failed.
            error: What its handler raised, for a function that decides by it.

        Raises:
            InvalidInput: the function of ``delays_s`` returned no such number. What it raises is passed on.
        """
        delays = self.delays_s
        if delays is None:
            return self.backoff_s(attempt)
        if isinstance(delays, float):
            return delays
        if isinstance(delays, tuple):
            return float(delays[min(attempt, len(delays)) - 1])
        assert callable(delays)  # noqa: S101 - as was checked
        return check_seconds("what delays_s returned", delays(attempt, error))

    def backoff_s(self, attempt: int, fraction: float | None = None) -> float:
        """Return the doubling delay after ``attempt``; with jitter, from 0 to :meth:`longest_delay_s`.

        Args:
            attempt: The attempt that failed.
            fraction: The place in that interval, 0 to 1; by default random.
        """
        if not self.jitter:
            return self.longest_delay_s(attempt)
        drawn = random.random() if fraction is None else fraction  # noqa: S311 - jitter, not a secret
        return drawn * self.longest_delay_s(attempt)


def _check_arguments(delays_s: Callable[..., object]) -> None:
    """Refuse a function that can't be called with an attempt and an error."""
    if (why := why_not_called_with(delays_s, 1, None)) is not None:
        raise InvalidInput(
            f"delays_s {delays_s!r:.80}: can't be called with the attempt and the error ({why}): "
            "write it as lambda attempt, error: …"
        )


def _checked_errors(name: str, errors: object) -> tuple[type[BaseException], ...]:
    """Return exceptions as ``isinstance`` takes them."""
    given = errors if isinstance(errors, tuple | list | set | frozenset) else (errors,)
    for each in given:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise InvalidInput(
                f"{name} {each!r:.80}: must be a class of exceptions, such as ValueError, or a tuple of them"
            )
    return tuple(given)
