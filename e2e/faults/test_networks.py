"""Networks that cut connections, swallow what is sent, or are slow."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokers.proxy import Disruption, Proxy
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Orchestrator

from .experiment import Experiment
from .matrix import NO_SERVER, row
from .server_targets import ServerTarget
from .targets import RunningWorker


@contextmanager
def behind_a_proxy(
    experiment: Experiment, *, retry_timeout_s: float = 5.0, **pace: Any
) -> Iterator[tuple[Proxy, Orchestrator]]:
    """A producer whose connection goes through a proxy."""
    target = experiment.target
    assert isinstance(target, ServerTarget)
    with (
        target.proxy(**pace) as proxy,
        target.client_via(experiment.namespace, proxy, retry_timeout_s=retry_timeout_s) as client,
    ):
        yield proxy, experiment.producer(client)


def disrupt(
    experiment: Experiment, proxy: Proxy, worker: RunningWorker, how: Disruption, *, times: int
) -> None:
    """Disrupt settlements of the worker and publishes of the producer in turn, each once jobs run again."""
    target = experiment.target
    assert isinstance(target, ServerTarget)
    for _ in range(times):
        for word in (target.settle_bytes, target.publish_bytes):
            experiment.wait_until_run(20)
            disrupted = proxy.disrupted
            with experiment.fault_on(worker, in_flight=5):
                proxy.disrupt_next(word, how)
                eventually(lambda: proxy.disrupted > disrupted, "it is disrupted")  # noqa: B023


@row(
    "connections are reset in the middle of a reply", "PUB-4", "CON-1", "LSE-4", "I1", "I3", not_on=NO_SERVER
)
def test_replies_that_are_cut_off_lose_nothing(experiment: Experiment) -> None:
    with behind_a_proxy(experiment) as (proxy, producer):
        experiment.publish(20)
        worker = experiment.start_worker(via=proxy, prefetch=5, lease_s=experiment.target.lease_s)
        with experiment.producing(by=producer):
            disrupt(experiment, proxy, worker, Disruption.CUT, times=3)
        experiment.wait_until_drained()
        experiment.check()


@row("connections go silent: a black hole", "PUB-4", "CON-1", "LSE-1", "I1", "I3", "I8", not_on=NO_SERVER)
def test_a_black_hole_loses_nothing(experiment: Experiment) -> None:
    with behind_a_proxy(experiment) as (proxy, producer):
        experiment.publish(20)
        worker = experiment.start_worker(via=proxy, prefetch=5, lease_s=experiment.target.lease_s)
        with experiment.producing(by=producer):
            disrupt(experiment, proxy, worker, Disruption.SILENCE, times=1)
        experiment.wait_until_drained()
        experiment.check()


def on_a_slow_link(experiment: Experiment, *, jobs: int, least_s: float, **pace: Any) -> None:
    """Nothing is lost and nothing runs twice where all merely takes its time: ``least_s`` at least."""
    began = time.monotonic()
    with behind_a_proxy(experiment, retry_timeout_s=LIMIT_S, **pace) as (proxy, producer):
        experiment.publish(jobs, by=producer)
        experiment.start_worker(via=proxy, prefetch=10, lease_s=10.0)
        experiment.wait_until_drained()
        assert time.monotonic() - began >= least_s, "the link isn't slow"
        assert experiment.check().ran_again == 0
    assert not experiment.audit.unconfirmed


@row("a link with 200 ms in either direction", "PUB-1", "LSE-3", "I1", "I3", not_on=NO_SERVER)
def test_a_link_that_takes_long_loses_nothing_and_repeats_nothing(experiment: Experiment) -> None:
    on_a_slow_link(experiment, jobs=30, least_s=2.0, delay_s=0.2)


@row("a link of 16 KB a second", "PUB-1", "LSE-3", "I1", "I3", not_on=NO_SERVER)
def test_a_narrow_link_loses_nothing_and_repeats_nothing(experiment: Experiment) -> None:
    on_a_slow_link(experiment, jobs=100, least_s=1.0, bytes_per_s=16 * 1024)
