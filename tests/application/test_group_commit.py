"""Group commit: who publishes while another does joins the next batch; each gets its own outcome."""

import contextlib
import itertools
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from conditions import LIMIT_S
from interrupts import interrupt_at
from mindtrace.jobs import (
    JobSchema,
    LocalClient,
    Orchestrator,
    PublishOutcome,
    PublishStatus,
    job_from_schema,
)
from mindtrace.jobs.application.publishing import group_commit
from mindtrace.jobs.application.publishing.group_commit import GroupCommit
from mindtrace.jobs.errors import (
    BackendError,
    BackendUnavailable,
    BodyTooLarge,
    InvalidPayload,
    PublishUnknown,
    QueueNotFound,
    UsageError,
)
from mindtrace.jobs.ports import Message


class Gate(LocalClient):
    """Queues in memory whose first publish waits for ``open``; it records each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        self.answers: list[Callable[[Sequence[Message]], list[PublishOutcome]]] = []
        """What to do in place of publishing, for each batch in turn; then batches are published."""

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self.batches.append([message.id for message in messages])
        if not self.entered.is_set():
            self.entered.set()
            assert self.open.wait(LIMIT_S)
        if self.answers:
            return self.answers.pop(0)(messages)
        return super().publish(queue, messages)


def failing(error: BaseException) -> Callable[[Sequence[Message]], list[PublishOutcome]]:
    def answer(_messages: Sequence[Message]) -> list[PublishOutcome]:
        raise error

    return answer


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate
        gate.open.set()


@pytest.fixture
def jobs(gate: Gate, schema: JobSchema[Any, Any]) -> Orchestrator:
    orchestrator = Orchestrator(gate)
    orchestrator.register(schema)
    return orchestrator


Publish = Callable[..., Any]


@pytest.fixture
def publish(jobs: Orchestrator, gate: Gate, background: Any, schema: Any, eventually: Any) -> Publish:
    """Publish a job in a thread of its own; return once it is at the gate, or in the waiting line."""
    commit = jobs.group_commits["points"]

    def publish(id_: str, work: Any = None) -> Any:
        before, is_first = len(commit._waiting), not gate.entered.is_set()
        work = job_from_schema(schema, {}, id=id_) if work is None else work
        future = background(jobs.publish, "points", work)
        if is_first:
            assert gate.entered.wait(LIMIT_S)
        else:
            eventually(lambda: len(commit._waiting) > before or future.done())
        return future

    return publish


def test_who_comes_meanwhile_shares_the_next_batch(publish: Publish, gate: Gate, jobs: Orchestrator) -> None:
    """In the order in which they came; each gets its own id."""
    ids = ["first", *(f"job-{n}" for n in range(9))]
    futures = [publish(id_) for id_ in ids]
    gate.open.set()

    assert [future.result(LIMIT_S) for future in futures] == ids
    assert gate.batches == [["first"], ids[1:]]
    assert jobs.count_queue_messages("points") == 10


def test_who_is_alone_publishes_in_its_own_thread(schema: Any) -> None:
    """Without waiting for anyone."""
    threads = []

    class Noting(LocalClient):
        def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
            threads.append((threading.get_ident(), len(messages)))
            return super().publish(queue, messages)

    jobs = Orchestrator(Noting())
    jobs.register(schema)
    for _ in range(3):
        jobs.publish("points", {})
    assert threads == [(threading.get_ident(), 1)] * 3


def test_a_group_is_bounded_in_number_and_bytes(
    publish: Publish, gate: Gate, monkeypatch: pytest.MonkeyPatch, schema: Any
) -> None:
    monkeypatch.setattr(group_commit, "MAX_JOBS", 4)
    futures = [publish(f"job-{n}") for n in range(8)]
    gate.open.set()
    for future in futures:
        future.result(LIMIT_S)
    assert [len(batch) for batch in gate.batches] == [1, 4, 3]


def test_a_large_job_has_a_group_of_its_own(
    publish: Publish, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BYTES", 1)
    futures = [publish(f"job-{n}") for n in range(4)]
    gate.open.set()
    for future in futures:
        future.result(LIMIT_S)
    assert [len(batch) for batch in gate.batches] == [1, 1, 1, 1]


def test_the_jobs_of_a_thread_arrive_in_its_order(jobs: Orchestrator, gate: Gate, background: Any) -> None:
    """However many threads publish besides."""
    gate.open.set()
    futures = [
        background(lambda t: [jobs.publish("points", {"x": t, "y": n}) for n in range(200)], thread)
        for thread in range(8)
    ]
    for future in futures:
        future.result(LIMIT_S)
    got = [job.payload for job in iter(lambda: jobs.receive_message("points"), None)]
    for thread in range(8):
        assert [payload.y for payload in got if payload.x == thread] == list(range(200))


# -- each its own error ---------------------------------------------------------------------------


def test_an_invalid_job_harms_no_other(publish: Publish, gate: Gate, jobs: Orchestrator, schema: Any) -> None:
    jobs.max_body_bytes = 400
    first, wrong = publish("first"), publish("wrong", {"x": "one"})
    large = publish("large", job_from_schema(schema, {}, headers={"trace": "x" * 400}))
    right = publish("right")
    gate.open.set()

    assert (first.result(LIMIT_S), right.result(LIMIT_S)) == ("first", "right")
    with pytest.raises(InvalidPayload):
        wrong.result(LIMIT_S)
    with pytest.raises(BodyTooLarge):
        large.result(LIMIT_S)


def test_an_id_that_is_twice_in_a_group_is_one_job(publish: Publish, gate: Gate, jobs: Orchestrator) -> None:
    futures = [publish("first"), publish("same"), publish("same")]
    gate.open.set()
    assert [future.result(LIMIT_S) for future in futures] == ["first", "same", "same"]
    assert jobs.count_queue_messages("points") == 2


@pytest.mark.parametrize("error", [QueueNotFound("gone"), BackendUnavailable("away")], ids=repr)
def test_an_error_of_the_broker_reaches_all_of_its_group_and_nobody_else(
    publish: Publish, gate: Gate, error: BackendError
) -> None:
    """Each gets an error of its own, which it may change by raising it."""
    gate.answers = [gate_publish(gate), failing(error)]
    futures = [publish("first"), publish("a"), publish("b")]
    gate.open.set()

    assert futures[0].result(LIMIT_S) == "first"
    raised = [future.exception(LIMIT_S) for future in futures[1:]]
    assert [type(each) for each in raised] == [type(error)] * 2
    assert [str(each) for each in raised] == [str(error)] * 2
    assert raised[0] is not raised[1]
    assert publish("after").result(LIMIT_S) == "after"


def test_an_error_that_one_job_may_have_caused_reaches_that_one(publish: Publish, gate: Gate) -> None:
    """Those published with it are published on their own."""

    def pick(messages: Sequence[Message]) -> list[PublishOutcome]:
        if any(message.id == "bad" for message in messages):
            raise BackendError("no room for its priority")
        return LocalClient.publish(gate, "points", messages)

    gate.answers = [pick] * 5
    futures = [publish("first"), publish("a"), publish("bad"), publish("b")]
    gate.open.set()

    assert [future.result(LIMIT_S) for future in (futures[0], futures[1], futures[3])] == ["first", "a", "b"]
    with pytest.raises(BackendError, match="no room"):
        futures[2].result(LIMIT_S)


def test_an_unknown_outcome_reaches_exactly_whom_it_concerns(publish: Publish, gate: Gate) -> None:
    away = BackendUnavailable("broke")

    def half(messages: Sequence[Message]) -> list[PublishOutcome]:
        known = LocalClient.publish(gate, "points", messages[:2])
        return known + [PublishOutcome(message.id, PublishStatus.UNKNOWN, away) for message in messages[2:]]

    gate.answers = [gate_publish(gate), half]
    futures = [publish(id_) for id_ in ("first", "a", "b", "c", "d")]
    gate.open.set()

    assert [future.result(LIMIT_S) for future in futures[:3]] == ["first", "a", "b"]
    raised = [future.exception(LIMIT_S) for future in futures[3:]]
    assert [type(each) for each in raised] == [PublishUnknown] * 2
    assert [each.__cause__.args for each in raised] == [away.args] * 2
    assert "job c" in str(raised[0])


def rejected(messages: Sequence[Message]) -> list[PublishOutcome]:
    cause = BackendUnavailable("away")
    return [PublishOutcome(message.id, PublishStatus.REJECTED, cause) for message in messages]


def unconfirmed(messages: Sequence[Message]) -> list[PublishOutcome]:
    cause = BackendUnavailable("no answer")
    return [PublishOutcome(message.id, PublishStatus.UNKNOWN, cause) for message in messages]


@pytest.mark.parametrize(
    ("meets_outage", "told"),
    [
        (failing(BackendUnavailable("away")), "^away$"),
        (rejected, "^away$"),
        (unconfirmed, "not sent, as the broker didn't confirm the job before: no answer"),
    ],
    ids=["away", "rejected", "unconfirmed"],
)
@pytest.mark.parametrize("leads", ["alone", "for a group"])
def test_who_waited_for_long_fails_with_the_outage_that_it_waited_for(
    publish: Publish,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    meets_outage: Callable[[Sequence[Message]], list[PublishOutcome]],
    told: str,
    leads: str,
) -> None:
    """Its own try would take as long once more. Each gets an error of its own."""
    monkeypatch.setattr(group_commit, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(group_commit, "MAX_JOBS", 1)
    gate.answers = [meets_outage] if leads == "alone" else [gate_publish(gate), meets_outage]
    futures = [publish(id_) for id_ in ("first", "second", "third", "fourth")]
    gate.open.set()

    tried = 1 if leads == "alone" else 2
    assert isinstance(futures[tried - 1].exception(LIMIT_S), BackendUnavailable)
    raised = [future.exception(LIMIT_S) for future in futures[tried:]]
    assert [type(each) for each in raised] == [BackendUnavailable] * (4 - tried)
    assert all(re.search(told, str(each)) for each in raised), raised
    assert len({id(each) for each in raised}) == len(raised)
    assert gate.batches == [["first"], ["second"]][:tried]
    assert publish("after").result(LIMIT_S) == "after"


def test_a_group_that_falls_apart_tries_no_more_of_its_jobs_once_the_broker_is_away(
    publish: Publish, gate: Gate
) -> None:
    """Each would wait for as long as the one before."""
    no_room, away = BackendError("no room for its priority"), BackendUnavailable("away")
    gate.answers = [gate_publish(gate), failing(no_room), gate_publish(gate), failing(away)]
    futures = [publish(id_) for id_ in ("first", "a", "b", "c", "d")]
    gate.open.set()

    assert [future.result(LIMIT_S) for future in futures[:2]] == ["first", "a"]
    raised = [future.exception(LIMIT_S) for future in futures[2:]]
    assert [(type(each), str(each)) for each in raised] == [(BackendUnavailable, "away")] * 3
    assert len({id(each) for each in raised}) == 3
    assert gate.batches == [["first"], ["a", "b", "c", "d"], ["a"], ["b"]]


def test_an_outage_is_seen_in_whichever_job_of_a_group_met_it(
    publish: Publish, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(group_commit, "MAX_JOBS", 2)

    def half(messages: Sequence[Message]) -> list[PublishOutcome]:
        own_fault = PublishOutcome(messages[0].id, PublishStatus.REJECTED, InvalidPayload("its own fault"))
        return [own_fault, *unconfirmed(messages[1:])]

    gate.answers = [gate_publish(gate), half]
    futures = [publish(id_) for id_ in ("first", "bad", "b", "waits")]
    gate.open.set()

    raised = [future.exception(LIMIT_S) for future in futures[1:]]
    assert [type(each) for each in raised] == [InvalidPayload, PublishUnknown, BackendUnavailable]
    assert gate.batches == [["first"], ["bad", "b"]]


def test_who_came_late_to_an_outage_tries_for_itself(
    publish: Publish, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LONGEST_WAIT_S", math.inf)
    gate.answers = [failing(BackendUnavailable("away"))]
    first, second = publish("first"), publish("second")
    gate.open.set()

    assert isinstance(first.exception(LIMIT_S), BackendUnavailable)
    assert second.result(LIMIT_S) == "second"


def gate_publish(gate: Gate) -> Callable[[Sequence[Message]], list[PublishOutcome]]:
    return lambda messages: LocalClient.publish(gate, "points", messages)


# -- interrupts, signals, forks -------------------------------------------------------------------


def test_an_interrupt_of_the_leader_strands_nobody(publish: Publish, gate: Gate) -> None:
    """Those in its group are told that nobody knows; those behind are published."""
    gate.answers = [failing(KeyboardInterrupt()), failing(KeyboardInterrupt())]
    first, leader = publish("first"), publish("leader")
    followers = [publish("a"), publish("b")]
    gate.open.set()

    for interrupted in (first, leader):
        with pytest.raises(KeyboardInterrupt):
            interrupted.result(LIMIT_S)
    for follower in followers:
        with pytest.raises(PublishUnknown, match="may or may not be in queue"):
            follower.result(LIMIT_S)
    assert publish("after").result(LIMIT_S) == "after"


def test_the_main_thread_leads_for_itself_only(
    jobs: Orchestrator, gate: Gate, publish: Publish, background: Any, schema: Any, eventually: Any
) -> None:
    """Ctrl-C comes to it, and so leaves no other in doubt."""
    commit = jobs.group_commits["points"]
    first = publish("first")

    def followers() -> list[Any]:
        eventually(lambda: len(commit._waiting) == 1)
        futures = [publish("a"), publish("b")]
        gate.open.set()
        return futures

    behind = background(followers)
    gate.answers = [gate_publish(gate), failing(KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        jobs.publish("points", job_from_schema(schema, {}, id="main"))
    assert first.result(LIMIT_S) == "first"
    assert [future.result(LIMIT_S) for future in behind.result(LIMIT_S)] == ["a", "b"]
    assert gate.batches == [["first"], ["main"], ["a", "b"]]


def test_an_interrupt_at_any_point_leaves_the_way_free(schema: Any, background: Any) -> None:
    """Of who is alone."""
    for point in itertools.count(1):
        jobs = Orchestrator(LocalClient())
        jobs.register(schema)
        was_interrupted = interrupt_at(point, "group_commit.py", partial(jobs.publish, "points", {}))
        assert background(jobs.publish, "points", {}).result(LIMIT_S), point
        if not was_interrupted:
            return


def is_under_way(follower: Any, commit: GroupCommit) -> bool:
    return follower.done() or bool(commit._waiting)


@pytest.mark.parametrize("opens_first", [False, True])
def test_an_interrupt_at_any_point_of_a_wait_leaves_the_way_free(
    schema: Any, background: Any, eventually: Any, opens_first: bool
) -> None:
    """Of who follows, and of who follows and then leads for others."""
    for point in itertools.count(1):
        with Gate() as gate:
            jobs = Orchestrator(gate)
            jobs.register(schema)
            commit = jobs.group_commits["points"]
            first = background(jobs.publish, "points", {})
            assert gate.entered.wait(LIMIT_S)
            follower = background(interrupt_at, point, "group_commit.py", partial(jobs.publish, "points", {}))
            eventually(partial(is_under_way, follower, commit))
            if opens_first:
                gate.open.set()
            others = [background(jobs.publish, "points", {}) for _ in range(2)]
            gate.open.set()
            first.result(LIMIT_S)
            was_interrupted = follower.result(LIMIT_S)
            for other in others:
                assert isinstance(other.exception(LIMIT_S), PublishUnknown | None), point
            assert background(jobs.publish, "points", {}).result(LIMIT_S), point
        if not was_interrupted:
            return


def test_an_interrupt_at_any_point_of_an_outage_strands_nobody(
    schema: Any, background: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who leads, and tells those who waited for long."""
    monkeypatch.setattr(group_commit, "LONGEST_WAIT_S", 0.0)

    def publish_in_vain(jobs: Orchestrator) -> None:
        with contextlib.suppress(BackendUnavailable):
            jobs.publish("points", {})

    for point in itertools.count(1):
        with Gate() as gate:
            gate.answers = [failing(BackendUnavailable("away"))]
            jobs = Orchestrator(gate)
            jobs.register(schema)
            commit = jobs.group_commits["points"]
            first = background(interrupt_at, point, "group_commit.py", partial(publish_in_vain, jobs))
            eventually(lambda gate=gate, first=first: gate.entered.is_set() or first.done())
            gate.entered.set()
            others = [background(jobs.publish, "points", {}) for _ in range(2)]
            if not first.done():
                eventually(lambda commit=commit: len(commit._waiting) == 2)
            gate.open.set()
            was_interrupted = first.result(LIMIT_S)
            for other in others:
                assert isinstance(other.exception(LIMIT_S), BackendUnavailable | None), point
            gate.answers.clear()
            assert background(jobs.publish, "points", {}).result(LIMIT_S), point
        if not was_interrupted:
            return


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Set the handler of SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, lambda number, frame: handler()) and None
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_is_told_that_its_thread_publishes(
    jobs: Orchestrator, gate: Gate, on_signal: Any
) -> None:
    """It would wait for what it interrupted, for ever."""
    told: list[BaseException] = []

    def handler() -> None:
        with pytest.raises(UsageError, match="set a flag in the handler") as raised:
            jobs.publish("points", {})
        told.append(raised.value)

    def publish_and_signal(messages: Sequence[Message]) -> list[PublishOutcome]:
        signal.raise_signal(signal.SIGUSR1)
        return LocalClient.publish(gate, "points", messages)

    on_signal(handler)
    gate.open.set()
    gate.answers = [publish_and_signal]
    assert jobs.publish("points", {})
    assert len(told) == 1
    assert jobs.publish("points", {})


