"""Policies of an operator apply to our queues: what they take out is kept, and the doctor tells of them."""

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import pytest

from brokers.rabbitmq_server import MANAGEMENT, PrivateRabbitMQ
from conditions import LIMIT_S, eventually
from mindtrace.jobs import PublishStatus, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.diagnosis import policy_probe
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.ports import Finding, Message, Verdict

QUEUE = "squares"
COUNT = 30
FIFO, PRIORITY = QueueKind.FIFO, QueueKind.PRIORITY


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """One node for all, with the management plugin, and a user whom that doesn't tell."""
    node = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"), management=True)
    try:
        node.start()
        node.control("add_user", "worker", "password")
        node.control("set_permissions", "worker", "^mtj:", "^(mtj:|amq\\.default$)", "^mtj:")
        yield node
    finally:
        node.kill()


class Policies:
    """A namespace of its own, and the policies for it."""

    def __init__(self, server: PrivateRabbitMQ) -> None:
        self._server = server
        self.namespace = f"t{time.monotonic_ns()}"
        self._set: list[tuple[str, str]] = []

    def set(
        self, definition: dict[str, Any], names: str = "", *, operators: bool = False, to: str = "queues"
    ) -> str:
        """Set a policy for names of the namespace, all by default, and return what it is called."""
        kind = "operator-policies" if operators else "policies"
        name = f"{self.namespace}-{len(self._set)}"
        pattern = f"^mtj:{self.namespace}/{names}"
        self._request("PUT", kind, name, {"pattern": pattern, "definition": definition, "apply-to": to})
        self._set.append((kind, name))
        return name

    def clear(self) -> None:
        while self._set:
            self._request("DELETE", *self._set.pop())

    def _request(self, method: str, kind: str, name: str, body: object = None) -> None:
        """Ask the management plugin; rabbitmqctl starts a machine of Erlang's for each command."""
        address = self._server.address
        who = b64encode(f"{address.username}:{address.password}".encode()).decode()
        headers = {"Authorization": f"Basic {who}", "Content-Type": "application/json"}
        with closing(HTTPConnection(address.host, address.port + MANAGEMENT, timeout=60)) as connection:
            connection.request(method, f"/api/{kind}/%2F/{name}", json.dumps(body), headers)
            answer = connection.getresponse()
            assert answer.status in (201, 204), answer.read()


@pytest.fixture
def policies(server: PrivateRabbitMQ) -> Iterator[Policies]:
    policies = Policies(server)
    try:
        yield policies
    finally:
        policies.clear()


@pytest.fixture
def client(server: PrivateRabbitMQ, policies: Policies) -> Iterator[RabbitMQClient]:
    with server.client(policies.namespace, retry_timeout_s=LIMIT_S) as made:
        yield made


def published(client: RabbitMQClient, count: int = COUNT) -> int:
    """Publish jobs one by one, and return how many were confirmed."""
    answers = [client.publish(QUEUE, [Message(f"job-{n}", b"{}")])[0].status for n in range(count)]
    assert set(answers) <= {PublishStatus.ACCEPTED, PublishStatus.REJECTED}
    return answers.count(PublishStatus.ACCEPTED)


# -- what our arguments protect from --------------------------------------------------------------


@pytest.mark.parametrize(("kind", "operators"), [(FIFO, False), (FIFO, True), (PRIORITY, False)])
def test_a_job_that_a_time_to_live_ends_is_a_dead_letter(
    client: RabbitMQClient, policies: Policies, kind: QueueKind, operators: bool
) -> None:
    """With the reason, and it can be run again (SET-3)."""
    policies.set({"message-ttl": 100}, "[^:]*$", operators=operators)
    client.declare(Queue(QUEUE, kind))
    assert published(client) == COUNT

    eventually(lambda: client.counts(QUEUE).dead == COUNT, "all are dead letters")
    letters = client.dead_letters(QUEUE)
    assert {letter.id for letter in letters} == {f"job-{n}" for n in range(COUNT)}
    assert {letter.reason for letter in letters} == {"removed by the broker"}
    assert all("message-ttl" in letter.error and letter.died_at.year > 2000 for letter in letters)
    policies.clear()
    assert client.redrive(QUEUE) == COUNT
    assert client.counts(QUEUE).ready == COUNT


def test_a_policy_cannot_send_dead_letters_elsewhere(client: RabbitMQClient, policies: Policies) -> None:
    elsewhere = {
        "dead-letter-exchange": "amq.fanout",
        "dead-letter-routing-key": "nowhere",
        "dead-letter-strategy": "at-most-once",
    }
    policies.set(elsewhere | {"message-ttl": 100}, "[^:]*$")
    client.declare(Queue(QUEUE))
    assert published(client) == COUNT
    eventually(lambda: client.counts(QUEUE).dead == COUNT, "all are dead letters")


def test_a_policy_cannot_send_delayed_jobs_elsewhere(
    client: RabbitMQClient, server: PrivateRabbitMQ, policies: Policies
) -> None:
    """Those for a delay queue that isn't there yet: they must be returned (PUB-1)."""
    with server.address.driver() as driver:
        channel = driver.channel()
        channel.queue_declare("elsewhere", auto_delete=True)
        channel.queue_bind("elsewhere", "amq.fanout")
        policies.set({"alternate-exchange": "amq.fanout"}, to="exchanges")
        client.declare(Queue(QUEUE))
        (outcome,) = client.publish(QUEUE, [Message("job", b"{}", delay_s=0.1)])
        assert outcome.status is PublishStatus.ACCEPTED
        with client.open_consumer(QUEUE) as consumer:
            assert [delivery.id for delivery in consumer.receive(1, LIMIT_S)] == ["job"]
        assert channel.queue_declare("elsewhere", passive=True).method.message_count == 0
        channel.queue_delete("elsewhere")


