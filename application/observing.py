"""Several observers as one, none of which can harm the work."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from logging import Logger
from typing import Any

from ..domain import Job
from ..ports import Attempt, Observer


class Observers(Observer):
    """Tells each of ``observers``; what one raises is logged, and costs no other anything."""

    def __init__(self, observers: Sequence[Observer], logger: Logger) -> None:
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
            except Exception:
                self._failed(observer)
        try:
            yield headers
        finally:
            why = sys.exc_info()
            try:
                stack.__exit__(*why)
            except Exception as error:
                if error is not why[1]:  # which goes its way by itself
                    self._logger.exception("an observer failed")

    def polled(self, queue: str, received: int) -> None:
        """Tell each."""
        for observer in self._observers:
            try:
                observer.polled(queue, received)
            except Exception:
                self._failed(observer)

    def started(self, queue: str, job: Job[Any]) -> None:
        """Tell each."""
        for observer in self._observers:
            try:
                observer.started(queue, job)
            except Exception:
                self._failed(observer)

    def ended(self, attempt: Attempt) -> None:
        """Tell each, in reverse, so that what was opened last is closed first."""
        for observer in reversed(self._observers):
            try:
                observer.ended(attempt)
            except Exception:
                self._failed(observer)

    def _failed(self, observer: Observer) -> None:
        self._logger.exception("%s failed", type(observer).__name__)
