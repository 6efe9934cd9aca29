"""The fallback: the same connection by pika's public names alone, for releases whose private ones differ.

It fetches jobs one by one (``basic.get``). A subscription won't do: pika sends back what crosses a
cancellation, and the broker counts that as a crash. An idle consumer looks for a job every 20 ms.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika import BasicProperties, spec
from pika.channel import Channel

from .driver_connection import DriverConnection, OnDelivery
from .frames import Properties, check_properties, pika_properties
from .frames import read_properties as read_any
from .pika_log import driving

_POLL_S = 0.02
"""How long to wait before an empty queue is asked again."""


class _Fetcher:
    """A consumer that fetches its jobs."""

    def __init__(
        self, queue: str, prefetch: int, on_delivery: OnDelivery, on_answer: Callable[[Any], None]
    ) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.on_delivery = on_delivery
        self.on_answer: Callable[[Any], None] | None = on_answer
        """Called with the next answer of the server."""
        self.unsettled = 0
        self.is_cancelled = False

    @property
    def wants_more(self) -> bool:
        return not self.is_cancelled and self.unsettled < self.prefetch

    def answered(self) -> None:
        callback, self.on_answer = self.on_answer, None
        if callback is not None:
            callback(None)


class PublicConnection(DriverConnection):
    """Fetches, acknowledges and publishes as pika's documentation has it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        read_tolerantly()
        self._fetchers: dict[str, _Fetcher] = {}
        self._unsettled: dict[int, _Fetcher] = {}
        """By delivery tag, in the order of delivery."""
        self._fetching: _Fetcher | None = None
        """Whose request is under way: a channel has one at a time."""
        self._is_waiting = False
        """Whether the queue is to be asked again after a pause."""
        self._channel: Channel | None = None
        super().__init__(*args, **settings)

    def consume(
        self,
        channel: Channel,
        queue: str,
        tag: str,
        prefetch: int,
        on_delivery: OnDelivery,
        callback: Callable[[Any], None],
    ) -> None:
        if channel is not self._channel:
            self._channel, self._fetching = channel, None
            channel.add_callback(lambda _frame: self._on_empty(channel), [spec.Basic.GetEmpty], False)
        self._fetchers[tag] = _Fetcher(queue, prefetch, on_delivery, callback)
        self._fetch()

    def cancel(self, channel: Channel, tag: str, callback: Callable[[Any], None]) -> None:
        fetcher = self._fetchers.pop(tag, None)
        if fetcher is not None:
            fetcher.is_cancelled = True
        if fetcher is not None and fetcher is self._fetching:
            fetcher.on_answer = callback
        else:
            callback(None)

    def acknowledge(self, channel: Channel, tag: int, *, multiple: bool = False) -> None:
        channel.basic_ack(tag, multiple=multiple)
        self._settled([one for one in self._unsettled if one <= tag] if multiple else [tag])

    def give_back(self, channel: Channel, tag: int) -> None:
        super().give_back(channel, tag)
        self._settled([tag])

    def publish(
        self, channel: Channel, routing_key: str, properties: Properties, body: bytes, exchange: str = ""
    ) -> None:
        check_properties(properties, self.longest_body_frame)
        channel.basic_publish(exchange, routing_key, body, pika_properties(properties), mandatory=True)

    def forget_channel(self) -> None:
        self._fetchers.clear()
        self._unsettled.clear()
        self._fetching = self._channel = None

    def flush(self) -> None:
        pass  # the next turn of the loop writes

    def _fetch(self) -> None:
        """Ask for the next job, unless a request is under way, or nobody wants one."""
        channel = self._channel
        if channel is None or self._fetching is not None or not channel.is_open:
            return
        for fetcher in self._fetchers.values():
            if fetcher.wants_more:
                self._fetching = fetcher
                channel.basic_get(fetcher.queue, self._on_message)
                return

    def _on_message(self, channel: Channel, method: Any, properties: Properties, body: bytes) -> None:
        fetcher = self._fetching
        if fetcher is None or channel is not self._channel:
            return
        self._fetching = None
        fetcher.unsettled += 1
        self._unsettled[method.delivery_tag] = fetcher
        fetcher.on_delivery(method.delivery_tag, method.redelivered, properties, body)
        self._answered(fetcher)
        self._fetch()

    def _on_empty(self, channel: Channel) -> None:
        fetcher = self._fetching
        if fetcher is None or channel is not self._channel:
            return
        self._fetching = None
        self._answered(fetcher)
        if self._fetchers and not self._is_waiting:
            self._is_waiting = True
            self.ioloop.call_later(_POLL_S, self._ask_again)

    def _answered(self, fetcher: _Fetcher) -> None:
        """Tell all who wait for the server: one whose turn hasn't come may have to wait for ever."""
        fetcher.answered()
        for other in list(self._fetchers.values()):
            other.answered()

    def _ask_again(self) -> None:
        self._is_waiting = False
        self._fetch()

    def _settled(self, tags: list[int]) -> None:
        for tag in tags:
            if (fetcher := self._unsettled.pop(tag, None)) is not None:
                fetcher.unsettled -= 1
        with suppress(Exception):  # the channel is closing
            self._fetch()


class _ReadProperties(BasicProperties):  # type: ignore[misc]
    """Properties that nothing in them can keep from being read, on connections of ours."""

    fault = ""

    def decode(self, encoded: bytes, offset: int = 0) -> BasicProperties:
        if not driving.depth:  # a connection of the program's own
            return super().decode(encoded, offset)
        read = read_any(encoded, offset, len(encoded))
        self.message_id, self.priority, self.headers, self.fault = read
        return self


def read_tolerantly() -> None:
    """Have pika read messages' properties by our reader; on other connections it reads them as before."""
    spec.props[BasicProperties.INDEX] = _ReadProperties
