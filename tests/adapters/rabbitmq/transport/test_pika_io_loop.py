"""The loop: what is due is done, by whoever turns it, and nothing is asked of the system twice."""

import socket
import threading
import time
from collections.abc import Iterator
from time import monotonic

import pytest

from conditions import LIMIT_S
from mindtrace.jobs.adapters.rabbitmq.transport import pika_io_loop
from mindtrace.jobs.adapters.rabbitmq.transport.pika_io_loop import PikaIOLoop


@pytest.fixture
def loop() -> Iterator[PikaIOLoop]:
    loop = PikaIOLoop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_a_turn_ends_when_time_is_up(loop: PikaIOLoop) -> None:
    began = monotonic()
    loop.turn(began + 0.05)
    assert 0.04 < monotonic() - began < LIMIT_S


def test_it_may_be_told_to_wait_for_ever(loop: PikaIOLoop) -> None:
    loop.call_later(0.01, lambda: None)
    loop.turn(float("inf"))


def test_alarms_go_off_in_their_order_and_not_once_called_off(
    loop: PikaIOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    now_s = 1000.0
    monkeypatch.setattr(pika_io_loop, "monotonic", lambda: now_s)
    loop.call_later(0.02, lambda: rung.append("second"))
    loop.call_later(0.01, lambda: rung.append("first"))
    called_off = loop.call_later(0.0, lambda: rung.append("never"))
    loop.remove_timeout(called_off)
    loop.remove_timeout(called_off)
    now_s += 0.02
    loop.turn(now_s)
    assert rung == ["first", "second"]


def test_an_alarm_may_call_off_one_that_is_due_with_it(loop: PikaIOLoop) -> None:
    rung: list[str] = []
    alarms: list[object] = []
    loop.call_later(0.0, lambda: loop.remove_timeout(alarms[0]))
    alarms.append(loop.call_later(0.0, lambda: rung.append("never")))
    time.sleep(0.001)
    loop.run_due()
    loop.run_due()
    assert rung == []


def test_an_alarm_outlives_the_fault_of_one_that_is_due_with_it(loop: PikaIOLoop) -> None:
    rung: list[str] = []
    loop.call_later(0.0, lambda: 1 / 0)
    loop.call_later(0.0, lambda: rung.append("after it"))
    time.sleep(0.001)
    with pytest.raises(ZeroDivisionError):
        loop.run_due()
    loop.run_due()
    assert rung == ["after it"]


def test_a_call_from_another_thread_ends_the_turn(loop: PikaIOLoop) -> None:
    called: list[int] = []
    caller = threading.Timer(0.05, loop.add_callback, [lambda: called.append(threading.get_ident())])
    caller.start()
    began = monotonic()
    while not called and monotonic() < began + LIMIT_S:
        loop.turn(began + LIMIT_S)
    caller.join()
    assert called == [threading.get_ident()]


def test_what_a_call_asks_for_waits_for_the_next_turn(loop: PikaIOLoop) -> None:
    called: list[str] = []

    def again() -> None:
        called.append("again")
        loop.add_callback(again)

    loop.add_callback(again)
    loop.run_due()
    assert called == ["again"]


def test_a_file_is_watched_for_what_was_asked_last(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair
    seen: list[int] = []
    loop.add_handler(here.fileno(), lambda _, events: seen.append(events), PikaIOLoop.READ | PikaIOLoop.WRITE)
    loop.turn(monotonic())
    loop.update_handler(here.fileno(), PikaIOLoop.READ)
    loop.turn(monotonic())
    there.send(b"!")
    loop.turn(monotonic() + LIMIT_S)
    loop.remove_handler(here.fileno())
    loop.turn(monotonic())
    assert seen == [PikaIOLoop.WRITE, PikaIOLoop.READ]


def test_a_file_may_be_forgotten_by_what_was_called_before_it(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Both are ready; whichever comes first takes the other away."""
    here, there = pair
    seen: list[int] = []

    def only(fd: int, _events: int) -> None:
        seen.append(fd)
        loop.remove_handler(there.fileno() if fd == here.fileno() else here.fileno())

    loop.add_handler(here.fileno(), only, PikaIOLoop.WRITE)
    loop.add_handler(there.fileno(), only, PikaIOLoop.WRITE)
    loop.turn(monotonic())
    assert len(seen) == 1


def test_a_file_that_is_closed_already_is_a_fault_only_once(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, _ = pair
    loop.add_handler(here.fileno(), lambda *_: None, PikaIOLoop.READ)
    here.close()
    with pytest.raises(OSError, match="descriptor"):
        loop.turn(monotonic())
    loop.turn(monotonic())


def test_a_file_is_watched_though_its_number_was_anothers(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Which was closed, and nobody said so."""
    here, there = pair
    number = here.fileno()
    loop.add_handler(number, lambda *_: None, PikaIOLoop.READ)
    loop.turn(monotonic())
    here.close()
    seen: list[int] = []
    with socket.fromfd(there.fileno(), there.family, there.type) as other:
        assert other.fileno() == number
        loop.add_handler(number, lambda _, events: seen.append(events), PikaIOLoop.READ)
        loop.turn(monotonic() + LIMIT_S)
        loop.remove_handler(number)
    assert seen == [PikaIOLoop.READ]


def test_an_interest_that_comes_and_goes_costs_the_system_nothing(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    loop.add_handler(here.fileno(), lambda *_: None, PikaIOLoop.READ)
    loop.turn(monotonic())
    monkeypatch.setattr(loop._selector, "modify", lambda *_: pytest.fail("nothing changed"))
    loop.update_handler(here.fileno(), PikaIOLoop.READ | PikaIOLoop.WRITE)
    loop.update_handler(here.fileno(), PikaIOLoop.READ)
    loop.turn(monotonic())


def test_it_says_whether_there_was_anything_to_do(
    loop: PikaIOLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A file's event, a call, an alarm; that nobody need turn it again where there was none."""
    here, there = pair
    loop.add_handler(here.fileno(), lambda *_: here.recv(1), PikaIOLoop.READ)
    found = []
    for cause in (
        lambda: None,
        lambda: there.send(b"!"),
        lambda: None,
        lambda: loop.add_callback(lambda: None),
        lambda: None,
        lambda: loop.call_later(0.0, lambda: None),
        lambda: None,
    ):
        cause()
        loop.turn(monotonic())
        found.append(loop.was_idle)
    loop.remove_handler(here.fileno())
    assert found == [True, False, True, False, True, False, True]


def test_closed_it_holds_no_file(loop: PikaIOLoop) -> None:
    loop.close()
    loop.close()
    loop.wake()
    assert loop.is_closed
