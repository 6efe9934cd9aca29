"""The client of a web service, a process of its own: ``python -m benchmarks.web_load PORT``.

It runs the orders that it reads, and answers each with figures: an object of JSON a line. Some connections
are *busy*: they send a request, and the next once that is answered. Others *ping*, each ten times a second:
what is due while the answer before is awaited counts from when it was due. So a service that stops for a
second has slow pings for a second, not one.
"""

import asyncio
import json
import math
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

BODY = b'{"x": 1.5, "y": 2.5}'
HEAD = "{} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
CONTENT = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
REQUESTS = {
    "POST /jobs": (HEAD.format("POST /jobs") + CONTENT + "\r\n").encode() + BODY,
    "GET /ping": (HEAD.format("GET /ping") + "\r\n").encode(),
}
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
PERIOD_S = 0.1
"""How often each pinging connection pings."""
RETRY_S = 0.1
"""How long a busy connection waits after a failure."""
ConnectionT = TypeVar("ConnectionT", bound="Connection")


class Connection(asyncio.Protocol, ABC):
    """A connection that is kept alive, with one request under way at a time."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._due: deque[float] = deque()
        """When the requests were due that are unanswered; the first of them is under way."""
        self.taken_ms: list[float] = []
        self.failed = 0
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        is_good = head.startswith(b"HTTP/1.1 2")
        self.failed += not is_good
        self.taken_ms.append(self._age_ms(self._due.popleft()))
        if self._due:
            self._transport.write(self._request)
        self.answered(is_good)

    @abstractmethod
    def begin(self) -> None:
        """Begin to ask."""

    def answered(self, is_good: bool) -> None:
        """Go on after an answer."""

    def forget(self) -> None:
        """Begin to measure: forget what was so far."""
        self.taken_ms.clear()
        self.failed = 0

    def stop(self) -> None:
        """End the connection."""
        self._transport.abort()

    def _ask(self) -> None:
        """Send a request, at once or when those before are answered."""
        self._due.append(time.perf_counter())
        if len(self._due) == 1:
            self._transport.write(self._request)

    def _age_ms(self, due: float) -> float:
        return (time.perf_counter() - due) * 1000


class Busy(Connection):
    """Asks again and again."""

    def begin(self) -> None:
        self._ask()

    def answered(self, is_good: bool) -> None:
        if is_good:
            self._ask()
        else:
            asyncio.get_running_loop().call_later(RETRY_S, self._ask)


class Pinging(Connection):
    """Asks ten times a second, from ``delay_s`` seconds on."""

    def __init__(self, request: bytes, delay_s: float) -> None:
        super().__init__(request)
        self._delay_s = delay_s

    def begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._tick)

    def stop(self) -> None:
        """End the connection; what is unanswered counts with what it has taken so far."""
        super().stop()
        self._timer.cancel()
        self.taken_ms += map(self._age_ms, self._due)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._tick)
        self._ask()


async def run(
    port: int, busy: dict[str, int], pinging: int, before_s: float, seconds: float
) -> dict[str, dict[str, float]]:
    """Send requests, and measure them.

    Args:
        port: The service's.
        busy: How many connections send each request of :data:`REQUESTS`.
        pinging: How many connections ping.
        before_s: How long nothing is measured. What is under way then counts as a whole.
        seconds: How long it is measured from then on.

    Returns:
        The figures of each request, and those of "pings".
    """
    groups = {
        name: [await connect(port, Busy(REQUESTS[name])) for _ in range(count)]
        for name, count in busy.items()
    }
    ping = REQUESTS["GET /ping"]
    delays = [PERIOD_S * number / pinging for number in range(pinging)]
    groups["pings"] = [await connect(port, Pinging(ping, delay_s)) for delay_s in delays]
    every = [one for group in groups.values() for one in group]
    for one in every:
        one.begin()
    await asyncio.sleep(before_s)
    began = time.perf_counter()
    for one in every:
        one.forget()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    if any(one.is_lost for one in every):
        raise ConnectionError("the service closed a connection")
    for one in every:
        one.stop()
    return {name: figures(group, took) for name, group in groups.items() if group}


async def connect(port: int, connection: ConnectionT) -> ConnectionT:
    await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    return connection


def figures(group: Sequence[Connection], seconds: float) -> dict[str, float]:
    """Good answers a second, how many were none, and how long they took in milliseconds."""
    taken = sorted(value for one in group for value in one.taken_ms)
    failed = sum(one.failed for one in group)
    found = {"rate": (len(taken) - failed) / seconds, "failed": failed}
    for name, part in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        found[name] = taken[min(len(taken) - 1, int(len(taken) * part))] if taken else math.inf
    return found


def main() -> None:
    port = int(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(port, **json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
