"""What the management plugin answers is read, or is no answer; nothing of it raises anything else."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from pika import ConnectionParameters, PlainCredentials

from mindtrace.jobs.adapters.rabbitmq.diagnosis.management import NoAnswer, policies_of, queues_of
from mindtrace.jobs.adapters.rabbitmq.diagnosis.policies import Policy

USER_POLICY = {
    "vhost": "v/1",
    "name": "p",
    "pattern": "^mtj:",
    "apply-to": "queues",
    "definition": {"max-length": 1},
    "priority": 3,
}


class Plugin(BaseHTTPRequestHandler):
    """Answers as it is told."""

    status = 200
    answers: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        body = self.answers.get(self.path.partition("?")[0], b"")
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nowhere."""


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Plugin]]:
    monkeypatch.setattr(Plugin, "answers", {})
    monkeypatch.setattr(Plugin, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Plugin) as server:
        monkeypatch.setattr(Plugin, "port", server.server_port, raising=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Plugin
        server.shutdown()
        thread.join()


def beside(plugin: type[Plugin]) -> ConnectionParameters:
    """How AMQP would reach the server whose plugin this is."""
    port: int = plugin.port  # type: ignore[attr-defined]
    return ConnectionParameters("127.0.0.1", port - 10_000, "v/1", PlainCredentials("u", "pässword"))


def test_policies_and_queues_are_read(plugin: type[Plugin]) -> None:
    """Those of operators too; with the user and the password that AMQP has."""
    plugin.answers = {
        "/api/policies/v%2F1": json.dumps([USER_POLICY]).encode(),
        "/api/operator-policies/v%2F1": json.dumps([USER_POLICY | {"name": "op"}]).encode(),
        "/api/queues/v%2F1": json.dumps({"items": [{"name": "mtj:n.1/a", "type": "quorum"}]}).encode(),
    }
    assert policies_of(beside(plugin)) == [
        Policy("p", False, "^mtj:", "queues", 3, {"max-length": 1}),
        Policy("op", True, "^mtj:", "queues", 3, {"max-length": 1}),
    ]
    assert queues_of(beside(plugin), "mtj:n.1/") == {"mtj:n.1/a": "quorum"}
    assert {who for _, who in plugin.asked} == {f"Basic {b64encode('u:pässword'.encode()).decode()}"}
    assert r"name=%5Emtj%3An%5C.1%2F&" in plugin.asked[-1][0], "the name is no pattern"


@pytest.mark.parametrize("status", [401, 404, 301, 500])
def test_whom_the_plugin_does_not_tell_gets_no_answer(plugin: type[Plugin], status: int) -> None:
    plugin.status = status
    try:
        for ask in (lambda: policies_of(beside(plugin)), lambda: queues_of(beside(plugin), "mtj:n/")):
            with pytest.raises(NoAnswer, match=str(status)):
                ask()
    finally:
        plugin.status = 200


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b"5", b"null", b"[5]", b"[{}]", b"\xff", b"[" * 10**5]
)
def test_what_is_no_answer_of_rabbitmq_is_none(plugin: type[Plugin], answer: bytes) -> None:
    what: Any = ("policies", "operator-policies", "queues")
    plugin.answers = {f"/api/{each}/v%2F1": answer for each in what}
    if answer != b"{}":  # where no policies are, too
        with pytest.raises(NoAnswer):
            policies_of(beside(plugin))
    with pytest.raises(NoAnswer):
        queues_of(beside(plugin), "mtj:n/")


@pytest.mark.parametrize("port", [1, 60_000])
def test_where_nobody_listens_is_no_answer(port: int) -> None:
    with pytest.raises(NoAnswer):
        policies_of(ConnectionParameters("127.0.0.1", port))
