"""A TCP proxy that delays, cuts or silences connections."""

import re
import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import Self

_CHUNK = 65536


class Disruption(Enum):
    """What happens to a connection from the request on that matches a rule."""

    CUT = "the server runs the request; its reply is cut off after a few bytes by a reset"
    TRUNCATE = "the server runs the request; its reply is cut off before the last few bytes by a reset"
    SILENCE = "the server runs the request; nothing it answers arrives any more, and nothing is closed"
    LOSE = "the request never reaches the server, and the connection is reset"
    HOLD = "the request doesn't reach the server before release()"


class Proxy:
    """Forwards to one server, from a port of its own.

    Args:
        host: Where the server is.
        port: Its port.
        delay_s: Seconds that each piece of data takes, in either direction.
        late_s: Seconds after which the server learns that a client's connection ended.
        bytes_per_s: The bandwidth in either direction; None for no limit.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        delay_s: float = 0.0,
        late_s: float = 0.0,
        bytes_per_s: int | None = None,
    ) -> None:
        self._target = (host, port)
        self._throttle = _Throttle(delay_s, bytes_per_s)
        self._late_s = late_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._rules: list[tuple[re.Pattern[bytes], Disruption]] = []
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self.disrupted = 0
        """How many connections a rule was applied to."""
        self._run(self._accept)

    def disrupt_next(self, needle: bytes | re.Pattern[bytes], how: Disruption, *, times: int = 1) -> None:
        """Disrupt the connection of each of the next requests that contain ``needle``."""
        pattern = re.compile(re.escape(needle)) if isinstance(needle, bytes) else needle
        with self._lock:
            self._rules += [(pattern, how)] * times

    def stop_disrupting(self) -> None:
        """Disrupt no further connection."""
        with self._lock:
            self._rules.clear()

    def release(self) -> None:
        """Forward the requests that are held, even if their clients have given up."""
        for connection in list(self._connections):
            connection.release()

    def redirect(self, host: str, port: int) -> None:
        """Cut all connections, and forward those to come to another server."""
        self._target = (host, port)
        for connection in list(self._connections):
            connection.end()

    @property
    def held(self) -> int:
        """How many connections hold requests back."""
        return sum(connection.disruption is Disruption.HOLD for connection in list(self._connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut all connections, and take no more."""
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
            connection = _Connection(client, server, self._throttle)
            self._connections.append(connection)
            self._run(self._forward_requests, connection)
            self._run(connection.forward_replies)

    def _forward_requests(self, connection: "_Connection") -> None:
        while data := connection.read(connection.client):
            with self._lock:
                for rule in self._rules:
                    if rule[0].search(data):
                        self._rules.remove(rule)
                        connection.disruption = rule[1]
                        self.disrupted += 1
                        break
            if connection.disruption is Disruption.LOSE:
                connection.reset()
                return
            connection.send_request(data)
        if connection.disruption is None:
            time.sleep(self._late_s)
            connection.end()

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


class _Throttle:
    """The speed of a connection. Data that arrives while a piece is delayed follows as one piece."""

    def __init__(self, delay_s: float, bytes_per_s: int | None) -> None:
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self.piece = _CHUNK if bytes_per_s is None else max(1, min(_CHUNK, bytes_per_s // 8))

    def delay(self, data: bytes) -> None:
        """Wait as long as ``data`` takes."""
        time.sleep(self._delay_s + len(data) / (self._bytes_per_s or float("inf")))


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, throttle: _Throttle) -> None:
        self.client = client
        self.server = server
        self._throttle = throttle
        self.disruption: Disruption | None = None
        self._held: list[bytes] = []

    def read(self, end: socket.socket) -> bytes:
        try:
            data = end.recv(self._throttle.piece)
        except OSError:
            return b""
        self._throttle.delay(data)
        return data

    def send_request(self, data: bytes) -> None:
        if self.disruption is Disruption.HOLD:
            self._held.append(data)
        else:
            with suppress(OSError):
                self.server.sendall(data)

    def release(self) -> None:
        self.disruption = Disruption.SILENCE
        held, self._held = self._held, []
        for data in held:
            with suppress(OSError):
                self.server.sendall(data)

    def forward_replies(self) -> None:
        while data := self.read(self.server):
            with suppress(OSError):
                if self.disruption in (Disruption.CUT, Disruption.TRUNCATE):
                    self.client.sendall(data[:5] if self.disruption is Disruption.CUT else data[:-5])
                    self.reset()
                elif self.disruption is None:
                    self.client.sendall(data)
        self.end()

    def reset(self) -> None:
        # With this option a close sends a reset in place of an orderly end.
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()
        self.client.close()

    def end(self) -> None:
        for half in (self.client, self.server):
            with suppress(OSError):
                half.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()
