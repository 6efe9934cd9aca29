"""Ctrl-C at any point of a call: the next call is answered, and each job is in exactly one place."""

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from background import Background
from conditions import LIMIT_S, eventually
from interrupts import interrupt_at
from mindtrace.jobs import LocalClient, LocalConsumerBackend, Queue, QueueKind
from mindtrace.jobs.adapters.local import ManualClock, SystemClock
from mindtrace.jobs.adapters.local.clock import Clock
from mindtrace.jobs.ports import (
    Ack,
    Cancel,
    Dead,
    Delivery,
    Guard,
    JobStatus,
    Message,
    Next,
    Place,
    Release,
    Retry,
    Settlement,
)

_LOCAL = "client clock consumer coordination ended leases namespace order queue waits"
_OTHERS = ("adapters/shared/receipts.py", "ports/signal_safe_event.py")
MODULES = (*(f"local/{module}.py" for module in _LOCAL.split()), *_OTHERS, "/threading.py")
READY = [f"ready-{number}" for number in range(3)]
DELAYED = [f"delayed-{number}" for number in range(2)]
LEASED = [f"leased-{number}" for number in range(3)]
DEAD = [f"dead-{number}" for number in range(2)]
FRESH = ["fresh-0", "fresh-1"]
LEASE_S, DELAY_S = 100.0, 500.0


class Jobs:
    """A queue with jobs in each state."""

    def __init__(self, kind: QueueKind) -> None:
        self.clock = ManualClock()
        self.client = LocalClient(clock=self.clock)
        self.client.declare(Queue("jobs", kind=kind))
        self.client.declare(Queue("other"))
        self.consumer = self.client.open_consumer("jobs", lease_s=LEASE_S)
        self._publish(DEAD)
        self.consumer.settle([Dead(each.receipt, "failed", "") for each in self._receive(len(DEAD))])
        self._publish(LEASED)
        self.held = {each.id: each for each in self._receive(len(LEASED))}
        self._publish(DELAYED, DELAY_S)
        self._publish(READY)

    def _publish(self, ids: list[str], delay_s: float = 0.0) -> None:
        self.client.publish("jobs", [Message(id_, b"{}", delay_s=delay_s) for id_ in ids])

    def _receive(self, count: int) -> list[Delivery]:
        return self.consumer.receive(count, 0.0)

    def settle(self, make: Callable[[str], Settlement], take: int = 0) -> None:
        self.consumer.settle([make(each.receipt) for each in self.held.values()], take=take)

    def statuses(self) -> dict[str, JobStatus]:
        ids = [*READY, *DELAYED, *LEASED, *DEAD, *FRESH]
        found = {id_: self.client.status("jobs", id_) for id_ in ids}
        found["next"] = self.client.status("other", "next")
        return found

    def assert_consistent(self, found: dict[str, JobStatus]) -> None:
        """Assert that the counts say what the jobs do, and that each that is to run is received once."""
        here = Counter(status for id_, status in found.items() if id_ != "next")
        counts = self.client.counts("jobs")
        assert counts.ready + counts.delayed == here[JobStatus.WAITING]
        assert counts.in_flight == here[JobStatus.RUNNING]
        assert counts.dead == here[JobStatus.FAILED]
        assert {letter.id for letter in self.client.dead_letters("jobs")} == {
            id_ for id_, status in found.items() if status is JobStatus.FAILED
        }
        self.clock.advance(LEASE_S + DELAY_S)
        with self.client.open_consumer("jobs") as consumer:
            received = consumer.receive(100, 0.0)
            expected = {
                id_
                for id_, status in found.items()
                if id_ != "next" and status in (JobStatus.WAITING, JobStatus.RUNNING)
            }
            consumer.settle([Ack(each.receipt) for each in received])
        counts = self.client.counts("jobs")
        assert (counts.ready, counts.delayed, counts.in_flight) == (0, 0, 0)
        ended = {id_: self.client.status("jobs", id_) for id_ in expected}
        assert set(ended.values()) <= {JobStatus.DONE, JobStatus.CANCELLED}
        assert sorted(each.id for each in received) == sorted(
            id_ for id_, status in ended.items() if status is JobStatus.DONE
        )


def _lapse(jobs: Jobs, seconds: float) -> None:
    jobs.clock.advance(seconds)
    jobs.client.counts("jobs")


def _publish_again(jobs: Jobs) -> None:
    jobs.client.publish("jobs", [Message(id_, b"{}") for id_ in FRESH])


