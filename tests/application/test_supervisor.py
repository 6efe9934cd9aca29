"""Processes under supervision, here made of plain objects: who is started, told, killed, and when."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from mindtrace.jobs import RetryPolicy
from mindtrace.jobs.application.process.signal_queue import AT_ONCE, WAKE, SignalQueue
from mindtrace.jobs.application.worker import supervisor
from mindtrace.jobs.application.worker.supervisor import CODE_CHANGED, RELOAD, SIGNALS, Supervisor

USAGE = 2
FINISHED = 100
"""How a process of these tests says that its work is done."""
OVERDUE = 101
"""Likewise, that another is to take its place."""


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
        self.asks_for_another: str | None = None
        self.leaves = False
        self.is_prepared = True
        self.on_begin: Callable[[], None] = lambda: None
        self.code: int | None = None
        self._signal_queue = signal_queue

    @property
    def finished(self) -> bool:
        return self.code == FINISHED

    @property
    def is_to_be_replaced(self) -> bool:
        return self.code == OVERDUE

    def poll(self) -> int | None:
        return self.code

    def begin(self) -> None:
        self.on_begin()

    def replace(self) -> None:
        """Note it; the test says when its jobs have ended."""
        self.leaves = True

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
        self.prepared: list[FakeProcess] = []
        """The successors, also those that began, which are among the started ones, too."""
        self.prepares_slowly = False
        self.options: dict[str, Any] = {}
        self.wanted: int | None = None
        """How many processes are to run; None is one in each slot."""
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
            self._prepare,
            slots,
            grace_s=3600.0,
            signal_queue=self.signal_queue,
            logger=logging.getLogger("tests.supervisor"),
            hopeless=lambda code: code == USAGE,
            on_tick=lambda: self.seen_at_ticks.append([process.code for process in self.started]),
            wanted=lambda: slots if self.wanted is None else self.wanted,
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

    def _prepare(self, slot: int) -> FakeProcess:
        if self.refusals:
            raise self.refusals.pop()
        process = FakeProcess(200 + len(self.prepared), self.signal_queue, **self.options)
        process.is_prepared = not self.prepares_slowly
        process.on_begin = lambda: self._note_start(slot, process)
        self.prepared.append(process)
        return process

    def _note_start(self, slot: int, process: FakeProcess) -> None:
        self.slots.append(slot)
        self.started.append(process)

    def _start(self, slot: int) -> FakeProcess:
        if self.refusals:
            raise self.refusals.pop()
        process = FakeProcess(100 + len(self.started), self.signal_queue, **self.options)
        self._note_start(slot, process)
        return process


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """In which nobody is killed for being late, and each signal counts however soon it comes."""
    monkeypatch.setattr(supervisor, "_MARGIN_S", 3600.0)
    monkeypatch.setattr(supervisor, "_TWICE_S", 0.0)
    monkeypatch.setattr(supervisor, "_PREPARES_S", 3600.0)
    monkeypatch.setattr(supervisor, "_DISMISSED_S", 3600.0)
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


def _has_started(world: World, count: int) -> bool:
    return len(world.started) == count


def test_one_that_asks_for_another_is_replaced_without_delay(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has given its jobs back, and nothing is wrong with it that would be wrong with the next."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=3600.0, max_delay_s=3600.0))
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    for so_far in range(1, 4):
        world.started[-1].end(OVERDUE)
        eventually(partial(_has_started, world, so_far + 1))
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.code == 0


def test_one_that_asks_for_another_while_all_stop_ends_well(world: World, eventually: Eventually) -> None:
    running = world.run(1, stubborn=True)
    eventually(lambda: len(world.started) == 1)
    world.signal_queue.post(signal.SIGTERM)
    eventually(lambda: world.started[0].signals)
    world.started[0].end(OVERDUE)
    wait(running)
    assert (len(world.started), world.code) == (1, 0)


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
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert world.started[1].signals == [], "the successor doesn't work yet"

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


@pytest.fixture
def _long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under which a process that is taken for dead has no successor."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=3600.0, max_delay_s=3600.0))


def _ask(world: World, process: FakeProcess, why: str = "it has run 10 jobs") -> None:
    process.asks_for_another = why
    world.signal_queue.post(signal.SIGCHLD)


@pytest.mark.usefixtures("_long_backoff")
def test_those_that_ask_for_others_are_replaced_one_after_the_other(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """The second only once the first one's successor works; no signal cuts the jobs short that run."""
    caplog.set_level(logging.INFO)
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    first, second = world.started
    world.options["ready"] = False
    _ask(world, first)
    eventually(lambda: first.leaves)
    _ask(world, second)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert not second.leaves, "jobs of the first may still run"
    first.end(OVERDUE)
    eventually(lambda: len(world.started) == 3)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert not second.leaves, "the successor doesn't work yet"

    world.started[2].ready = True
    world.signal_queue.post(WAKE)
    eventually(lambda: second.leaves)
    second.end(OVERDUE)
    eventually(lambda: len(world.started) == 4)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert first.signals == second.signals == []
    assert (world.slots, world.code) == ([0, 1, 0, 1], 0)
    assert "process 100 is to be replaced: it has run 10 jobs" in caplog.text
    assert "process 100 ended, and another takes its place" in caplog.text


