"""An HTTP server for Prometheus that holds few connections, each for a short time, on one thread."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import ERROR
from typing import Self

from ..application.failures.handler_errors import try_to_log
from .errors import BadUsage
from .logs import WORKER

_CONNECTIONS = 64
"""The most that are open at once. One more closes the one that has been open for longest."""
_REQUEST_S = 5.0
"""How long a client may take to send its request, and again to read the answer."""
_REQUEST_BYTES = 16 * 1024
_STOP_S = 2.0
"""How long the end of the server is waited for."""


class MetricsServer:
    """Answers ``GET /metrics``, between ``with`` and its end.

    One collection runs at a time. Requests that come meanwhile get the same answer.

    Args:
        host: The address to listen on.
        port: The port.
        content_type: What ``collect`` returns.
        collect: Makes the body of an answer; called on a thread of its own.

    Raises:
        BadUsage: the address or the port can't be had.
    """

    def __init__(self, host: str, port: int, content_type: str, collect: Callable[[], bytes]) -> None:
        self._address = (host, port)
        self._content_type = content_type
        self._collect = collect
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._listening = threading.Event()
        self._refused: OSError | UnicodeError | None = None
        self._open: dict[asyncio.StreamWriter, None] = {}
        """The connections, the oldest first."""
        self._collecting: asyncio.Future[bytes] | None = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="mindtrace-jobs-metrics", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        if self._refused is not None:
            self._thread.join()
            host, port = self._address
            why = getattr(self._refused, "strerror", None) or self._refused
            raise BadUsage(f"metrics on {host}:{port}: {why}; name another port or host")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_S)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        host, port = self._address
        try:
            # asyncio accepts as many at once as the backlog allows.
            server = await asyncio.start_server(self._answer, host, port, limit=_REQUEST_BYTES, backlog=16)
        except (OSError, UnicodeError) as error:  # the latter: the host can't be a name, such as a..b
            self._refused = error
            return
        finally:
            self._listening.set()
        await self._stopping.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        while len(self._open) > _CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            answer = await self._answer_to(head)
            async with asyncio.timeout(_REQUEST_S):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)

    async def _answer_to(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"")
        if path not in (b"/", b"/metrics"):
            return _response("404 Not Found", "text/plain", b"the metrics are at /metrics\n")
        try:
            body = await self._collected()
        except Exception:
            try_to_log(WORKER, ERROR, "the metrics can't be collected", traceback=True)
            return _response("500 Internal Server Error", "text/plain", b"see the log\n")
        return _response("200 OK", self._content_type, body if method == b"GET" else b"")

    async def _collected(self) -> bytes:
        if self._collecting is None:
            future: asyncio.Future[bytes] = self._loop.create_future()
            # Noted once it has begun: where no thread can be started, the next request tries again.
            threading.Thread(target=self._collect_into, args=(future,), daemon=True).start()
            self._collecting = future
        return await asyncio.shield(self._collecting)

    def _collect_into(self, future: "asyncio.Future[bytes]") -> None:
        settle: Callable[[], None]
        try:
            settle = partial(future.set_result, self._collect())
        except Exception as error:
            settle = partial(future.set_exception, error)

        def done() -> None:
            self._collecting = None
            if not future.done():  # nor cancelled, as all who wait have gone
                settle()

        with suppress(RuntimeError):  # the server has ended meanwhile
            self._loop.call_soon_threadsafe(done)


def _response(status: str, content_type: str, body: bytes) -> bytes:
    fields = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body
