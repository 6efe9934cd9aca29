"""RabbitMQ over TLS: certificates, a node that takes nothing else on that port, and jobs of all sizes."""

import secrets
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from brokers.private_server import free_port
from brokers.rabbitmq_server import PrivateRabbitMQ, retry_timeout
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Orchestrator,
    RabbitMQClient,
    RabbitMQConsumerBackend,
)
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Message, PublishStatus

COUNT = 5_000
LARGE = 300_000
"""More than a frame of AMQP holds, and than one of TLS."""


ENCIPHERED = b"\x17\x03\x03"
"""How a record of TLS begins."""
RECORD = 16_384 + 256
"""As long as one is at most; each is deciphered as a whole."""


def bytes_to_read(sock: socket.socket) -> int:
    """How many bytes have come and weren't read."""
    try:
        return len(sock.recv(10 * RECORD, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return 0


class Blob(JobInput):
    number: int
    content: str = ""

    @classmethod
    def of(cls, number: int) -> "Blob":
        """Every fiftieth is large."""
        return cls(number=number, content="x" * LARGE if number % 50 == 0 else "")


class Counting(Consumer):
    """Notes what it was given."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.ran: Counter[int] = Counter()

    def run(self, job: Job[Blob]) -> None:
        assert job.payload == Blob.of(job.payload.number)
        self.ran[job.payload.number] += 1


class Node(NamedTuple):
    """A node, its port for TLS, and the authority that vouches for it."""

    server: PrivateRabbitMQ
    port: int
    authority: Path

    def url(self, prefetch: str) -> str:
        return f"amqps://guest:guest@localhost:{self.port}/?prefetch={prefetch}&ssl_ca_certs={self.authority}"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of its own, and what it signed for localhost."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "rsa:2048", "-nodes")
    # Without the use of its key, Python 3.13 and newer refuse an authority.
    authority = ("-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", *authority)
    openssl(folder, "req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(folder, "x509", "-req", "-in", "node.csr", *signed, "-out", "node.pem")
    return folder


@pytest.fixture(scope="module")
def node(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    port = free_port()
    server = PrivateRabbitMQ(
        tmp_path_factory.mktemp("rabbitmq"),
        listeners__ssl__default=port,
        ssl_options__cacertfile=str(certificates / "ca.pem"),
        ssl_options__certfile=str(certificates / "node.pem"),
        ssl_options__keyfile=str(certificates / "node.key"),
    )
    try:
        server.start()
        yield Node(server, port, certificates / "ca.pem")
    finally:
        server.kill()


@pytest.mark.long
@pytest.mark.timeout(300)  # one by one, that many jobs take half a minute on a busy machine
@pytest.mark.parametrize("prefetch", ["1", "500", "adaptive"])
def test_every_job_runs_once_whatever_its_size(node: Node, prefetch: str) -> None:
    """Small ones, several to a read, among some that take many (RCV-2)."""
    queue = f"blobs-{secrets.token_hex(4)}"
    with Orchestrator(node.url(prefetch)) as orchestrator, retry_timeout(orchestrator.backend, LIMIT_S):
        orchestrator.register(JobSchema(queue, Blob))
        for start in range(0, COUNT, 500):
            blobs = [Blob.of(number) for number in range(start, start + 500)]
            outcomes = [handle.outcome for handle in orchestrator.publish_batch(queue, blobs)]
            assert {outcome.status for outcome in outcomes} == {PublishStatus.ACCEPTED}
        with Counting(queue) as consumer:
            consumer.connect(orchestrator)
            consumer.consume(COUNT)
        assert consumer.ran == Counter(range(COUNT))
        assert orchestrator.backend.counts(queue).waiting == 0


def test_what_a_dropped_connection_still_held_is_read_deciphered_or_not_at_all(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is enciphered could pass for the rest of a job (RCV-2)."""
    queue = f"blobs-{secrets.token_hex(4)}"
    read: list[bytes] = []
    with Orchestrator(node.url("1")).backend as client, retry_timeout(client, LIMIT_S):
        client.declare(Queue(queue))
        outcomes = client.publish(queue, [Message(str(number), b"x" * LARGE) for number in range(50)])
        assert {outcome.status for outcome in outcomes} == {PublishStatus.ACCEPTED}
        consumer = client.open_consumer(queue)
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel = consumer._channel
        channel.request(partial(channel.set_credit, 50), LIMIT_S)

        def drop() -> None:
            connection = channel._driver
            assert connection is not None
            take = connection._on_data_available
            monkeypatch.setattr(
                connection, "_on_data_available", lambda data: (read.append(data), take(data))
            )
            transport = connection._transport
            if transport._tx_buffers:  # the request for the next job, if each is fetched
                transport._on_socket_writable()
            with socket.fromfd(transport._sock.fileno(), socket.AF_INET, socket.SOCK_STREAM) as enciphered:
                here = f"{len(channel.arrivals)} jobs are here, and {channel.credit} are to come"
                eventually(lambda: bytes_to_read(enciphered) > RECORD, f"a whole record is here; {here}")
            connection.drop()

        assert channel.loop.wait(lambda: not channel.is_open, LIMIT_S, first=drop)
        assert read
        assert not any(data.startswith(ENCIPHERED) for data in read)
        received = 0
        while received < 50:
            deliveries = consumer.receive(50, LIMIT_S)
            assert {delivery.body for delivery in deliveries} == {b"x" * LARGE}
            received += len(deliveries)
        consumer.close()


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [("localhost", False, "self-signed certificate"), ("127.0.0.1", True, "IP address mismatch")],
    ids=["nobody trusted vouches for it", "it is vouched for by another name"],
)
def test_a_server_that_may_be_another_is_told_nothing(node: Node, host: str, trusted: bool, why: str) -> None:
    """Not even the password (SEC-3)."""
    authority = str(node.authority) if trusted else None
    with (
        RabbitMQClient(host, node.port, ssl=True, ssl_ca_certs=authority, retry_timeout_s=3.0) as client,
        pytest.raises(BackendUnavailable, match=f"{why}.*certificate is refused: .*ssl_ca_certs"),
    ):
        client.declare(Queue("blobs"))
