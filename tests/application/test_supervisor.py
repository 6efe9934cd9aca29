"""Processes under supervision, here made of plain objects: who is started, told, killed, and when."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mindtrace.jobs import RetryPolicy
from mindtrace.jobs.application.signals.signal_queue import AT_ONCE, WAKE, SignalQueue
from mindtrace.jobs.application.worker import supervisor
from mindtrace.jobs.application.worker.supervisor import CODE_CHANGED, RELOAD, SIGNALS, Supervisor

USAGE = 2
FINISHED = 100
"""How a process of these tests says that its work is done."""


class FakeProcess:
    """A process that ends when a test says so, or as it does on a signal."""

    def __init__(
        self,
        pid: int,
        signal_queue: SignalQueue,
        *,
        ready: bool = True,
        stubborn: bool = False,
        ends_with: int = 0,
    ) -> None:
        self.pid = pid
        self.ready = ready
        self.stubborn = stubborn
        self.ends_with = ends_with
        self.signals: list[int] = []
        self.code: int | None = None
        self._signal_queue = signal_queue

    @property
    def finished(self) -> bool:
        return self.code == FINISHED

    def poll(self) -> int | None:
        return self.code

    def end(self, code: int) -> None:
        self.code = code
        self._signal_queue.post(WAKE)

    def send_signal(self, number: int, /) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.end(-signal.SIGKILL)
        elif not self.stubborn:
            self.end(self.ends_with)


class World:
    """A supervisor on a thread, and every process that it has started."""

    def __init__(self, signal_queue: SignalQueue) -> None:
        self.signal_queue = signal_queue
        self.started: list[FakeProcess] = []
        self.slots: list[int] = []
        self.options: dict[str, Any] = {}
        self.refusals: list[OSError] = []
        """Why the next starts fail."""
        self.code: int | None = None
        self.seen_at_ticks: list[list[int | None]] = []
        """With what the processes had ended, whenever the supervisor told its health."""
        self.supervisor: Supervisor | None = None

    def run(self, slots: int, **options: Any) -> threading.Thread:
        self.options = options
        supervisor = self.supervisor = Supervisor(
            self._start,
            slots,
            grace_s=3600.0,
            signal_queue=self.signal_queue,
            logger=logging.getLogger("tests.supervisor"),
            hopeless=lambda code: code == USAGE,
            on_tick=lambda: self.seen_at_ticks.append([process.code for process in self.started]),
        )

        def supervise() -> None:
            self.code = supervisor.run()

        thread = threading.Thread(target=supervise, daemon=True)
        thread.start()
        return thread

    @property
    def is_proven(self) -> bool:
        """Whether the supervisor has seen that a process works."""
        return self.supervisor is not None and self.supervisor._proven

    def _start(self, slot: int) -> FakeProcess:
        if self.refusals:
            raise self.refusals.pop()
        process = FakeProcess(100 + len(self.started), self.signal_queue, **self.options)
        self.slots.append(slot)
        self.started.append(process)
        return process


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """In which nobody is killed for being late, and each signal counts however soon it comes."""
    monkeypatch.setattr(supervisor, "_MARGIN_S", 3600.0)
    monkeypatch.setattr(supervisor, "_TWICE_S", 0.0)
    with SignalQueue(SIGNALS) as signal_queue:
        yield World(signal_queue)


def wait(thread: threading.Thread) -> None:
    thread.join(60)
    assert not thread.is_alive()


Eventually = Callable[[Callable[[], object]], None]


def test_a_process_that_ends_within_a_tick_is_seen_once_more(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the health file of a worker that found its queues nearly empty would never be written."""
    monkeypatch.setattr(supervisor, "_TICK_S", 3600.0)
    monkeypatch.setattr(supervisor, "_PROVING_S", 3600.0)
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    world.started[0].end(FINISHED)
    wait(running)

    assert world.code == 0
    assert world.seen_at_ticks[-1] == [FINISHED]


def test_a_signal_is_passed_on_and_the_end_of_all_awaited(world: World, eventually: Eventually) -> None:
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    world.signal_queue.post(signal.SIGINT)
    wait(running)

    assert [process.signals for process in world.started] == [[signal.SIGTERM]] * 2
    assert world.slots == [0, 1]
    assert world.code == 0


def test_all_that_finish_by_themselves_end_it(world: World, eventually: Eventually) -> None:
    """As in a burst; none is started anew."""
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    for process in world.started:
        process.end(FINISHED)
    wait(running)

    assert (len(world.started), world.code) == (2, 0)