NEXT = (Next("other", Message("next", b"{}")),)
CALLS: dict[str, Callable[[Jobs], object]] = {
    "publish": _publish_again,
    "publish delayed": lambda jobs: jobs.client.publish(
        "jobs", [Message(id_, b"{}", delay_s=1.0) for id_ in FRESH]
    ),
    "receive": lambda jobs: jobs.consumer.receive(2, 0.0),
    "ack": lambda jobs: jobs.settle(Ack),
    "ack with a result": lambda jobs: jobs.settle(lambda receipt: Ack(receipt, b"1")),
    "ack and take": lambda jobs: jobs.settle(Ack, take=3),
    "ack with a next job": lambda jobs: jobs.consumer.settle([Ack(jobs.held["leased-0"].receipt, then=NEXT)]),
    "ack with a next job of the same queue": lambda jobs: jobs.consumer.settle(
        [Ack(jobs.held["leased-0"].receipt, then=(Next("jobs", Message("fresh-0", b"{}")),))]
    ),
    "ack that is refused": lambda jobs: jobs.settle(
        lambda receipt: Ack(receipt, then=(Next("absent", Message("next", b"{}")),))
    ),
    "retry": lambda jobs: jobs.settle(lambda receipt: Retry(receipt, 0.0, "error")),
    "retry later": lambda jobs: jobs.settle(lambda receipt: Retry(receipt, 5.0, "error")),
    "dead": lambda jobs: jobs.settle(lambda receipt: Dead(receipt, "failed", "")),
    "release": lambda jobs: jobs.settle(Release),
    "release later": lambda jobs: jobs.settle(lambda receipt: Release(receipt, 5.0)),
    "settle as cancelled": lambda jobs: jobs.settle(Cancel),
    "extend": lambda jobs: jobs.consumer.extend([each.receipt for each in jobs.held.values()]),
    "end leases": lambda jobs: _lapse(jobs, LEASE_S + 1),
    "make delayed jobs ready": lambda jobs: _lapse(jobs, DELAY_S + 1),
    "close": lambda jobs: jobs.consumer.close(),
    "redrive": lambda jobs: jobs.client.redrive("jobs"),
    "discard": lambda jobs: jobs.client.discard("jobs"),
    "cancel": lambda jobs: jobs.client.cancel("jobs", [*READY, *DELAYED, *LEASED]),
    "purge": lambda jobs: jobs.client.purge("jobs"),
}


@pytest.mark.parametrize("kind", QueueKind)
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_call_that_was_interrupted_anywhere_leaves_each_job_in_one_place(
    call: Callable[[Jobs], object], kind: QueueKind
) -> None:
    """Each job is as it was or as the call makes it, and all that are to run are received, once."""
    before, whole = Jobs(kind).statuses(), Jobs(kind)
    call(whole)
    after = whole.statuses()
    for point in itertools.count(1):
        jobs = Jobs(kind)
        was_interrupted = interrupt_at(point, MODULES, partial(call, jobs))
        found = jobs.statuses()
        for id_, status in found.items():
            assert status in (before[id_], after[id_]), (point, id_)
        if call is CALLS["ack with a next job"]:
            assert (found["leased-0"] is JobStatus.DONE) == (found["next"] is JobStatus.WAITING), point
        jobs.assert_consistent(found)
        if not was_interrupted:
            return


@pytest.mark.parametrize(
    "end", [lambda receipt: Ack(receipt, then=NEXT), lambda receipt: Dead(receipt, "failed", "", then=NEXT)]
)
def test_a_next_job_comes_once_whichever_queue_is_used_first(end: Callable[[str], Settlement]) -> None:
    """After an interrupt: it may be taken and done before anyone uses the queue of the job before it."""
    for point in itertools.count(1):
        with LocalClient() as client:
            client.declare(Queue("jobs"))
            client.declare(Queue("other"))
            client.publish("jobs", [Message("job", b"{}")])
            with client.open_consumer("jobs", lease_s=60.0) as consumer:
                (job,) = consumer.receive(1, 0.0)
                was_interrupted = interrupt_at(point, MODULES, partial(consumer.settle, [end(job.receipt)]))
                with client.open_consumer("other", lease_s=60.0) as following:
                    came = following.receive(2, 0.0)
                    following.settle([Ack(each.receipt) for each in came])
                    has_ended = client.status("jobs", "job") in (JobStatus.DONE, JobStatus.FAILED)
                    assert len(came) == has_ended, point
                    assert not following.receive(2, 0.0), point
        if not was_interrupted:
            return


@pytest.mark.parametrize("clock", [ManualClock, SystemClock])
def test_a_receive_that_was_interrupted_as_it_waits_leaves_its_queue_usable(clock: type[Clock]) -> None:
    """The interrupt itself is raised, and the next publish wakes another that waits (RCV-2)."""
    for point in itertools.count(1):
        with LocalClient(clock=clock()) as client:
            client.declare(Queue("jobs"))
            hasty, patient = client.open_consumer("jobs"), client.open_consumer("jobs")
            was_interrupted = interrupt_at(point, MODULES, partial(hasty.receive, 1, 0.01))
            received = _receive_as_it_is_published(client, patient, f"job-{point}")
            assert [each.id for each in received] == [f"job-{point}"], point
        if not was_interrupted:
            return


