"""The leader/follower loop: one thread turns it, the others are told in time, a fault hits no other."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest

from background import Background
from conditions import LIMIT_S, eventually
from interrupts import interrupt_at
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ClosedByClient
from mindtrace.jobs.adapters.rabbitmq.transport.leader_follower_loop import LeaderFollowerLoop


def test_what_is_said_later_is_done_later() -> None:
    """Also where the one before was left to a thread that has the loop and is about to leave it."""
    order: list[int] = []
    loop = LeaderFollowerLoop(lambda _error: None)
    inside, leave = threading.Event(), threading.Event()

    def last_look() -> bool:
        if loop._leader is None:  # it hasn't got the loop yet
            return False
        inside.set()
        return leave.wait(LIMIT_S)

    driver = threading.Thread(target=lambda: loop.wait(last_look, LIMIT_S))
    driver.start()
    assert inside.wait(LIMIT_S)
    loop.call(lambda: order.append(1))
    leave.set()
    driver.join()
    loop.call(lambda: order.append(2))
    assert order == [1, 2]
    loop.close()


def test_what_comes_to_pass_while_another_looks_is_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes just after it looked, and before it waits: who has the loop must not sleep on it."""
    loop = LeaderFollowerLoop(lambda _error: None)
    answered, looking, goes_on = threading.Event(), threading.Event(), threading.Event()
    looks = count(1)

    def noting(step: Callable[..., Any]) -> Callable[..., Any]:
        """Note that who has the loop is about to tell the others, or to wait again."""

        def noted(*arguments: Any) -> Any:
            if answered.is_set():
                goes_on.set()
            return step(*arguments)

        return noted

    monkeypatch.setattr(loop, "_notify_followers", noting(loop._notify_followers))
    monkeypatch.setattr(loop.io, "turn", noting(loop.io.turn))

    def answer() -> None:
        looking.wait(LIMIT_S)
        answered.set()

    def look() -> bool:
        seen = answered.is_set()
        if next(looks) == 2:  # the last one before it waits
            looking.set()
            assert goes_on.wait(LIMIT_S)
        return seen

    loop.io.call_later(0.05, answer)
    driver = threading.Thread(target=lambda: loop.wait(lambda: False, 10 * LIMIT_S))
    driver.start()
    eventually(lambda: loop._leader is not None, "another has the loop")
    began = time.monotonic()
    assert loop.wait(look, 2 * LIMIT_S)
    assert time.monotonic() - began < LIMIT_S
    loop.close()
    driver.join()


def test_closing_a_loop_ends_who_drives_it_and_who_waits() -> None:
    """At once, and nothing stays open (CON-2)."""
    loop = LeaderFollowerLoop(lambda _error: None)
    with Background() as threads:
        waiting = [threads.submit(loop.wait, lambda: False, 10 * LIMIT_S) for _ in range(3)]
        eventually(lambda: loop._leader is not None and loop._followers == 2, "all three wait")
        loop.close()
        assert [one.result(LIMIT_S) for one in waiting] == [False] * 3
    assert loop.io.is_closed
    with pytest.raises(ClosedByClient):
        loop.call(lambda: None)


