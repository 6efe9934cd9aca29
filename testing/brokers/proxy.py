"""A TCP proxy that spoils connections, as networks do."""

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

_CHUNK = 65536


class Spoil(Enum):
    """What becomes of a connection from the request on that a rule fits."""

    CUT = "the server runs the request; its reply is cut off after a few bytes by a reset"
    TRUNCATE = "the server runs the request; its reply is cut off before the last few bytes by a reset"
    SILENCE = "the server runs the request; nothing it answers arrives any more, and nothing is closed"
    HOLD = "the request doesn't reach the server before release()"


class Proxy:
    """Forwards to one server, from a port of its own.

    Args:
        host: Where the server is.
        port: Its port.
        delay_s: How long what is sent is under way, in either direction.
        bytes_per_s: How much gets through in a second, in either direction; None for all.
    """

    def __init__(self, host: str, port: int, *, delay_s: float = 0.0, bytes_per_s: int | None = None) -> None:
        self._target = (host, port)
        self._pace = _Pace(delay_s, bytes_per_s)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._rules: list[tuple[bytes, Spoil]] = []
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self.spoiled = 0
        """How many connections a rule was applied to."""
        self._run(self._accept)

    def spoil_next(self, needle: bytes, how: Spoil, *, times: int = 1) -> None:
        """Spoil the connection of each of the next requests that contain ``needle``."""
        with self._lock:
            self._rules += [(needle, how)] * times

    def forgive(self) -> None:
        """Spoil no further connection."""
        with self._lock:
            self._rules.clear()

    def release(self) -> None:
        """Send on what is held, however long ago its client gave up."""
        for connection in list(self._connections):
            connection.release()

    @property
    def held(self) -> int:
        """How many connections hold something back."""
        return sum(connection.spoil is Spoil.HOLD for connection in list(self._connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            connection.end()
        for thread in list(self._threads):
            thread.join()
        for connection in list(self._connections):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server, self._pace)
            self._connections.append(connection)
            self._run(self._upwards, connection)
            self._run(connection.downwards)

    def _upwards(self, connection: "_Connection") -> None:
        while data := connection.read(connection.client):
            with self._lock:
                for rule in self._rules:
                    if rule[0] in data:
                        self._rules.remove(rule)
                        connection.spoil = rule[1]
                        self.spoiled += 1
                        break
            connection.send_up(data)
        if connection.spoil is None:
            connection.end()

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


class _Pace:
    """How fast a connection is. What comes while something is under way follows it as one piece."""

    def __init__(self, delay_s: float, bytes_per_s: int | None) -> None:
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self.piece = _CHUNK if bytes_per_s is None else max(1, min(_CHUNK, bytes_per_s // 8))

    def hold_up(self, data: bytes) -> None:
        """Take the time that ``data`` takes."""
        time.sleep(self._delay_s + len(data) / (self._bytes_per_s or float("inf")))


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, pace: _Pace) -> None:
        self.client = client
        self.server = server
        self._pace = pace
        self.spoil: Spoil | None = None
        self._held: list[bytes] = []

    def read(self, end: socket.socket) -> bytes:
        try:
            data = end.recv(self._pace.piece)
        except OSError:
            return b""
        self._pace.hold_up(data)
        return data

    def send_up(self, data: bytes) -> None:
        if self.spoil is Spoil.HOLD:
            self._held.append(data)
        else:
            with suppress(OSError):
                self.server.sendall(data)

    def release(self) -> None:
        self.spoil = Spoil.SILENCE
        held, self._held = self._held, []
        for data in held:
            with suppress(OSError):
                self.server.sendall(data)

    def downwards(self) -> None:
        while data := self.read(self.server):
            with suppress(OSError):
                if self.spoil in (Spoil.CUT, Spoil.TRUNCATE):
                    self.client.sendall(data[:5] if self.spoil is Spoil.CUT else data[:-5])
                    # With this option a close sends a reset in place of an orderly end.
                    self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.end()
                    self.client.close()
                elif self.spoil is None:
                    self.client.sendall(data)
        self.end()

    def end(self) -> None:
        for half in (self.client, self.server):
            with suppress(OSError):
                half.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()
