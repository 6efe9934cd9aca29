"""A cluster of RabbitMQ that one node of three leaves: the others are a majority, so work goes on."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

from background import Background
from brokers.rabbitmq_cluster import RabbitMQCluster
from brokers.rabbitmq_server import PrivateRabbitMQ, retry_timeout
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, RetryPolicy
from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.errors import BackendUnavailable, PublishUnknown
from mindtrace.jobs.ports import QueueCounts

pytestmark = [pytest.mark.long, pytest.mark.begins_first]

SCHEMA = JobSchema("numbers", JobInput)


class Counts(Consumer):
    schema = SCHEMA

    def run(self, job: Job[Any]) -> None:
        pass


class CountsFragile(Counts):
    """One crash that is charged to a job is its end."""

    schema = JobSchema("fragile", JobInput, retry=RetryPolicy(max_crashes=1))


@pytest.fixture
def jobs(rabbitmq_cluster: RabbitMQCluster) -> Iterator[Orchestrator]:
    with Orchestrator(rabbitmq_cluster.client("cluster", retry_timeout_s=LIMIT_S)) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator


@pytest.fixture
def consuming(jobs: Orchestrator) -> Iterator[tuple[Counts, "Future[int]"]]:
    """A consumer that runs until the test is over."""
    with Background() as threads, Counts() as consumer:
        consumer.connect(jobs)
        running = threads.submit(consumer.consume)
        jobs.publish("numbers", {})
        eventually(lambda: consumer.stats.done == 1, "the first job runs")
        yield consumer, running
        consumer.stop()


@pytest.mark.parametrize(
    "end", [PrivateRabbitMQ.kill, PrivateRabbitMQ.stop], ids=["killed", "stopped in order"]
)
def test_workers_go_on_while_one_node_of_three_is_away(
    rabbitmq_cluster: RabbitMQCluster,
    jobs: Orchestrator,
    consuming: tuple[Counts, "Future[int]"],
    end: Callable[[PrivateRabbitMQ], None],
) -> None:
    """One after the other, whatever it leads: no consumer takes its queue for deleted (CON-1, ADM-3)."""
    consumer, running = consuming

    def is_published() -> bool:
        """One that was under way as the node ended may be lost, so another job is published."""
        with suppress(PublishUnknown):
            jobs.publish("numbers", {})
            return True
        return False

    def runs(count: int) -> None:
        wanted = consumer.stats.done + count
        for _ in range(count):
            eventually(is_published, "a publish is confirmed")
        eventually(lambda: running.done() or consumer.stats.done >= wanted, "the jobs run")
        assert not running.done(), running.exception()

    for node in rabbitmq_cluster.nodes:
        end(node)
        runs(10)
        node.start()
        runs(1)


def test_a_consumer_begins_while_one_node_of_three_is_away(
    rabbitmq_cluster: RabbitMQCluster, jobs: Orchestrator
) -> None:
    rabbitmq_cluster.nodes[0].kill()
    with Orchestrator(rabbitmq_cluster.client("cluster", retry_timeout_s=LIMIT_S)) as later:
        later.register(SCHEMA)
        later.publish("numbers", {})
        with Counts() as consumer:
            consumer.connect(later)
            assert consumer.consume(1, block=True) == 1


def test_a_deleted_queue_ends_its_consumers_on_every_node(
    jobs: Orchestrator, consuming: tuple[Counts, "Future[int]"]
) -> None:
    jobs.backend.delete("numbers")
    _, running = consuming

    assert "numbers" in str(running.exception(LIMIT_S))


def test_a_queue_whose_leader_stands_still_is_not_said_to_be_empty(rabbitmq_cluster: RabbitMQCluster) -> None:
    """Though the other nodes say so: a count is right, or fails (CNT-1)."""
    there = QueueCounts(ready=2, delayed=3, in_flight=None, dead=0)
    with Orchestrator(rabbitmq_cluster.client("still")) as first:
        first.register(SCHEMA)
        for delay_s in (0, 0, 3600, 3600, 3600):
            first.publish("numbers", {}, delay_s=delay_s)
        assert first.counts("numbers") == there
    leader = rabbitmq_cluster.leader("mtj:still/numbers")
    others = [(each.address.host, each.address.port) for each in rabbitmq_cluster.nodes if each is not leader]

    def says(client: RabbitMQClient) -> QueueCounts | None:
        try:
            said = client.counts("numbers")
        except BackendUnavailable:
            return None
        assert said == there
        return said

    with rabbitmq_cluster.client("still", hosts=others) as client:
        assert says(client) == there
        leader.pause()
        try:
            with retry_timeout(client, 2.0):
                eventually(lambda: says(client) is None, "the leader is missed")
        finally:
            leader.resume()

        assert says(client) == there


@pytest.mark.parametrize(
    ("leader_stays", "charged_at_most"), [(False, 0), (True, 1)], ids=["the leader is killed", "it stays"]
)
def test_a_lost_majority_hides_no_job_and_a_consumer_that_asks_again_and_again_charges_none(
    rabbitmq_cluster: RabbitMQCluster, leader_stays: bool, charged_at_most: int
) -> None:
    """But for one that its leader sends, once it may, to a consumer that asks no more (CNT-1, RTY-3)."""
    with rabbitmq_cluster.client("lost") as first:
        first.declare(Queue("fragile"))
    leader = rabbitmq_cluster.leader("mtj:lost/fragile")
    nodes = sorted(rabbitmq_cluster.nodes, key=lambda node: (node is leader) != leader_stays)
    hosts = [(node.address.host, node.address.port) for node in nodes]
    client = rabbitmq_cluster.client("lost", hosts=hosts, retry_timeout_s=LIMIT_S)
    with Background() as threads, CountsFragile() as consumer, Orchestrator(client) as jobs:
        consumer.connect(jobs)
        running = threads.submit(consumer.consume)
        jobs.publish("fragile", {})
        eventually(lambda: consumer.stats.done == 1, "the first job runs")

        with retry_timeout(client, 2.0):
            for node in nodes[1:]:
                node.kill()
            for _ in range(5):
                with suppress(PublishUnknown):
                    jobs.publish("fragile", {})
            with pytest.raises(BackendUnavailable):
                jobs.counts("fragile")
        for node in nodes[1:]:
            node.start()

        jobs.publish("fragile", {})
        eventually(lambda: running.done() or consumer.stats.done > 1, "it goes on")
        eventually(lambda: jobs.counts("fragile").waiting == 0, "all that arrived has run")
        assert not running.done()
        assert jobs.counts("fragile").dead <= charged_at_most
        consumer.stop()


def test_the_nodes_share_what_leads_the_queues(rabbitmq_cluster: RabbitMQCluster) -> None:
    """Though each client asks the first node of its list."""
    with rabbitmq_cluster.client("spread", retry_timeout_s=LIMIT_S) as client:
        for number in range(6):
            client.declare(Queue(f"queue{number}"))

    leaders = rabbitmq_cluster.leaders(rabbitmq_cluster.nodes[0])
    assert set(leaders.values()) == {node.name for node in rabbitmq_cluster.nodes}
