"""Several observers as one, none of which can harm the work."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from logging import ERROR, Logger
from typing import Any

from ...domain import Job
from ...domain.errors import InvalidInput
from ...ports import Attempt, Observer, SlotOutcome
from ..failures.handler_errors import try_to_log
from ..process.graceful_stop import asks_to_stop


class Observers(Observer):
    """Tells each of ``observers``; what one raises is logged, and costs no other anything."""

    def __init__(self, observers: Sequence[Observer], logger: Logger) -> None:
        if not _are_observers(observers):
            raise InvalidInput(
                f"observers {observers!r:.80}: pass a list of observers, such as [PrometheusObserver(…)]"
            )
        self._observers = tuple(observers)
        self._logger = logger

    @contextmanager
    def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
        """Surround it with the context of each, and merge their headers."""
        headers: dict[str, str] = {}
        stack = ExitStack()
        for observer in self._observers:
            try:
                headers |= stack.enter_context(observer.publishing(queue, count))
            except Exception as error:
                self._failed(observer, error)
        try:
            yield headers
        finally:
            why = sys.exc_info()
            try:
                stack.__exit__(*why)
            except Exception as error:
                if error is not why[1]:  # which goes its way by itself
                    try_to_log(self._logger, ERROR, "an observer failed", traceback=True)

    def polled(self, queue: str, received: int) -> None:
        """Tell each."""
        for observer in self._observers:
            try:
                observer.polled(queue, received)
            except BaseException as error:
                self._failed(observer, error)

    def held_back(self, queue: str, count: int) -> None:
        """Tell each."""
        self._tell(lambda observer: observer.held_back(queue, count))

    def stood(self, queue: str, count: int) -> None:
        """Tell each."""
        self._tell(lambda observer: observer.stood(queue, count))

    def replaced(self, queue: str, count: int) -> None:
        """Tell each."""
        self._tell(lambda observer: observer.replaced(queue, count))

    def slot(self, queue: str, outcome: SlotOutcome) -> None:
        """Tell each."""
        self._tell(lambda observer: observer.slot(queue, outcome))

    def started(self, queue: str, job: Job[Any]) -> None:
        """Tell each."""
        for observer in self._observers:
            try:
                observer.started(queue, job)
            except BaseException as error:
                self._failed(observer, error)

    def ended(self, attempt: Attempt) -> None:
        """Tell each, in reverse, so that what was opened last is closed first."""
        for observer in reversed(self._observers):
            try:
                observer.ended(attempt)
            except BaseException as error:
                self._failed(observer, error)

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        """Tell each what happens rarely; what happens with each job has no call of a function more."""
        for observer in self._observers:
            try:
                tell(observer)
            except BaseException as error:
                self._failed(observer, error)

    def _failed(self, observer: Observer, error: BaseException) -> None:
        """Log an error of an observer's on the thread of a consumer, which has to go on."""
        if asks_to_stop(error):
            raise error
        try_to_log(self._logger, ERROR, "%s failed", type(observer).__name__, traceback=True)


def _are_observers(given: object) -> bool:
    # No iterator: a look at one would use it up.
    return isinstance(given, Collection) and all(isinstance(each, Observer) for each in given)