@pytest.mark.usefixtures("_long_backoff")
def test_one_that_asks_works_on_until_its_successor_is_prepared(world: World, eventually: Eventually) -> None:
    """The successor begins once the first has ended, so that no more work at once than there are slots."""
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    (first,) = world.started
    _ask(world, first)
    eventually(lambda: len(world.prepared) == 1)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert not first.leaves, "nobody could take its place yet"
    world.prepared[0].is_prepared = True
    world.signal_queue.post(signal.SIGCHLD)
    eventually(lambda: first.leaves)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert world.started == [first], "its jobs may still run"
    first.end(OVERDUE)
    eventually(lambda: world.started == [first, *world.prepared])
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert len(world.prepared) == 1
    assert world.code == 0


@pytest.mark.usefixtures("_long_backoff")
def test_one_does_not_wait_for_ever_for_a_successor(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The import may wait for what the first holds, such as a lock, a port or a camera."""
    monkeypatch.setattr(supervisor, "_PREPARES_S", 0.0)
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    (first,) = world.started
    _ask(world, first)
    eventually(lambda: first.leaves)
    first.end(OVERDUE)
    eventually(lambda: world.started == [first, *world.prepared])
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert (len(world.prepared), world.code) == (1, 0)
    assert "process 200 still imports after 0 s" in caplog.text


@pytest.mark.usefixtures("_long_backoff")
@pytest.mark.parametrize("code", [0, FINISHED])
def test_no_stop_and_no_end_waits_for_the_import_of_a_successor(
    world: World, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It has no job; and it would be killed only after the grace period, or never."""
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: len(world.prepared) == 1)
    world.prepared[0].stubborn = True
    world.started[0].stubborn = True
    if code == 0:
        world.signal_queue.post(signal.SIGTERM)
    else:
        world.started[0].end(code)
    eventually(lambda: world.prepared[0].signals == [signal.SIGTERM])
    monkeypatch.setattr(supervisor, "_DISMISSED_S", 0.0)
    if code == 0:
        ticks = len(world.seen_at_ticks)
        eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
        assert world.prepared[0].signals == [signal.SIGTERM], "the first still works"
        world.started[0].end(code)
    world.signal_queue.post(WAKE)
    wait(running)
    assert world.prepared[0].signals == [signal.SIGTERM, signal.SIGKILL]
    assert world.code == 0


@pytest.mark.usefixtures("_long_backoff")
def test_one_whose_successor_ends_too_early_is_replaced_all_the_same(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: len(world.prepared) == 1)
    world.prepared[0].end(3)
    eventually(lambda: world.started[0].leaves)
    world.started[0].end(OVERDUE)
    eventually(lambda: len(world.started) == 2)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert len(world.prepared) == 1
    assert "process 200 died with exit code 3 before it could take the place of another" in caplog.text


@pytest.mark.usefixtures("_long_backoff")
def test_one_is_replaced_though_no_successor_can_be_prepared(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    running = world.run(1)
    eventually(lambda: world.is_proven)
    world.refusals = [OSError("no memory")]
    _ask(world, world.started[0])
    eventually(lambda: world.started[0].leaves)
    world.started[0].end(OVERDUE)
    eventually(lambda: len(world.started) == 2)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert "no process can be prepared: no memory" in caplog.text


@pytest.mark.usefixtures("_long_backoff")
@pytest.mark.parametrize("number", [signal.SIGTERM, RELOAD, CODE_CHANGED])
def test_a_successor_is_not_needed_any_more_once_all_stop_or_start_anew(
    world: World, eventually: Eventually, number: int
) -> None:
    """A successor may have imported old code."""
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: len(world.prepared) == 1)
    world.signal_queue.post(number)
    eventually(lambda: world.prepared[0].signals == [signal.SIGTERM])
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.prepared[0] not in world.started


def test_a_successor_is_not_needed_any_more_once_its_predecessor_has_finished(
    world: World, eventually: Eventually
) -> None:
    """As in a burst; the worker ends once the successor has."""
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: len(world.prepared) == 1)
    world.prepared[0].stubborn = True
    world.started[0].end(FINISHED)
    eventually(lambda: world.prepared[0].signals == [signal.SIGTERM])
    assert running.is_alive()
    world.prepared[0].end(0)
    wait(running)
    assert (len(world.started), world.code) == (1, 0)