def test_a_signal_handler_may_publish_while_its_thread_waits(
    jobs: Orchestrator, gate: Gate, publish: Publish, background: Any, eventually: Any, on_signal: Any
) -> None:
    """What it publishes doesn't wait for the group that it interrupted."""
    commit = jobs.group_commits["points"]
    published: list[str] = []
    reached = ["before"]

    def handler() -> None:
        if reached[-1] == "publishes":  # within the publish of this handler, which holds the backend's locks
            reached.append("told")
            with pytest.raises(UsageError):
                jobs.publish("points", {})
        elif reached[-1] == "waits":
            reached.append("handles")
            gate.answers = [signal_again]
            published.append(jobs.publish("points", {"x": 1}))

    def signal_again(messages: Sequence[Message]) -> list[PublishOutcome]:
        reached.append("publishes")
        signal.raise_signal(signal.SIGUSR1)
        gate.open.set()
        return LocalClient.publish(gate, "points", messages)

    def send() -> None:
        """Send it until it is handled: one that comes just before a wait is handled only after it."""
        eventually(lambda: len(commit._waiting) == 1)
        reached.append("waits")
        while reached[-1] == "waits":
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)

    on_signal(handler)
    first = publish("first")
    sending = background(send)
    assert jobs.publish("points", {"x": 2})
    sending.result(LIMIT_S)
    assert first.result(LIMIT_S) == "first"
    assert reached == ["before", "waits", "handles", "publishes", "told"]
    assert len(published) == 1
    assert jobs.count_queue_messages("points") == 3


