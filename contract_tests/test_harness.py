"""What the suite says of a harness with which it proves less."""

import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from subprocess import PIPE

import pytest

from conditions import LIMIT_S
from mindtrace.jobs.contract import run, run_contract
from mindtrace.jobs.contract.broken import BrokenHarness, Fault
from mindtrace.jobs.contract.broken.fault_registry import everywhere
from mindtrace.jobs.contract.broken.pass_through import BrokenConsumer, PassThrough
from mindtrace.jobs.contract.check_context import CheckContext
from mindtrace.jobs.contract.checks.leftovers import NoSecretsWarning
from mindtrace.jobs.contract.lateness import Lateness
from mindtrace.jobs.contract.missing_hooks import untried
from mindtrace.jobs.contract.profiles import PROFILES
from mindtrace.jobs.contract.registry import Check
from mindtrace.jobs.contract.violation import demand
from mindtrace.jobs.ports import Delivery

from .harnesses import LocalHarness, ShortTimeoutHarness


class ForgetfulHarness(LocalHarness):
    secrets = ()


def test_what_a_harness_has_no_hook_for_is_said_with_the_clauses() -> None:
    results = list(run_contract(LocalHarness(), profile="quick", clauses=["PUB-4"]))
    lines = untried((result.missing_hooks, result.clauses) for result in results)

    assert not [result for result in results if result.broken]
    hooks = [line.partition("'s ")[2].partition(":")[0] for line in lines]
    assert hooks == ["cut_off", "cut_request", "refuse"]
    assert all("PUB-4" in line for line in lines)


class PasswordHarness(LocalHarness):
    secrets = ("correct-horse",)


def test_a_harness_that_names_no_secrets_is_warned_of() -> None:
    with pytest.warns(NoSecretsWarning, match="Forgetful: the harness names no secrets"):
        results = list(run_contract(ForgetfulHarness(), profile="quick", clauses=["SEC-3"]))

    assert not [result for result in results if result.broken]


@pytest.mark.parametrize("harness", [LocalHarness, PasswordHarness], ids=["has none", "names them"])
def test_a_harness_that_says_what_is_secret_is_not(harness: type[LocalHarness]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(run_contract(harness(), profile="quick", clauses=["SEC-3"]))

    assert not [result for result in results if result.broken]


def held_up(late_s: list[float]) -> type[Lateness]:
    """A machine that stands still for so long, one time after the other."""

    class HeldUp(Lateness):
        def __exit__(self, *_: object) -> None:
            super().__exit__()
            self.worst_s = late_s.pop(0)

    return HeldUp


@pytest.mark.parametrize(
    ("late_s", "fails", "broken"),
    [
        ([2.0, 0.0], 1, None),
        ([2.0, 3.0, 0.0], 2, None),
        ([2.0, 3.0, 1.0], 3, "RCV-1"),
        ([0.0], 1, "RCV-1"),
        ([2.0], 0, None),
    ],
    ids=["late once", "late twice", "always late", "never late", "late, and passes"],
)
def test_a_check_that_fails_is_repeated_only_where_the_machine_stood_still(
    late_s: list[float], fails: int, broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def tried(_: CheckContext) -> None:
        nonlocal tries
        tries += 1
        demand("RCV-1", tries > fails, "nothing came")

    monkeypatch.setattr(run, "Lateness", held_up(list(late_s)))
    result, error = run.run_check(
        CheckContext(LocalHarness(), PROFILES["quick"]), Check(clauses=("RCV-1", "LSE-1"), run=tried)
    )

    assert (result.broken, tries, result.late_s) == (broken, len(late_s), max(late_s))
    assert (error is None) is (broken is None)
    assert ("stood still for 3.0 s" in (result.error or "")) is (len(late_s) == 3 and broken is not None)


def test_a_process_that_is_stopped_is_late() -> None:
    script = "import sys, time; from mindtrace.jobs.contract.lateness import Lateness\n"
    script += "with Lateness() as lateness: print(flush=True); sys.stdin.read(1)\nprint(lateness.worst_s)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        process.send_signal(signal.SIGCONT)
        worst_s = float(process.communicate("\n", LIMIT_S)[0])

    assert worst_s >= 0.6


class NeverReturns(PassThrough):
    """A receive that finds nothing waits until its consumer is closed."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.closed = threading.Event()

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        if not (deliveries := super().receive(consumer, max_jobs, 0.0)) and timeout_s:
            self.closed.wait()
        return deliveries

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        super().close_consumer(consumer)
        self.closed.set()


class DeafHarness(BrokenHarness):
    """Makes such an adapter, on a clock that can't be moved."""

    def __init__(self) -> None:
        super().__init__(ShortTimeoutHarness(), Fault(NeverReturns, ("RCV-1",), everywhere))
        self.virtual_time = False


def test_an_adapter_that_never_returns_is_accused_of_it_where_time_is_real() -> None:
    """The suite hung there, as it called such an adapter itself."""

    def wait_in_vain(context: CheckContext) -> None:
        with context.queue() as queue:
            queue.receive(queue.consumer(), timeout_s=0.01)

    context = CheckContext(DeafHarness(), PROFILES["quick"])
    result, _ = run.run_check(context, Check(clauses=("RCV-1",), run=wait_in_vain))

    assert result.broken == "RCV-1"
    assert "should have returned within" in (result.error or "")