def test_an_interrupt_leaves_the_turn_to_others() -> None:
    """A KeyboardInterrupt in the middle of the I/O breaks the connection, not the lock on it."""
    faults: list[BaseException] = []
    loop = LeaderFollowerLoop(faults.append)

    def strike() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.call(strike)
    assert [type(fault) for fault in faults] == [KeyboardInterrupt]
    assert loop.wait(lambda: True, LIMIT_S)
    assert loop._leader is None
    loop.close()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_of_a_wait_ends_that_call_only(
    interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read or written half, so the connection isn't given up for it."""
    faults: list[BaseException] = []
    loop = LeaderFollowerLoop(faults.append)
    with monkeypatch.context() as patched:
        patched.setattr(loop.io._selector, "select", Mock(side_effect=interrupt))
        with pytest.raises(interrupt):
            loop.wait(lambda: False, LIMIT_S)
    assert faults == []
    assert loop.wait(lambda: True, LIMIT_S, first=list)
    loop.close()


def test_an_interrupt_anywhere_leaves_the_turn_to_others() -> None:
    """Also one that strikes as the thread gives the loop up."""
    for point in count(1):
        loop = LeaderFollowerLoop(lambda _error: None)
        was_interrupted = interrupt_at(
            point,
            "leader_follower_loop.py",
            lambda: loop.wait(lambda: True, LIMIT_S, first=list),  # noqa: B023
        )
        assert loop._leader is None, f"interrupted at point {point}"
        assert loop.wait(lambda: True, 0.0, first=list)
        loop.close()
        assert loop.io.is_closed
        if not was_interrupted:
            assert point > 1
            return


def test_a_fault_in_the_loop_is_nobody_elses() -> None:
    """Whoever happens to serve the loop isn't hit by what another wanted done."""
    faults: list[BaseException] = []
    loop = LeaderFollowerLoop(faults.append)
    loop._calls.append(lambda: 1 / 0)
    done: list[int] = []
    loop.wait(lambda: done, LIMIT_S, first=lambda: done.append(1))
    assert done == [1]
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    loop.close()


def test_a_fault_of_which_nobody_could_be_told_is_told_by_who_leads_next() -> None:
    told: list[BaseException] = []

    def on_fault(error: BaseException) -> None:
        told.append(error)
        if len(told) == 1:
            raise KeyboardInterrupt

    loop = LeaderFollowerLoop(on_fault)
    loop._calls.append(lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        loop.wait(lambda: True, LIMIT_S, first=list)
    assert loop.wait(lambda: True, LIMIT_S, first=list)
    assert [type(fault) for fault in told] == [ZeroDivisionError] * 2
    assert loop.wait(lambda: True, LIMIT_S, first=list)
    assert len(told) == 2
    loop.close()


def test_what_a_signal_handler_raises_in_the_loop_reaches_the_program() -> None:
    """It may be a timeout of the program's, which the loop took for a fault of its own."""
    faults: list[BaseException] = []
    loop = LeaderFollowerLoop(faults.append)

    def on_signal(*_: object) -> None:
        raise TimeoutError("the program's")

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with pytest.raises(TimeoutError, match="the program's"):
            loop.call(lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [type(fault) for fault in faults] == [TimeoutError]
    assert loop.wait(lambda: True, LIMIT_S, first=list)
    loop.close()


@pytest.mark.parametrize("goes_on", [False, True])
def test_who_catches_up_waits_for_a_leader_that_has_not_looked_yet(goes_on: bool) -> None:
    """Whether that turns the loop once more, or leaves it to others."""
    loop = LeaderFollowerLoop(lambda _error: None)
    theirs, ours = socket.socketpair()
    inside, leave = threading.Event(), threading.Event()
    seen: list[bytes] = []
    loop.call(lambda: loop.io.add_handler(ours.fileno(), lambda *_: seen.append(ours.recv(9)), loop.io.READ))

    def last_look() -> bool:
        if loop._leader is None:
            return False
        inside.set()
        return leave.wait(LIMIT_S) and not goes_on

    seen_by_return: list[bytes] = []

    def catch_up() -> None:
        loop.catch_up()
        seen_by_return.extend(seen)

    leader = threading.Thread(target=lambda: loop.wait(last_look, 10 * LIMIT_S))
    late = threading.Thread(target=catch_up)
    leader.start()
    assert inside.wait(LIMIT_S)
    theirs.send(b"the end")
    late.start()
    eventually(lambda: loop._followers or not late.is_alive(), "it waits, or has returned")
    leave.set()
    late.join()
    assert seen_by_return == [b"the end"]
    loop.close()
    leader.join()
    for end in (theirs, ours):
        end.close()


def test_who_catches_up_sees_what_follows_from_what_came() -> None:
    """The end of a stream is told by calls of calls, each in a turn of its own."""
    loop = LeaderFollowerLoop(lambda _error: None)
    steps: list[int] = []

    def step() -> None:
        steps.append(len(steps))
        if len(steps) < 10:
            loop.io.add_callback(step)

    loop.call(step)
    loop.catch_up()
    assert steps == list(range(10))
    loop.close()