@pytest.mark.parametrize("code", [0, -signal.SIGTERM, 70, 130])
def test_one_that_ends_without_having_finished_or_been_told_is_replaced(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Though it exits with 0: somebody else stopped it, or a handler ended it."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=0.01))
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    world.started[0].end(code)
    eventually(lambda: len(world.started) == 3)
    assert world.slots == [0, 1, 0]

    for process in world.started[1:]:
        process.end(FINISHED)
    wait(running)
    assert world.code == 0


@pytest.mark.parametrize("code", [0, -signal.SIGTERM])
def test_a_signal_to_all_processes_is_a_stop_and_no_error(
    world: World,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """As systemd sends it: the others may have ended before the supervisor has seen its own."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=60, max_delay_s=60))
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    for process in world.started:
        process.end(code)
    eventually(lambda: "another starts in" in caplog.text)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert (len(world.started), world.code) == (2, 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_cannot_be_started_for_now_is_started_later(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as where the machine has too many processes; the others work on."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=0.01))
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    world.refusals = [BlockingIOError(), BlockingIOError()]
    world.started[0].end(-signal.SIGKILL)
    eventually(lambda: len(world.started) == 3)
    assert not world.refusals
    assert world.started[1].code is None

    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.code == 0


def test_one_that_dies_is_started_anew_later_and_later(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """After one second, then two."""
    running = world.run(1)
    eventually(lambda: world.is_proven)
    for count, delay_s in ((2, 1), (3, 2)):
        died_s = time.monotonic()
        world.started[-1].end(-signal.SIGSEGV)
        eventually(lambda count=count: len(world.started) == count)
        assert time.monotonic() - died_s >= delay_s
        assert f"process {98 + count} died of SIGSEGV; another starts in {delay_s} s" in caplog.text
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert world.slots == [0, 0, 0]
    assert world.code == 0


def test_a_command_that_cannot_work_is_given_up_at_once(world: World, eventually: Eventually) -> None:
    """With its own exit code, and before a second process has said the same."""
    running = world.run(3, ready=False)
    eventually(lambda: len(world.started) == 1)
    world.started[0].end(USAGE)
    wait(running)

    assert (len(world.started), world.code) == (1, USAGE)


def test_what_worked_once_is_not_given_up(world: World, eventually: Eventually) -> None:
    """Such as a module that is being edited."""
    running = world.run(1)
    eventually(lambda: world.is_proven)
    world.started[0].end(USAGE)
    eventually(lambda: len(world.started) == 2)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)


def test_a_second_signal_is_passed_on_too_and_whoever_stays_is_killed(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = world.run(1, stubborn=True)
    eventually(lambda: len(world.started) == 1)
    world.signal_queue.post(signal.SIGTERM)
    eventually(lambda: world.started[0].signals)
    monkeypatch.setattr(supervisor, "_MARGIN_S", 0.0)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert world.started[0].signals == [signal.SIGTERM, AT_ONCE, signal.SIGKILL]
    assert world.code == 128 + signal.SIGKILL


def test_a_signal_that_comes_twice_at_once_is_one(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` sends its signal to the process, and then to the process group."""
    monkeypatch.setattr(supervisor, "_TWICE_S", 3600.0)
    running = world.run(1, stubborn=True)
    eventually(lambda: len(world.started) == 1)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        world.signal_queue.post(number)
    eventually(lambda: world.started[0].signals)
    world.started[0].end(0)
    wait(running)

    assert world.started[0].signals == [signal.SIGTERM]
    assert world.code == 0


def test_one_that_is_told_before_it_can_listen_ends_well(world: World, eventually: Eventually) -> None:
    """By the signal itself: it had nothing in hand."""
    running = world.run(1, ready=False, stubborn=True)
    eventually(lambda: len(world.started) == 1)
    world.signal_queue.post(signal.SIGTERM)
    eventually(lambda: world.started[0].signals)
    world.started[0].end(-signal.SIGTERM)
    wait(running)

    assert world.code == 0


def test_a_reload_stops_one_after_the_other_and_starts_each_anew(
    world: World, eventually: Eventually
) -> None:
    """The second only once the first one's successor works."""
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    world.options["ready"] = False
    world.signal_queue.post(RELOAD)
    eventually(lambda: len(world.started) == 3)
    time.sleep(0.1)  # in which nothing is to happen
    assert world.started[1].signals == []

    world.started[2].ready = True
    world.signal_queue.post(WAKE)
    eventually(lambda: len(world.started) == 4)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert world.slots == [0, 1, 0, 1]
    assert world.code == 0


def test_a_change_of_the_code_stops_all_at_once_also_those_that_start(
    world: World, eventually: Eventually
) -> None:
    """Any of them would run the old code once more."""
    running = world.run(2, stubborn=True)
    eventually(lambda: len(world.started) == 2)
    world.options |= {"ready": False, "stubborn": False}
    world.signal_queue.post(CODE_CHANGED)
    eventually(lambda: all(each.signals == [signal.SIGTERM] for each in world.started))
    for each in world.started[:2]:
        each.end(0)
    eventually(lambda: len(world.started) == 4)
    world.signal_queue.post(CODE_CHANGED)
    eventually(lambda: len(world.started) == 6)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert [each.signals for each in world.started] == [[signal.SIGTERM]] * 6
    assert world.code == 0


def test_one_that_a_change_of_the_code_stops_before_it_worked_proves_nothing(
    world: World, eventually: Eventually
) -> None:
    """If the next one is hopeless, so is the command."""
    running = world.run(1, ready=False, ends_with=-signal.SIGTERM)
    eventually(lambda: len(world.started) == 1)
    world.signal_queue.post(CODE_CHANGED)
    eventually(lambda: len(world.started) == 2)
    world.started[1].end(USAGE)
    wait(running)

    assert world.code == USAGE


def test_one_that_is_cut_short_by_a_reload_has_not_died(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Its successor waits for nothing."""
    running = world.run(1, ends_with=130)
    eventually(lambda: len(world.started) == 1)
    world.signal_queue.post(RELOAD)
    eventually(lambda: len(world.started) == 2)
    world.started[-1].ends_with = 0
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert not [record for record in caplog.records if "died" in record.getMessage()]
    assert world.code == 0