def _receive_as_it_is_published(
    client: LocalClient, consumer: LocalConsumerBackend, job_id: str
) -> list[Delivery]:
    """Publish once the consumer waits."""
    with Background() as pool:
        receiving = pool.submit(consumer.receive, 1, LIMIT_S)
        eventually(lambda: client._queue("jobs")._receivers, "it waits")
        client.publish("jobs", [Message(job_id, b"{}")])
        return receiving.result()


def test_a_wake_up_of_a_receive_that_was_interrupted_is_passed_on() -> None:
    """The job that it was told of goes to another that waits, at once (RCV-2)."""
    for point in itertools.count(1):
        if not _interrupt_as_a_job_comes(point):
            return


def _interrupt_as_a_job_comes(point: int) -> bool:
    """Interrupt one of two that wait, perhaps as it is woken; return whether it was interrupted."""
    with LocalClient() as client, Background() as pool:
        client.declare(Queue("jobs"))
        hasty, patient = client.open_consumer("jobs"), client.open_consumer("jobs")
        waits = client._queue("jobs")._receivers
        interrupted = pool.submit(interrupt_at, point, MODULES, partial(hasty.receive, 1, LIMIT_S))
        eventually(lambda: len(waits) == 1 or interrupted.done(), "it waits or is interrupted")
        receiving = pool.submit(patient.receive, 1, LIMIT_S)
        eventually(lambda: len(waits) == 2 or interrupted.done(), "both wait")
        client.publish("jobs", [Message("job", b"{}")])
        if interrupted.result():
            hasty.close()  # which may have taken it
        else:
            client.publish("jobs", [Message("another", b"{}")])
        assert receiving.result(), point
        return interrupted.result()


def test_a_receive_that_was_interrupted_twice_keeps_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time as it leaves."""
    with LocalClient() as client, Background() as pool:
        client.declare(Queue("jobs"))
        hasty, patient = client.open_consumer("jobs"), client.open_consumer("jobs")
        queue = client._queue("jobs")
        with monkeypatch.context() as patch:
            for method in ("_wait", "_stop_waiting"):
                patch.setattr(queue, method, _interrupt)
            with pytest.raises(KeyboardInterrupt):
                hasty.receive(1, LIMIT_S)
        gone = len(queue._receivers)
        receiving = pool.submit(patient.receive, 1, LIMIT_S)
        eventually(lambda: len(queue._receivers) > gone, "the other waits")
        client.publish("jobs", [Message("job", b"{}")])
        assert receiving.result(LIMIT_S / 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_wait_for_a_result_that_was_interrupted_leaves_its_queue_usable() -> None:
    for point in itertools.count(1):
        with LocalClient() as client:
            client.declare(Queue("jobs"))
            wait = partial(client.result, "jobs", "job", timeout_s=0.01)
            was_interrupted = interrupt_at(point, MODULES, wait)
            assert not client._queue("jobs")._ends.waits, point
            assert client.status("jobs", "job") is JobStatus.UNKNOWN
        if not was_interrupted:
            return


def test_a_guarded_publish_that_was_interrupted_writes_its_record_with_its_job_or_neither() -> None:
    for point in itertools.count(1):
        with LocalClient() as client:
            client.declare(Queue("jobs"))
            guard = Guard("guard", b"new", 0)
            was_interrupted = interrupt_at(
                point, MODULES, partial(client.publish_guarded, "jobs", Message("job", b"{}"), guard)
            )
            is_there = client.status("jobs", "job") is JobStatus.WAITING
            assert bool(client.coordination.get(["guard"])) == is_there, point
            assert client.counts("jobs").ready == is_there
        if not was_interrupted:
            return


def test_a_write_that_was_interrupted_loses_no_record() -> None:
    for point in itertools.count(1):
        with LocalClient() as client:
            kept = [f"key-{number}" for number in range(4)]
            for key in kept:
                client.coordination.put(key, b"old")
            was_interrupted = interrupt_at(point, MODULES, partial(client.coordination.put, "key-0", b"new"))
            assert set(client.coordination.get(kept)) == set(kept), point
        if not was_interrupted:
            return


def test_places_left_are_told_after_an_interrupt() -> None:
    """Nobody is taken for one who tells, and who isn't there any more."""
    for point in itertools.count(1):
        with LocalClient() as client:
            store, told = client.coordination, list[str | None]()
            watch = store.watch_places(told.append)
            first, second = Place("key", 1, "a"), Place("key", 1, "b", watch.name)
            assert store.take_places([first], ttl_s=60.0) == [True]
            was_interrupted = interrupt_at(point, MODULES, partial(store.leave_places, [first]))
            store.leave_places([first])
            assert store.take_places([first], ttl_s=60.0) == [True]
            assert store.take_places([second], ttl_s=60.0) == [False]
            told.clear()
            store.leave_places([first])
            assert told == ["key"], point
        if not was_interrupted:
            return
