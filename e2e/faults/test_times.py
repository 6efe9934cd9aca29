"""Jobs that hang, expire, snooze or die, and processes that are replaced, while workers or servers die."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from conditions import eventually
from job_audit import ExecutionRecord, Fault
from mindtrace.jobs.domain.dead_reasons import DeadReason
from mindtrace.jobs.domain.envelope import decode
from mindtrace.jobs.ports import Ack

from ..timed_consumer import ALERTS, DEAD_TTL_S, HANG, MORTAL, REJECTED, SNOOZE, TIMED
from .conftest import report
from .experiment import Experiment
from .matrix import NO_PROCESSES, NO_SERVER, row
from .server_targets import ServerTarget
from .supervised import PREFETCH, supervised
from .targets import Target

PLAIN = 20
LONG_AGO_S = 0.5


class TimedExperiment(Experiment):
    """An experiment whose worker is ``timed_consumer.py``, and what may happen to it."""

    snoozed: ExecutionRecord
    go: Path
    """Once it is there, no job snoozes any more."""

    def working(self, consumer: str, *options: str) -> AbstractContextManager[object]:
        """Start the worker."""
        self._consumer = consumer
        files = {"SNOOZED": self.snoozed.path, "GO": self.go}
        return supervised(self, f"timed_consumer:{consumer}", *options, **files)

    def work_off(self) -> None:
        while self.backend.counts(self.queue).waiting:
            with self.working(self._consumer):
                self.wait_until_drained()

    def kill_one(self) -> None:
        """Kill the process that received a job last."""
        pid = self.received.runs()[-1].pid
        began = len(self.received)
        with suppress(ProcessLookupError):  # it may have been replaced meanwhile
            os.kill(pid, signal.SIGKILL)
        self.audit.faults.append(Fault(frozenset([pid]), began, len(self.received), PREFETCH))

    def crash(self) -> None:
        """Kill the server, and start it again."""
        assert isinstance(self.target, ServerTarget)
        self.target.sync_metadata()
        began = len(self.received)
        self.target.crash()
        self.orchestrator.counts(self.queue)  # it answers again
        pids = frozenset(run.pid for run in self.received.runs())
        self.audit.faults.append(Fault(pids, began, len(self.received), PREFETCH))

    def excuse_hangs(self, ids: set[str]) -> None:
        """Have the audit expect that the jobs of processes run again which a hanging handler ended."""
        end = len(self.received)
        pids = [run.pid for run in self.started.runs() if run.job_id in ids]
        self.audit.faults += [Fault(frozenset([pid]), end, end, PREFETCH) for pid in pids]


Disturb = Callable[[TimedExperiment], None]
KILL, CRASH = TimedExperiment.kill_one, TimedExperiment.crash


@pytest.fixture
def timed(
    request: pytest.FixtureRequest,
    target: Target,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[TimedExperiment]:
    """An experiment with one of the schemas of ``timed_consumer.py``."""
    with ExitStack() as stack:
        schema = getattr(request, "param", TIMED)
        experiment = TimedExperiment(target, tmp_path, stack, schema)
        experiment.snoozed, experiment.go = ExecutionRecord(tmp_path / "snoozed"), tmp_path / "go"
        yield experiment
    report(request, target, experiment.totals, record_property)


# -- time limits ----------------------------------------------------------------------------------


def hang(timed: TimedExperiment, disturb: Disturb) -> None:
    """Have handlers hang, each twice, and disturb what ends them; the others' jobs are done."""
    hanging = {job.id for job in timed.publish(2, note=HANG, timeout_s=LONG_AGO_S)}
    timed.publish(PLAIN)
    with timed.working("Timed"):
        started = lambda: [run for run in timed.started.runs() if run.job_id in hanging]  # noqa: E731
        for count in (1, 3):
            eventually(lambda count=count: len(started()) >= count, f"{count} handlers hang")
            time.sleep(random.uniform(0.0, 1.2))  # before its limit, past it, or as its process is ended
            disturb(timed)
        timed.wait_until_drained()
    timed.excuse_hangs(hanging)
    letters = timed.backend.dead_letters(TIMED.name)
    assert {letter.id for letter in letters} == hanging
    assert {(letter.reason, letter.attempt) for letter in letters} == {(DeadReason.TIMED_OUT, 2)}
    timed.check(dead=len(hanging))


@row(
    "SIGKILL of workers whose handlers are past their time limits",
    *("LSE-1", "RTY-1", "RTY-3", "I1", "I6"),
    not_on=NO_PROCESSES,
)
def test_a_handler_past_its_limit_is_ended_though_workers_die(timed: TimedExperiment) -> None:
    hang(timed, KILL)


@row(
    "SIGKILL of the server while handlers are past their time limits",
    *("CON-1", "RTY-1", "I1", "I6"),
    not_on=NO_SERVER,
)
def test_a_handler_past_its_limit_is_ended_though_the_server_dies(timed: TimedExperiment) -> None:
    hang(timed, CRASH)


# -- expiry ---------------------------------------------------------------------------------------


def expire(timed: TimedExperiment, disturb: Disturb) -> None:
    """Have a worker find expired jobs among others, and disturb it: none runs, and each is a dead letter."""
    expired: set[str] = set()
    for _ in range(10):
        expired |= {job.id for job in timed.publish(10, expires_s=LONG_AGO_S)}
        timed.publish(10)
    time.sleep(LONG_AGO_S)  # for at least as long, they have waited
    with timed.working("Timed"):
        for goal in (10, 40):
            timed.wait_until_run(goal - timed.done_count())
            disturb(timed)
        timed.wait_until_drained()
    letters = timed.backend.dead_letters(TIMED.name, limit=1000)
    assert {letter.id for letter in letters} == expired
    assert {letter.reason for letter in letters} == {DeadReason.EXPIRED}
    assert not expired & {run.job_id for run in timed.started.runs()}
    timed.check(dead=len(expired))


