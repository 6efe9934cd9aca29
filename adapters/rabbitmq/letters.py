"""Going through the dead letters: a look that disturbs nothing, or a way out for some."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, sleep
from typing import NamedTuple

from pika.channel import Channel
from pika.spec import Basic

from ...domain.errors import BackendUnavailable
from .admin import DeadCount
from .frames import Properties
from .link import Link, Locked
from .topology import Names
from .wire import Answer, Line, LineBroken

_STEP_S = 0.05
_MOST_AT_ONCE = 65535
"""The largest prefetch that AMQP has room for."""


class Letter(NamedTuple):
    """A dead letter in hand."""

    tag: int
    properties: Properties
    body: bytes


class _Reader(Line):
    """The line that dead letters are read by; whatever isn't settled when it closes is back in its place."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.heart, link.servers)
        self.letters: deque[Letter] = deque()
        self.broken: BaseException | None = None

    def read(self, part: str, at_once: int, channel: Channel, answer: Answer) -> None:
        def on_letter(_channel: Channel, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
            self.letters.append(Letter(method.delivery_tag, properties, body))

        # One subscription has no more than so many in hand, and "without limit" is 2000 to a quorum queue.
        channel.basic_qos(prefetch_count=min(at_once, _MOST_AT_ONCE), callback=lambda _: None)
        for _ in range(0, at_once - _MOST_AT_ONCE, _MOST_AT_ONCE):
            channel.basic_consume(part, on_letter, callback=lambda _: None)
        channel.basic_consume(part, on_letter, callback=answer)

    def drop(self, tags: list[int], channel: Channel, answer: Answer) -> None:
        for tag in tags:
            channel.basic_ack(tag)
        channel.basic_qos(prefetch_count=1, callback=answer)

    def has_news(self) -> bool:
        """Whether a letter is here, or none will come any more."""
        return bool(self.letters) or self.broken is not None

    def on_broken(self, error: BaseException) -> None:
        self.broken = error


class DeadLetters:
    """The dead letters of one client's queues.

    Reading takes every letter out of the queue for a moment, as there is no other way to see one, and puts
    all of them back in their order. So that two readers don't take letters from each other's sight, a reader
    holds a queue of its own, which no other can declare meanwhile. The broker may let go of that one before
    it puts back what a reader had whose connection broke; so the next waits for both.

    Args:
        link: What the lines share.
        count: Counts the letters of a queue.
    """

    def __init__(self, link: Link, count: Callable[[Names], DeadCount]) -> None:
        self._link = link
        self._count = count
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def reading(self, names: Names, *, at_once: int = 0) -> Iterator["Reading"]:
        """Go through the letters that are there now, oldest first.

        Args:
            names: The queue.
            at_once: How many to have in hand unsettled; 0 is all.
        """
        with self._one_at_a_time:
            line = _Reader(self._link)
            try:
                yield Reading(self._link, line, names, self._lock(line, names), at_once)
            finally:
                line.close()

    def _lock(self, line: _Reader, names: Names) -> int:
        """Keep others out, and say how many letters there are."""

        def act(channel: Channel, answer: Answer) -> None:
            channel.queue_declare(names.reading, exclusive=True, auto_delete=True, callback=answer)

        give_up = monotonic() + self._link.retry_timeout_s
        while True:
            with suppress(Locked):
                self._link.persist(partial(line.ask, act))
                line.broken = None  # what broke before had nothing in hand
                count = self._count(names)
                if not count.some_in_hand:
                    return count.ready
            if monotonic() >= give_up:
                raise BackendUnavailable(
                    f"queue {names.queue!r}: somebody else is going through its dead letters"
                )
            sleep(_STEP_S)


class Reading:
    """One way through the dead letters of a queue; where the connection breaks, LineBroken ends it."""

    def __init__(self, link: Link, line: _Reader, names: Names, count: int, at_once: int) -> None:
        self._link = link
        self._line = line
        self._names = names
        self._count = count
        self._at_once = at_once

    def __iter__(self) -> Iterator[Letter]:
        if not self._count:
            return
        line = self._line
        self._ask(partial(line.read, self._names.dead, self._at_once or self._count))
        for _ in range(self._count):
            line.io.wait(line.has_news, self._link.retry_timeout_s)
            if not line.letters:
                raise LineBroken(line.broken or TimeoutError("no dead letter came"))
            yield line.letters.popleft()

    def drop(self, letters: list[Letter]) -> None:
        """Remove letters for good."""
        self._ask(partial(self._line.drop, [letter.tag for letter in letters]))

    def _ask(self, act: Callable[[Channel, Answer], None]) -> None:
        if self._line.broken is not None:  # another connection would know nothing of these letters
            raise LineBroken(self._line.broken)
        self._line.ask(act, self._link.retry_timeout_s)