@pytest.mark.parametrize("kind", [FIFO, PRIORITY])
@pytest.mark.parametrize(
    ("limit", "operators"), [({"max-length": 10}, False), ({"max-length-bytes": 20}, True)]
)
def test_a_full_queue_refuses_jobs_instead_of_dropping_others(
    client: RabbitMQClient, policies: Policies, limit: dict[str, int], kind: QueueKind, operators: bool
) -> None:
    """What was confirmed stays (PUB-1)."""
    policies.set(limit, operators=operators)
    client.declare(Queue(QUEUE, kind))
    confirmed = published(client)

    counts = client.counts(QUEUE)
    assert (counts.ready, counts.dead) == (confirmed, 0)
    assert 10 <= confirmed < COUNT


def test_a_job_that_a_policy_drops_all_the_same_is_a_dead_letter(
    client: RabbitMQClient, policies: Policies
) -> None:
    """A policy's overflow outranks ours on a quorum queue, and no argument on a classic one."""
    policies.set({"max-length": 10, "overflow": "drop-head"}, "[^:]*$")
    client.declare(Queue(QUEUE))
    assert published(client) == COUNT
    eventually(lambda: client.counts(QUEUE).dead == COUNT - 10, "the oldest are dead letters")
    assert client.counts(QUEUE).ready == 10
    assert "max-length" in client.dead_letters(QUEUE)[0].error


def test_a_job_that_came_back_too_often_for_a_policy_is_a_dead_letter(
    client: RabbitMQClient, policies: Policies
) -> None:
    policies.set({"delivery-limit": 2}, "[^:]*$")
    client.declare(Queue(QUEUE))
    assert published(client) == COUNT
    for crash in range(3):
        with client.open_consumer(QUEUE) as consumer:
            for _ in range(COUNT):
                assert consumer.receive(1, LIMIT_S), f"{crash} crashes, and a job is gone"
            consumer._channel.drop()
            eventually(
                lambda: client.counts(QUEUE).ready + client.counts(QUEUE).dead == COUNT,
                "all are back",
            )
    eventually(lambda: client.counts(QUEUE).dead == COUNT, "all are dead letters")
    assert "delivery-limit" in client.dead_letters(QUEUE)[0].error


# -- what the doctor finds ------------------------------------------------------------------------


def told(client: RabbitMQClient) -> list[Finding]:
    """What the doctor says of policies."""
    return [finding for finding in client.diagnose() if finding.subject == "policies"]


HARMFUL = {
    "message-ttl": 100,
    "expires": 300,
    "max-length": 10,
    "max-length-bytes": 1000,
    "delivery-limit": 2,
}


@pytest.mark.parametrize("key", HARMFUL)
def test_a_policy_that_takes_effect_at_once_shows_without_the_plugin(
    server: PrivateRabbitMQ,
    policies: Policies,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To a user of the least privileges; and nothing is left of what the doctor made."""
    if key in ("message-ttl", "expires"):
        monkeypatch.setattr(policy_probe, "WAIT_S", 5.0)
    policies.set({key: HARMFUL[key]})
    worker = replace(server.address, username="worker", password="password")
    with worker.client(policies.namespace, retry_timeout_s=LIMIT_S) as client:
        (finding,) = told(client)
        assert finding.verdict is not Verdict.GOOD
        assert finding.what.startswith(f"a policy sets {key} of ")
        assert f"mtj:{policies.namespace}/" in finding.remedy
    assert policies.namespace not in server.control("list_queues", "name")


def test_a_policy_that_lets_queues_drop_jobs_shows_without_the_plugin(
    server: PrivateRabbitMQ, policies: Policies
) -> None:
    policies.set({"max-length": 10, "overflow": "drop-head"})
    worker = replace(server.address, username="worker", password="password")
    with worker.client(policies.namespace, retry_timeout_s=LIMIT_S) as client:
        found = {finding.what.split()[3]: finding.verdict for finding in told(client)}
    assert found == {"max-length": Verdict.DOUBTFUL, "overflow": Verdict.WRONG}


def test_where_no_policy_does_harm_the_doctor_says_what_it_cannot_see(
    server: PrivateRabbitMQ, policies: Policies
) -> None:
    policies.set({"queue-version": 2, "max-length": 1_000_000, "message-ttl": 86_400_000})
    worker = replace(server.address, username="worker", password="password")
    with worker.client(policies.namespace, retry_timeout_s=LIMIT_S) as client:
        (finding,) = told(client)
    assert finding.verdict is Verdict.GOOD
    assert "rabbitmqctl list_policies" in finding.what


def test_the_plugin_tells_every_policy(client: RabbitMQClient, policies: Policies) -> None:
    """However long its times and large its numbers, by name, with the queues it applies to."""
    (none,) = told(client)
    assert none.verdict is Verdict.GOOD
    client.declare(Queue(QUEUE))
    slow = policies.set({"message-ttl": 86_400_000, "queue-version": 2})
    long = policies.set({"max-length": 1_000_000}, f"{QUEUE}$", operators=True)
    policies.set({"queue-version": 2}, "unused")
    wrong, doubtful = told(client)

    assert (wrong.verdict, doubtful.verdict) == (Verdict.WRONG, Verdict.DOUBTFUL)
    work = f"mtj:{policies.namespace}/{QUEUE}"
    assert wrong.what.startswith(
        f"policy '{slow}' on {work}, {work}:dead, queues to come: message-ttl 86400 s"
    )
    assert doubtful.what.startswith(f"operator policy '{long}' on {work}: max-length 1000000")