@row("SIGKILL of workers that find jobs expired", "LSE-1", "DLQ-1", "I1", "I3", not_on=NO_PROCESSES)
def test_jobs_expire_though_workers_die(timed: TimedExperiment) -> None:
    expire(timed, KILL)


@row("SIGKILL of the server while jobs expire", "CON-1", "DLQ-4", "I1", "I3", not_on=NO_SERVER)
def test_jobs_expire_though_the_server_dies(timed: TimedExperiment) -> None:
    expire(timed, CRASH)


# -- snoozing -------------------------------------------------------------------------------------


def snooze(timed: TimedExperiment, disturb: Disturb) -> None:
    """Have jobs snooze again and again, and disturb it: they are done, as none has spent an attempt."""
    timed.publish(PLAIN, note=SNOOZE)
    timed.publish(PLAIN)
    with timed.working("Timed"):
        for goal in (PLAIN // 2, 3 * PLAIN):  # the first time, and later
            eventually(lambda goal=goal: len(timed.snoozed) >= goal, f"{goal} snoozed")
            disturb(timed)
        timed.go.touch()
        timed.wait_until_drained()
    timed.check()


@row("SIGKILL of workers whose jobs snooze", "SET-4", "DLY-1", "LSE-1", "I1", "I6", not_on=NO_PROCESSES)
def test_snoozed_jobs_come_back_though_workers_die(timed: TimedExperiment) -> None:
    snooze(timed, KILL)


@row("SIGKILL of the server while jobs snooze", "SET-4", "CON-1", "I1", "I6", not_on=NO_SERVER)
def test_snoozed_jobs_come_back_though_the_server_dies(timed: TimedExperiment) -> None:
    snooze(timed, CRASH)


# -- deaths ---------------------------------------------------------------------------------------


def die(timed: TimedExperiment, disturb: Disturb) -> None:
    """Have jobs die, and disturb it: each has its alert, and its dead letter is removed at its time."""
    timed.orchestrator.register(ALERTS)
    try:
        mortal = {job.id for job in timed.publish(2 * PLAIN, note=REJECTED)}
        timed.audit.dropped = len(mortal)
        timed.publish(PLAIN)
        alerts: list[str] = []
        with timed.working("Mortal"):
            for goal in (5, 20):
                eventually(lambda goal=goal: len(timed.started) >= goal, f"{goal} jobs ran")
                disturb(timed)

            def all_have_theirs() -> bool:
                alerts.extend(take_alerts(timed))
                return {*alerts} == mortal

            eventually(all_have_theirs, "each death has its alert")
            timed.wait_until_drained()
        eventually(lambda: timed.backend.counts(MORTAL.name).dead == 0, f"{DEAD_TTL_S} s are over")
        alerts += take_alerts(timed)
    finally:
        timed.backend.delete(ALERTS.name)
    assert {*alerts} == mortal
    if timed.backend.capabilities.atomic_then:
        assert set(Counter(alerts).values()) == {1}
    assert timed.check().done == PLAIN


def take_alerts(timed: TimedExperiment) -> Iterator[str]:
    """Take those that are there, and return the jobs that they are about."""
    with timed.backend.open_consumer(ALERTS.name) as consumer:
        while came := consumer.receive(100, 0.0):
            consumer.settle([Ack(each.receipt) for each in came])
            yield from (
                decode(each.body, ALERTS, attempt=1, max_bytes=10_000).payload.job_id for each in came
            )


IN_MORTAL = pytest.mark.parametrize("timed", [MORTAL], indirect=True, ids=["mortal"])


@IN_MORTAL
@row(
    "SIGKILL of workers whose dead jobs publish alerts, and are kept for a second",
    *("THEN-4", "DLQ-5", "LSE-1", "I1"),
    not_on=NO_PROCESSES,
)
def test_each_death_has_its_alert_and_its_end_though_workers_die(timed: TimedExperiment) -> None:
    die(timed, KILL)


@IN_MORTAL
@row(
    "SIGKILL of the server while dead jobs publish alerts, and are kept for a second",
    *("THEN-4", "DLQ-5", "CON-1", "I1"),
    not_on=NO_SERVER,
)
def test_each_death_has_its_alert_and_its_end_though_the_server_dies(timed: TimedExperiment) -> None:
    die(timed, CRASH)


# -- processes that are replaced ------------------------------------------------------------------


def replace(timed: TimedExperiment, disturb: Disturb) -> None:
    """Have processes be replaced after a few jobs, and disturb it."""
    log = timed.started.path.parent / "log"

    def have_been_replaced(count: int) -> bool:
        timed.refill(PLAIN)
        return log.read_text("utf-8").count("ended, and another takes its place") >= count

    timed.publish(PLAIN)
    with timed.working("Timed", "--max-jobs", "10"):
        for goal in (1, 2):
            eventually(partial(have_been_replaced, goal), f"{goal} processes were replaced")
            disturb(timed)
        timed.wait_until_drained()
    timed.check()


@row("SIGKILL of workers that are to be replaced", "LSE-1", "I1", "I3", not_on=NO_PROCESSES)
def test_workers_that_are_to_be_replaced_may_die(timed: TimedExperiment) -> None:
    replace(timed, KILL)


@row("SIGKILL of the server while workers are replaced", "CON-1", "I1", "I3", not_on=NO_SERVER)
def test_workers_are_replaced_though_the_server_dies(timed: TimedExperiment) -> None:
    replace(timed, CRASH)