@pytest.mark.usefixtures("_long_backoff")
def test_a_successor_takes_the_place_of_one_that_a_time_limit_ended(
    world: World, eventually: Eventually
) -> None:
    """Also if it isn't prepared yet: it has begun to be, and another would only begin later."""
    world.prepares_slowly = True
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: len(world.prepared) == 1)
    world.started[0].end(OVERDUE)
    eventually(lambda: world.started[1:] == world.prepared)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)


def test_one_that_leaves_is_stopped_with_the_others(world: World, eventually: Eventually) -> None:
    """Then its jobs have the grace period, too."""
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    _ask(world, world.started[0])
    eventually(lambda: world.started[0].leaves)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert [process.signals for process in world.started] == [[signal.SIGTERM]] * 2
    assert world.code == 0


@pytest.mark.usefixtures("_long_backoff")
def test_one_is_replaced_though_another_has_finished(world: World, eventually: Eventually) -> None:
    """As in a burst: what has found its queues empty needs no successor."""
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    world.started[1].end(FINISHED)
    _ask(world, world.started[0])
    eventually(lambda: world.started[0].leaves)
    world.started[0].end(OVERDUE)
    eventually(lambda: len(world.started) == 3)
    world.started[2].end(FINISHED)
    wait(running)

    assert (world.slots, world.code) == ([0, 1, 0], 0)


def test_one_that_dies_while_it_leaves_has_died(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor waits, as that of any other; and may ask in its turn."""
    monkeypatch.setattr(supervisor, "_BACKOFF", RetryPolicy(base_delay_s=0.01))
    running = world.run(1)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: world.started[0].leaves)
    world.started[0].end(-signal.SIGKILL)
    eventually(lambda: len(world.started) == 2)
    assert "process 100 died of SIGKILL; another starts in" in caplog.text

    _ask(world, world.started[1])
    eventually(lambda: world.started[1].leaves)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)


def test_a_reload_waits_for_one_that_leaves(world: World, eventually: Eventually) -> None:
    """Or two would be away at once; and the one that leaves has its jobs finished as before."""
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    first, second = world.started
    _ask(world, second)
    eventually(lambda: second.leaves)
    world.signal_queue.post(RELOAD)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert first.signals == second.signals == []

    second.end(OVERDUE)
    eventually(lambda: len(world.started) == 4)
    assert (first.signals, second.signals) == ([signal.SIGTERM], [])
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.slots == [0, 1, 1, 0]


def _want(world: World, count: int) -> None:
    world.wanted = count
    world.signal_queue.post(WAKE)


@pytest.mark.usefixtures("_long_backoff")
def test_as_many_run_as_are_wanted(
    world: World, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """The last ones end, after their jobs; and start anew when they are wanted again."""
    caplog.set_level(logging.INFO)
    world.wanted = 1
    running = world.run(3)
    eventually(lambda: world.is_proven)
    ticks = len(world.seen_at_ticks)
    eventually(lambda: len(world.seen_at_ticks) > ticks + 2)
    assert world.slots == [0]
    _want(world, 3)
    eventually(lambda: len(world.started) == 3)
    _want(world, 1)
    eventually(lambda: all(process.leaves for process in world.started[1:]))
    for process in world.started[1:]:
        process.end(OVERDUE)
    eventually(lambda: caplog.text.count("ended: it was one too many") == 2)
    assert len(world.started) == 3
    _want(world, 2)
    eventually(lambda: len(world.started) == 4)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)

    assert (world.slots, world.code) == ([0, 1, 2, 1], 0)
    assert [process.signals for process in world.started] == [
        [signal.SIGTERM], [], [], [signal.SIGTERM]
    ]  # fmt: skip


@pytest.mark.usefixtures("_long_backoff")
def test_one_that_is_wanted_again_while_it_leaves_is_replaced(world: World, eventually: Eventually) -> None:
    running = world.run(2)
    eventually(lambda: len(world.started) == 2)
    _want(world, 1)
    eventually(lambda: world.started[1].leaves)
    _want(world, 2)
    world.started[1].end(OVERDUE)
    eventually(lambda: len(world.started) == 3)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.slots == [0, 1, 1]


def test_a_burst_ends_though_more_might_have_run(world: World, eventually: Eventually) -> None:
    world.wanted = 1
    running = world.run(3)
    eventually(lambda: len(world.started) == 1)
    world.started[0].end(FINISHED)
    wait(running)
    assert (len(world.started), world.code) == (1, 0)


def test_one_that_asks_is_replaced_though_fewer_run_than_might(world: World, eventually: Eventually) -> None:
    world.wanted = 1
    running = world.run(3)
    eventually(lambda: len(world.started) == 1)
    _ask(world, world.started[0])
    eventually(lambda: world.started[0].leaves)
    world.started[0].end(OVERDUE)
    eventually(lambda: len(world.started) == 2)
    world.signal_queue.post(signal.SIGTERM)
    wait(running)
    assert world.slots == [0, 0]
