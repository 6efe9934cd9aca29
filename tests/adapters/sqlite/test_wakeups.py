"""Waking those who wait."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mindtrace.jobs import SQLiteClient
from mindtrace.jobs.adapters.sqlite import consumer as consumer_module
from mindtrace.jobs.adapters.sqlite.wakeups import (
    FifoWaiter,
    PollingWaiter,
    make_waiter,
    remove_wakeups,
    wake,
)
from mindtrace.jobs.ports import Message

FOR_EVER_S = 3600.0
"""A wait that only what is tested can end: a test that waits it out has failed long before."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bells"


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_ring_wakes_all_who_wait_and_each_but_once(folder: Path) -> None:
    """However many rang before they waited."""
    waiters = [FifoWaiter(folder, 1, "ready") for _ in range(3)]
    for _ in range(5):
        wake(folder, 1, "ready")

    for waiter in waiters:
        waiter.wait(FOR_EVER_S)
        assert seconds(lambda waiter=waiter: waiter.wait(0.1)) >= 0.1  # type: ignore[misc]
    wake(folder, 1, "ready")
    for waiter in waiters:
        waiter.wait(FOR_EVER_S)
        waiter.close()


@pytest.mark.parametrize("kind", ["link", "file", "linked folder"])
def test_what_is_no_bell_is_neither_followed_nor_written_to(folder: Path, tmp_path: Path, kind: str) -> None:
    """Whoever waits for it polls."""
    victim = tmp_path / "1-ready"
    victim.write_text("precious")
    if kind == "linked folder":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        bell = folder / "1-ready"
        bell.symlink_to(victim) if kind == "link" else victim.rename(bell)
        victim = bell

    wake(folder, 1, "ready")
    waiter = make_waiter(folder, 1, "ready")
    waiter.close()

    assert isinstance(waiter, PollingWaiter)
    assert victim.read_text() == "precious"
    assert list((tmp_path / "elsewhere").glob("*")) == []


def test_another_queues_bell_and_another_purpose_wake_nobody(folder: Path) -> None:
    """Each has a FIFO of its own."""
    waiter = FifoWaiter(folder, 1, "ready")
    others = [FifoWaiter(folder, 2, "ready"), FifoWaiter(folder, 1, "ended")]
    waiter.wait(0.0)
    wake(folder, 2, "ready")
    wake(folder, 1, "ended")

    assert seconds(lambda: waiter.wait(0.1)) >= 0.1
    for each in (waiter, *others):
        each.close()


def test_a_bell_that_nobody_waits_for_can_be_rung_for_ever(folder: Path) -> None:
    """It neither fills up nor blocks, and one that was never made isn't made by it."""
    wake(folder, 1, "ready")
    assert not folder.exists()
    FifoWaiter(folder, 1, "ready").close()
    for _ in range(70_000):
        wake(folder, 1, "ready")


@pytest.mark.parametrize("kind", ["bell", "polling"])
def test_a_wait_can_be_ended_from_another_thread(folder: Path, kind: str) -> None:
    """Also before it begins; and a waiter that is closed waits no more."""
    waiter = FifoWaiter(folder, 1, "ready") if kind == "bell" else PollingWaiter()
    threading.Timer(0.1, waiter.wake).start()
    waiter.wait(FOR_EVER_S)
    waiter.wake()
    waiter.wait(FOR_EVER_S)
    threading.Timer(0.1, waiter.close).start()
    waiter.wait(FOR_EVER_S)
    waiter.close()
    waiter.wake()


def test_where_no_bell_can_be_it_is_waited_for_a_moment_at_a_time(folder: Path) -> None:
    """As where a file is in its place, or the system knows no FIFOs."""
    folder.mkdir()
    (folder / "1-ready").write_text("a file")

    assert isinstance(make_waiter(folder, 1, "ready"), PollingWaiter)


def test_without_bells_a_consumer_finds_jobs_all_the_same(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its next look."""
    monkeypatch.setattr(consumer_module, "make_waiter", lambda *_: PollingWaiter())
    with client.open_consumer("points") as consumer:
        threading.Timer(0.2, lambda: client.publish("points", [Message("job", b"{}")])).start()

        assert [delivery.id for delivery in consumer.receive(1, FOR_EVER_S)] == ["job"]


def test_a_wakeup_that_was_lost_is_made_good_by_a_look(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a publisher is killed between its commit and its wake-up (RCV-2)."""
    monkeypatch.setattr("mindtrace.jobs.adapters.sqlite.transaction.wake", lambda *_: None)
    with client.open_consumer("points") as consumer:
        threading.Timer(0.2, lambda: client.publish("points", [Message("job", b"{}")])).start()

        assert [delivery.id for delivery in consumer.receive(1, FOR_EVER_S)] == ["job"]


def test_bells_go_with_their_queue(folder: Path) -> None:
    """So that none is left of queues that are gone."""
    for queue in (1, 2):
        FifoWaiter(folder, queue, "ready").close()
    remove_wakeups(folder, 1)
    remove_wakeups(folder, 1)

    assert [bell.name for bell in folder.iterdir()] == ["2-ready"]
