"""Networks that cut connections, swallow what is sent, or are slow."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokers.proxy import Proxy, Spoil
from mindtrace.jobs import Orchestrator

from ..workers import eventually
from .rigs import LIMIT_S, ServerRig, Working
from .table import NO_SERVER, row
from .trial import Trial


@contextmanager
def behind_a_proxy(
    trial: Trial, *, retry_timeout_s: float = 5.0, **pace: Any
) -> Iterator[tuple[Proxy, Orchestrator]]:
    """A producer on a spoilt line."""
    rig = trial.rig
    assert isinstance(rig, ServerRig)
    with (
        rig.proxy(**pace) as proxy,
        rig.proxied(trial.namespace, proxy, retry_timeout_s=retry_timeout_s) as client,
    ):
        yield proxy, trial.producer(client)


def spoil(trial: Trial, proxy: Proxy, worker: Working, how: Spoil, *, times: int) -> None:
    """Spoil settlements of the worker and publishes of the producer in turn, each once jobs run again."""
    rig = trial.rig
    assert isinstance(rig, ServerRig)
    for _ in range(times):
        for word in (rig.settle_word, rig.publish_word):
            trial.ran(20)
            spoiled = proxy.spoiled
            with trial.harming(worker, in_hand=5):
                proxy.spoil_next(word, how)
                eventually(lambda: proxy.spoiled > spoiled, LIMIT_S, "it is spoilt")  # noqa: B023


@row(
    "connections are reset in the middle of a reply", "PUB-4", "CON-1", "LSE-4", "I1", "I3", not_on=NO_SERVER
)
def test_replies_that_are_cut_off_lose_nothing(trial: Trial) -> None:
    with behind_a_proxy(trial) as (proxy, producer):
        trial.publish(20)
        worker = trial.start_worker(via=proxy, prefetch=5, lease_s=trial.rig.lease_s)
        with trial.producing(by=producer):
            spoil(trial, proxy, worker, Spoil.CUT, times=3)
        trial.expect_worked_off()
        trial.check()


@row("connections go silent: a black hole", "PUB-4", "CON-1", "LSE-1", "I1", "I3", "I8", not_on=NO_SERVER)
def test_a_black_hole_loses_nothing(trial: Trial) -> None:
    with behind_a_proxy(trial) as (proxy, producer):
        trial.publish(20)
        worker = trial.start_worker(via=proxy, prefetch=5, lease_s=trial.rig.lease_s)
        with trial.producing(by=producer):
            spoil(trial, proxy, worker, Spoil.SILENCE, times=1)
        trial.expect_worked_off()
        trial.check()


def on_a_slow_link(trial: Trial, *, jobs: int, least_s: float, **pace: Any) -> None:
    """Nothing is lost and nothing runs twice where all merely takes its time: ``least_s`` at least."""
    began = time.monotonic()
    with behind_a_proxy(trial, retry_timeout_s=LIMIT_S, **pace) as (proxy, producer):
        trial.publish(jobs, by=producer)
        trial.start_worker(via=proxy, prefetch=10, lease_s=10.0)
        trial.expect_worked_off()
        assert time.monotonic() - began >= least_s, "the link isn't slow"
        assert trial.check().ran_again == 0
    assert not trial.account.unconfirmed


@row("a link with 200 ms in either direction", "PUB-1", "LSE-3", "I1", "I3", not_on=NO_SERVER)
def test_a_link_that_takes_long_loses_nothing_and_repeats_nothing(trial: Trial) -> None:
    on_a_slow_link(trial, jobs=30, least_s=2.0, delay_s=0.2)


@row("a link of 16 KB a second", "PUB-1", "LSE-3", "I1", "I3", not_on=NO_SERVER)
def test_a_narrow_link_loses_nothing_and_repeats_nothing(trial: Trial) -> None:
    on_a_slow_link(trial, jobs=100, least_s=1.0, bytes_per_s=16 * 1024)
