"""The server for Prometheus: what strangers do to its port costs the worker little."""

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from background import Background
from conditions import LIMIT_S
from mindtrace.jobs import AnyJSON, JobInput, JobSchema, Limit, Orchestrator, Rate
from mindtrace.jobs.application.limits.keys import prefix_of
from mindtrace.jobs.cli import metrics_server
from mindtrace.jobs.cli.errors import BadUsage
from mindtrace.jobs.cli.exporter import QueueCollector
from mindtrace.jobs.cli.limit_metrics import LimitCollector
from mindtrace.jobs.cli.metrics_server import MetricsServer
from mindtrace.jobs.cli.settings import Settings
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Message, Place


class Image(JobInput):
    path: str


Eventually = Callable[[Callable[[], object]], None]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """What ends the servers of a test, which have patience: a client on a busy machine may be slow."""
    for limit in ("_REQUEST_S", "_STOP_S"):
        monkeypatch.setattr(metrics_server, limit, LIMIT_S)
    with ExitStack() as stack:
        yield stack


class Served:
    """A server that answers with what a function returns."""

    def __init__(self, stack: ExitStack, collect: Callable[[], bytes] = lambda: b"up 1\n") -> None:
        with ExitStack() as tries:
            while True:
                self.port = free_port()
                with suppress(BadUsage):  # another process was faster
                    tries.enter_context(MetricsServer("127.0.0.1", self.port, "text/plain", collect))
                    break
            stack.push(tries.pop_all())

    def get(self, path: str = "/metrics") -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=LIMIT_S) as response:
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
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""


def test_requests_that_come_meanwhile_get_the_same_answer(
    stack: ExitStack, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask, one collects at a time."""
    go, begun, asked = threading.Event(), [], []
    collected = MetricsServer._collected

    async def note_and_wait(server: MetricsServer) -> bytes:
        asked.append(server)
        return await collected(server)

    def collect() -> bytes:
        begun.append(time.monotonic())
        go.wait(LIMIT_S)
        return f"collections {len(begun)}\n".encode()

    monkeypatch.setattr(MetricsServer, "_collected", note_and_wait)
    served = Served(stack, collect)
    with Background() as clients:
        answers = [clients.submit(served.get) for _ in range(5)]
        eventually(lambda: len(asked) == 5)
        go.set()
        assert {answer.result(LIMIT_S) for answer in answers} == {b"collections 1\n"}
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


@pytest.mark.parametrize("host", ["a..b", "no-such-host.invalid"])
def test_a_host_that_does_not_exist_is_named(host: str) -> None:
    """A name that can't be one isn't even looked up."""
    with pytest.raises(BadUsage, match=rf"metrics on {host}:9105: .*; name another port or host"):
        MetricsServer(host, 9105, "text/plain", bytes).__enter__()


def test_only_this_machine_is_served_unless_it_is_asked_for() -> None:
    assert Settings.model_fields["metrics_host"].default == "127.0.0.1"


def samples(collector: QueueCollector | LimitCollector) -> dict[Any, float]:
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


def test_it_is_told_for_how_long_the_next_job_has_waited(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of the broker. A job that is delayed doesn't wait yet."""
    schema = JobSchema("inspect", JobInput)
    orchestrator.register(schema)
    orchestrator.publish(schema, {}, delay_s=3600)
    collector = QueueCollector(orchestrator, ())
    waiting = ("queue_waiting_seconds", "inspect")
    assert samples(collector)[waiting] == 0

    before_s, _, after_s = time.time(), orchestrator.publish(schema, {}), time.time()
    monkeypatch.setattr(collector._times, "_clock", lambda: after_s + 90)
    assert 89.99 < samples(collector)[waiting] < 90.01 + after_s - before_s
    monkeypatch.setattr(collector._times, "_clock", lambda: before_s - 90)
    assert samples(collector)[waiting] == 0, "the publisher's clock is ahead"

    orchestrator.backend.purge("inspect")
    orchestrator.backend.publish("inspect", [Message("foreign", b"no job")])
    assert waiting not in samples(collector)


def test_where_no_job_can_be_looked_at_nobody_is_told_how_long_it_waits(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    """As on RabbitMQ."""
    command("publish", "inspect", "--json", '{"path": "a"}', "--schema", "tasks:Inspector")
    known = orchestrator.backend.capabilities
    monkeypatch.setattr(
        type(orchestrator.backend), "capabilities", property(lambda _: replace(known, first_ready=False))
    )
    found = samples(QueueCollector(orchestrator, ()))
    assert found["queue_jobs", "inspect", "ready"] == 1
    assert ("queue_waiting_seconds", "inspect") not in found


def test_a_queue_that_is_not_declared_hides_no_other(orchestrator: Orchestrator, command: Any) -> None:
    command("publish", "inspect", "--json", '{"path": "a"}', "--schema", "tasks:Inspector")
    collector = QueueCollector(orchestrator, ("nobody", "inspect"))

    assert samples(collector)["backend_up",] == 1
    assert samples(collector)["queue_jobs", "inspect", "ready"] == 1


def test_limits_are_told_with_their_use_and_no_key_is_a_label(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, by_path = Limit(4, name="gpu"), Limit(2, by="path")
    orchestrator.register(JobSchema("detect", AnyJSON, concurrency_limit=gpu, rate=Rate(30, per_s=60)))
    orchestrator.register(JobSchema("frames", Image, concurrency_limit=by_path))
    orchestrator.change_limit("gpu", 3)
    keys = [prefix_of("detect", gpu)] * 5 + [f"{prefix_of('frames', by_path)}{n}" for n in (1, 1, 1, 2, 3)]
    places = [Place(key, 3 if n < 5 else 2, f"job-{n}") for n, key in enumerate(keys)]
    orchestrator.backend.coordination.take_places(places, ttl_s=600.0)

    assert samples(LimitCollector(orchestrator)) == {
        ("limit_allowed", "gpu", ""): 3,
        ("limit_used", "gpu", ""): 3,
        ("limit_waiting", "gpu", ""): 2,
        ("limit_allowed", "", "frames"): 2,
        ("limit_used", "", "frames"): 4,
        ("limit_waiting", "", "frames"): 1,
        ("limit_used_by_busiest_key", "", "frames"): 2,
        ("rate_allowed_per_second", "", "detect"): 0.5,
    }

    def away(*_: object, **__: object) -> Any:
        raise BackendUnavailable("no answer")

    monkeypatch.setattr(type(orchestrator), "limits", away)
    assert samples(LimitCollector(orchestrator)) == {}


def test_where_no_thread_can_be_started_a_request_fails_and_the_next_one_is_answered(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was waited for that thread for ever."""
    served = Served(stack)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(metrics_server.threading.Thread, "start", refuse)
        with pytest.raises(urllib.error.HTTPError, match="500"):
            served.get()
    assert served.get() == b"up 1\n"
