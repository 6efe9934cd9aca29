"""The server for Prometheus: what strangers do to its port costs the worker little."""

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import Orchestrator
from mindtrace.jobs.cli import metrics_server
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.metrics import QueueCollector
from mindtrace.jobs.cli.metrics_server import MetricsServer
from mindtrace.jobs.cli.settings import Settings
from mindtrace.jobs.domain.errors import BackendUnavailable

Eventually = Callable[[Callable[[], object]], None]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Served:
    """A server that answers with what a function returns."""

    def __init__(self, stack: ExitStack, collect: Callable[[], bytes] = lambda: b"up 1\n") -> None:
        self.port = free_port()
        self.server = stack.enter_context(MetricsServer("127.0.0.1", self.port, "text/plain", collect))

    def get(self, path: str = "/metrics") -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            body: bytes = response.read()
            return body


def test_it_answers_and_ends(stack: ExitStack) -> None:
    served = Served(stack)

    assert served.get() == served.get("/") == served.get("/metrics?a=b") == b"up 1\n"
    with pytest.raises(urllib.error.HTTPError, match="404") as raised:
        served.get("/admin")
    raised.value.close()
    stack.close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        served.get()


def test_idle_connections_hold_no_thread_and_few_descriptors(
    stack: ExitStack, eventually: Eventually
) -> None:
    served = Served(stack)
    threads, files = threading.active_count(), open_files()
    for _ in range(200):
        stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))

    assert served.get() == b"up 1\n"
    eventually(lambda: open_files() <= files + 200 + 64)
    assert threading.active_count() <= threads + 1


def test_a_client_that_does_not_ask_is_hung_up_on(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_REQUEST_S", 0.05)
    served = Served(stack)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""


def test_requests_that_come_meanwhile_get_the_same_answer(stack: ExitStack, eventually: Eventually) -> None:
    """However many ask, one collects at a time."""
    go, begun = threading.Event(), []

    def collect() -> bytes:
        begun.append(time.monotonic())
        go.wait(60)
        return f"collections {len(begun)}\n".encode()

    served = Served(stack, collect)
    with ThreadPoolExecutor(5) as clients:
        answers = [clients.submit(served.get) for _ in range(5)]
        eventually(lambda: len(served.server._open) == 5)
        time.sleep(0.2)  # all have asked
        go.set()
        assert {answer.result(60) for answer in answers} == {b"collections 1\n"}
    assert served.get() == b"collections 2\n"


def test_an_error_is_answered_and_logged_and_tells_a_stranger_nothing(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    def collect() -> bytes:
        raise RuntimeError("redis://:swordfish@host")

    served = Served(stack, collect)
    with pytest.raises(urllib.error.HTTPError, match="500") as raised:
        served.get()
    assert b"swordfish" not in raised.value.read()
    raised.value.close()
    assert "the metrics can't be collected" in caplog.text


def test_a_port_that_is_taken_is_named(stack: ExitStack) -> None:
    served = Served(stack)

    with pytest.raises(BadUsage, match=rf"metrics on 127.0.0.1:{served.port}: .*; name another port or host"):
        stack.enter_context(MetricsServer("127.0.0.1", served.port, "text/plain", bytes))


def test_only_this_machine_is_served_unless_it_is_asked_for() -> None:
    assert Settings.model_fields["metrics_host"].default == "127.0.0.1"


def samples(collector: QueueCollector) -> dict[Any, float]:
    return {
        (sample.name.removeprefix("mindtrace_jobs_"), *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_queues_are_counted_and_an_outage_is_told(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    command("publish", "inspect", "--json", '{"path": "a"}', "--schema", "tasks:Inspector")
    collector = QueueCollector(orchestrator, ())
    found = samples(collector)
    assert found["backend_up",] == 1
    assert found["queue_jobs", "inspect", "ready"] == 1
    assert found["queue_jobs", "inspect", "in_flight"] == 0

    def away(*_: object) -> Any:
        raise BackendUnavailable("no answer")

    monkeypatch.setattr(type(orchestrator), "queues", away)
    assert samples(collector) == {("backend_up",): 0}
