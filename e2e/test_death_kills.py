"""Jobs that die while workers are killed: each has its alert (THEN-4)."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conditions import eventually
from mindtrace.jobs import Orchestrator
from mindtrace.jobs.domain.envelope import decode
from mindtrace.jobs.ports import Ack

from .backend_urls import own_url
from .death_worker import ALERTS, DOOMED, Alert, Doomed

WORKER = Path(__file__).with_name("death_worker.py")
JOBS = int(os.environ.get("MINDTRACE_JOBS_TEST_DEATHS", "300"))
KILLERS = 3
"""How many of them kill their worker, each until its crash budget is spent."""
PROCESSES = 3
KILLS = 6
LEASE_S = 2.0
LIMIT_S = 240.0 + JOBS / 10

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LIMIT_S + 120)]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on; its queues are deleted in the end."""
    with own_url(request.param, request, tmp_path) as url, opened(url) as orchestrator:
        yield url
        for schema in (DOOMED, ALERTS):
            orchestrator.backend.delete(schema.name)


def opened(url: str) -> Orchestrator:
    orchestrator = Orchestrator(url)
    for schema in (DOOMED, ALERTS):
        orchestrator.register(schema)
    return orchestrator


class Workers:
    """So many processes, of which one that ends is replaced."""

    def __init__(self, url: str) -> None:
        self._command = [sys.executable, str(WORKER), url, str(LEASE_S)]
        self._environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def replace_dead(self) -> None:
        self._processes = [each for each in self._processes if each.poll() is None]
        while len(self._processes) < PROCESSES:
            self._processes.append(subprocess.Popen(self._command, env=self._environment))

    def kill_one(self, random: Random) -> None:
        victim = random.choice(self._processes)
        victim.kill()
        victim.wait()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def take_alerts(orchestrator: Orchestrator, alerts: list[Alert]) -> None:
    """Take the alerts that are there."""
    while orchestrator.counts(ALERTS.name).ready:
        with orchestrator.backend.open_consumer(ALERTS.name) as consumer:
            came = consumer.receive(500, LIMIT_S)
            alerts += [decode(each.body, ALERTS, attempt=1, max_bytes=10_000).payload for each in came]
            consumer.settle([Ack(each.receipt) for each in came])


@pytest.mark.parametrize("url", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_each_dead_job_has_its_alert_though_workers_are_killed(url: str, record_property: Any) -> None:
    """Exactly one where the death publishes in one step; on RabbitMQ at least one."""
    random, workers, alerts = Random(7), Workers(url), list[Alert]()
    with opened(url) as orchestrator:
        outcomes = orchestrator.publish_batch(DOOMED, [Doomed(kills=n < KILLERS) for n in range(JOBS)])
        ids = {outcome.id for outcome in outcomes}

        def has_alerts(wanted: int) -> bool:
            workers.replace_dead()
            take_alerts(orchestrator, alerts)
            return len({each.job_id for each in alerts}) >= wanted

        def all_are_dead() -> bool:
            counts = orchestrator.counts(DOOMED.name)
            return has_alerts(JOBS) and not counts.waiting and not counts.in_flight

        try:
            for number in range(KILLS):
                wanted = JOBS * (number + 1) // (KILLS + 2)
                eventually(lambda wanted=wanted: has_alerts(wanted), f"{wanted} jobs are dead", LIMIT_S)
                workers.kill_one(random)
            eventually(all_are_dead, "every job is dead", LIMIT_S)
        finally:
            workers.end()
        take_alerts(orchestrator, alerts)
        dead = {letter.id for letter in orchestrator.dead_letters(DOOMED.name, limit=2 * JOBS)}
        is_atomic = orchestrator.backend.capabilities.atomic_then
    doubles = len(alerts) - len({each.job_id for each in alerts})
    reasons = Counter(each.reason for each in alerts)
    told = f"{JOBS} deaths, {KILLS} kills, {len(alerts)} alerts, {doubles} doubles, {dict(reasons)}"
    record_property("seen", told)
    print(f"{url.split(':')[0]}: {told}")

    assert dead == ids
    assert {each.job_id for each in alerts} == ids
    assert doubles == 0 or not is_atomic
    assert reasons["crash budget exhausted"] >= KILLERS