@pytest.mark.parametrize("steps", ["_give_up_waiting", "_pass_on"])
def test_a_lead_that_interrupts_cut_off_to_the_last_step_is_cleared_away(
    jobs: Orchestrator, publish: Publish, gate: Gate, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    """Nothing of that publish runs any more, though nobody else could tell."""

    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    gate.open.set()
    gate.answers = [failing(KeyboardInterrupt())]
    with monkeypatch.context() as patch:
        for name in {"_give_up_waiting", "_pass_on"} if steps == "_pass_on" else {steps}:
            patch.setattr(GroupCommit, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            jobs.publish("points", {})
    assert jobs.publish("points", {})
    assert publish("another").result(LIMIT_S)


def test_a_publish_within_a_wait_that_was_cut_off_is_forgotten(jobs: Orchestrator, gate: Gate) -> None:
    gate.open.set()
    commit = jobs.group_commits["points"]
    commit._within_wait.add(threading.get_ident())
    commit._leader[None] = (threading.get_ident(), [])
    assert jobs.publish("points", {})
    assert not commit._within_wait


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_waits_for_no_thread_of_its_parent(
    publish: Publish, gate: Gate, jobs: Orchestrator
) -> None:
    first, second = publish("first"), publish("second")
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LIMIT_S))
        try:
            os._exit(0 if jobs.publish("points", {}) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.open.set()
    assert (first.result(LIMIT_S), second.result(LIMIT_S)) == ("first", "second")
