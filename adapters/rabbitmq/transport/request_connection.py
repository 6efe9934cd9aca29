"""A connection for requests that the broker may refuse."""

from functools import partial
from typing import Any

from pika.channel import Channel

from ....ports.signal_errors import raised_by_handler
from .broker import Broker
from .connection import Connection
from .errors import ConnectionBroken
from .request import Request

_IDLE_CHANNELS = 4
"""How many channels are kept for the requests to come: more requests than that are rarely made at once."""


class RequestConnection(Connection):
    """A connection that gives each request a channel to itself, and keeps some for the next.

    The broker refuses a request by closing its channel. On a shared one that would fail the requests of other
    threads, with an error that isn't theirs. So an action replies with the answer to the last that it sends.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._idle: list[Channel] = []
        self._requests: dict[Channel, Request] = {}
        """By the channel that each has."""

    def on_channel_lost(self, error: BaseException) -> None:
        """Forget the channels: the connection is gone."""
        self._idle.clear()

    def _forget(self, error: BaseException) -> None:
        super()._forget(error)
        self._requests.clear()  # their channels don't say any more that they are closed

    def _send(self, channel: Channel, request: Request) -> None:
        if request.is_abandoned:
            return
        self._sent.add(request)
        if self._idle:
            self._act(request, self._idle.pop())
            return
        try:
            channel.connection.channel(on_open_callback=partial(self._opened, request))
            self._flush()
        except Exception as error:  # a connection that is closing, mostly
            if raised_by_handler(error):
                raise
            self._fail(request, error)

    def _opened(self, request: Request, channel: Channel) -> None:
        channel.add_on_close_callback(self._own_channel_closed)
        self._act(request, channel)

    def _act(self, request: Request, channel: Channel) -> None:
        self._requests[channel] = request
        try:
            request.action(channel, partial(self._reply, channel))
            self._flush()
        except Exception as error:  # a channel that is closing, mostly
            if raised_by_handler(error):
                raise
            self._requests.pop(channel, None)
            self._fail(request, error)
            if channel.is_open:
                channel.close()

    def _reply(self, channel: Channel, value: Any) -> None:
        if (request := self._requests.pop(channel, None)) is None:
            return
        request.answer(value)  # before it is forgotten: an interrupt between the two leaves nobody waiting
        self._sent.discard(request)
        if channel.is_open and len(self._idle) < _IDLE_CHANNELS:
            self._idle.append(channel)
        elif channel.is_open:
            channel.close()

    def _own_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel in self._idle:
            self._idle.remove(channel)
        if (request := self._requests.pop(channel, None)) is not None:
            self._fail(request, reason)

    def _fail(self, request: Request, error: BaseException) -> None:
        request.fail(ConnectionBroken(error))
        self._sent.discard(request)
