"""Chains whose workers are killed: each comes to its end exactly once, where the ack publishes in one step.

The variable ``MINDTRACE_JOBS_TEST_CHAINS`` says how many chains to run, 300 by default.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest

from conditions import eventually
from mindtrace.jobs import Orchestrator
from mindtrace.jobs.ports import Ack

from .backend_urls import own_url
from .chain_worker import ENDS, HANDLERS, LINKS, SCHEMAS, Link

WORKER = Path(__file__).with_name("chain_worker.py")
CHAINS = int(os.environ.get("MINDTRACE_JOBS_TEST_CHAINS", "300"))
PROCESSES = 3
KILLS = max(6, CHAINS // 500)
LEASE_S = 2.0
LIMIT_S = 240.0 + CHAINS / 10

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LIMIT_S + 120)]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on; its queues are deleted in the end."""
    with own_url(request.param, request, tmp_path) as url, opened(url) as orchestrator:
        yield url
        for schema in (*SCHEMAS, ENDS):
            orchestrator.backend.delete(schema.name)


def opened(url: str) -> Orchestrator:
    """Connect, with the queues of all links declared."""
    orchestrator = Orchestrator(url)
    for schema in (*SCHEMAS, ENDS):
        orchestrator.register(schema)
    return orchestrator


def publish(orchestrator: Orchestrator) -> None:
    for start in range(0, CHAINS, 1000):
        links = [Link(chain=chain) for chain in range(start, min(CHAINS, start + 1000))]
        orchestrator.publish_batch(SCHEMAS[0], links)


def is_idle(orchestrator: Orchestrator) -> bool:
    """Whether no chain is under way any more, as far as the backend can tell."""
    counts = [orchestrator.counts(schema.name) for schema in SCHEMAS]
    return not any(each.waiting or each.in_flight for each in counts)


def take_ends(orchestrator: Orchestrator, ends: Counter[int]) -> None:
    """Take the ends that are there, and count how often each chain has ended."""
    while orchestrator.counts("ends").ready:
        with orchestrator.backend.open_consumer("ends") as consumer:
            came = consumer.receive(500, LIMIT_S)
            ends.update(ENDS.input.model_validate_json(_payload(each.body)).chain for each in came)
            consumer.settle([Ack(each.receipt) for each in came])


def wait_for_ends(orchestrator: Orchestrator, ends: Counter[int]) -> None:
    """Wait until every chain has ended: their number doesn't tell where one may have ended twice."""

    def all_ended() -> bool:
        if not is_idle(orchestrator):
            return False
        take_ends(orchestrator, ends)
        return len(ends) >= CHAINS

    eventually(all_ended, "every chain has ended", LIMIT_S)


def _payload(body: bytes) -> bytes:
    return json.dumps(json.loads(body)["payload"]).encode()


@pytest.mark.parametrize("url", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_each_chain_ends_though_workers_are_killed(url: str, record_property: Any) -> None:
    """Exactly once where the ack publishes in one step; on RabbitMQ at least once (THEN-1, THEN-2)."""
    random, began = Random(7), monotonic()
    command = [sys.executable, str(WORKER), url, str(LEASE_S)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    workers: list[subprocess.Popen[bytes]] = []
    ends: Counter[int] = Counter()
    with opened(url) as orchestrator:
        publish(orchestrator)
        workers += [subprocess.Popen(command, env=environment) for _ in range(PROCESSES)]
        try:
            for number in range(KILLS):
                wanted = CHAINS * (number + 1) // (KILLS + 2)
                eventually(
                    lambda wanted=wanted: orchestrator.count_queue_messages("ends") >= wanted,
                    f"{wanted} chains have ended",
                    LIMIT_S,
                )
                victim = workers.pop(random.randrange(len(workers)))
                victim.kill()
                victim.wait()
                workers.append(subprocess.Popen(command, env=environment))
            wait_for_ends(orchestrator, ends)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        took_s = monotonic() - began
        dead = sum(orchestrator.counts(schema.name).dead for schema in SCHEMAS)
        is_atomic = orchestrator.backend.capabilities.atomic_then
        take_ends(orchestrator, ends)
    doubles = ends.total() - len(ends)
    told = (
        f"{CHAINS} chains of {LINKS}, {KILLS} kills, {ends.total()} ends, {doubles} doubles, {took_s:.0f} s"
    )
    record_property("seen", told)
    print(f"{url.split(':')[0]}: {told}")

    assert dead == 0
    assert set(ends) == set(range(CHAINS))
    assert doubles == 0 or not is_atomic


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_each_chain_ends_once_whatever_threads_come_and_go(url: str) -> None:
    """In memory, where a worker is a thread: consumers stop and close at any moment."""
    with opened(url) as orchestrator:
        publish(orchestrator)
        is_over, ends = threading.Event(), Counter[int]()

        def work(number: int) -> None:
            while not is_over.is_set():
                with HANDLERS[number % LINKS].consumer() as consumer:
                    consumer.connect(orchestrator, poll_timeout_s=0.05)
                    consumer.consume(7)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2 * LINKS)]
        for thread in threads:
            thread.start()
        try:
            wait_for_ends(orchestrator, ends)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        take_ends(orchestrator, ends)
        assert ends == Counter(range(CHAINS))
