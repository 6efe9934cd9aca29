"""The interface between this adapter and a connection of pika's."""

import select
import socket
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika import SelectConnection
from pika.channel import Channel
from pika.exceptions import ChannelWrongStateError
from pika.spec import Basic

from .frames import AROUND, Properties
from .pika_io_loop import PikaIOLoop

OnDelivery = Callable[[int, bool, Properties, bytes], None]
"""Told the delivery tag, whether it was delivered before, the properties and the body."""
OnConfirm = Callable[[int, bool, bool], None]
"""Told a message's number on its channel, whether all up to it are meant, and whether the server keeps it."""


class DriverConnection(SelectConnection):  # type: ignore[misc]
    """A connection of pika's with what the adapter needs beside it.

    :class:`.pika_private.PrivateConnection` serves it by pika's private parts. No message's properties may
    end the connection: callbacks get them as ``frames.read_properties`` has read them.
    """

    _unread: Any = None
    """Polls the socket; None where the system has no ``poll``."""

    @abstractmethod
    def consume(
        self,
        channel: Channel,
        queue: str,
        tag: str,
        prefetch: int,
        on_delivery: OnDelivery,
        callback: Callable[[Any], None],
    ) -> None:
        """Begin to consume.

        Args:
            channel: One of this connection.
            queue: Where from.
            tag: The consumer's; no other consumer of this connection has it.
            prefetch: How many unsettled deliveries it may have.
            on_delivery: Called for every message.
            callback: Called once the server has agreed.
        """

    @abstractmethod
    def cancel(self, channel: Channel, tag: str, callback: Callable[[Any], None]) -> None:
        """Cease to consume; what is under way already is delivered all the same.

        pika's way would send that back, and the broker would count it as a crash.
        """

    @abstractmethod
    def acknowledge(self, channel: Channel, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, or all up to it, with the next :meth:`flush`.

        Raises:
            ChannelWrongStateError: the channel isn't open.
        """

    def give_back(self, channel: Channel, tag: int) -> None:
        """Have a delivery delivered again.

        Raises:
            ChannelWrongStateError: the channel isn't open.
        """
        channel.basic_nack(tag, requeue=True)

    @abstractmethod
    def publish(
        self, channel: Channel, routing_key: str, properties: Properties, body: bytes, exchange: str = ""
    ) -> None:
        """Publish a message that must be routed, with the next :meth:`flush`.

        The default exchange routes it to the queue of that name.

        Raises:
            ChannelWrongStateError: the channel isn't open.
            ShortStringTooLong: the name or the id has more than 255 bytes; nothing was written.
            HeaderTooLong: the properties don't fit into a frame; nothing was written.
        """

    def confirm(self, channel: Channel, on_confirm: OnConfirm, callback: Callable[[Any], None]) -> None:
        """Have the server confirm what is published from now on.

        Args:
            channel: One of this connection.
            on_confirm: Called for every confirm.
            callback: Called once the server has agreed.
        """

        def confirmed(frame: Any) -> None:
            method = frame.method
            on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))

        channel.confirm_delivery(confirmed, callback=callback)

    @abstractmethod
    def forget_channel(self) -> None:
        """Pass on nothing more: the channel is gone, or going."""

    @abstractmethod
    def flush(self) -> None:
        """Write all frames that wait, now or in the next turn of the loop."""

    @property
    def longest_body_frame(self) -> int:
        """How many bytes fit into a frame."""
        return int(self.params.frame_max) - AROUND

    @classmethod
    def abandon(cls, attempt: Any, loop: PikaIOLoop) -> None:
        """Close the connection that an attempt, which was aborted, has half made, if any."""
        shut_down(loop.sockets)

    def watch(self) -> None:
        """Get ready to be asked for :attr:`has_unread`; called once it is open."""
        if hasattr(select, "poll"):  # not on Windows
            self._unread = select.poll()
            for file in self.ioloop.sockets:
                self._unread.register(file, select.POLLIN)

    @property
    def has_unread(self) -> bool:
        """Whether something may have come that wasn't read yet, be it the end; any thread may ask."""
        try:
            return self._unread is None or bool(self._unread.poll(0))
        except RuntimeError:  # another thread is looking this moment
            return True

    def drop(self) -> None:
        """Break it, as if the network did so: pika's own close waits for an answer, without end."""
        shut_down(self.ioloop.sockets)


def shut_down(files: list[int]) -> None:
    """Break the connections of sockets, whose owner notices that as an end of the stream."""
    for file in files:
        # Not TLS's own shutdown, after which what is here already would be read as it came: enciphered.
        with suppress(OSError), socket.fromfd(file, socket.AF_INET, socket.SOCK_STREAM) as plain:
            plain.shutdown(socket.SHUT_RDWR)


def require_open(channel: Channel) -> None:
    """Raise ChannelWrongStateError unless the channel is open."""
    if not channel.is_open:
        raise ChannelWrongStateError("the channel isn't open")
