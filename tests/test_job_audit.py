"""The audit, on which the whole fault matrix rests: it fails where it must."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job_audit import Execution, ExecutionRecord, Fault, JobAudit
from mindtrace.jobs import LocalClient, Queue
from mindtrace.jobs.ports import Ack, Dead, Message


class AuditedQueue:
    """A queue of three jobs, which were run and acknowledged by process 1, one after the other."""

    def __init__(self, client: LocalClient, folder: Path) -> None:
        self.client = client
        self.started, self.finished = (
            ExecutionRecord(folder / "started"),
            ExecutionRecord(folder / "finished"),
        )
        client.declare(Queue("jobs"))
        self.audit = JobAudit(confirmed={"a", "b", "c"})
        for job_id in "abc":
            client.publish("jobs", [Message(job_id, b"{}")])
            self.settle(Ack)
            self.note(1, job_id)

    def settle(self, how: Callable[[str], Ack | Dead]) -> None:
        with self.client.open_consumer("jobs") as consumer:
            (delivery,) = consumer.receive(1, 0.0)
            consumer.settle([how(delivery.receipt)])

    def note(self, pid: int, job_id: str) -> None:
        for record in (self.started, self.finished):
            with record.path.open("a") as file:
                file.write(f"{pid} {job_id}\n")

    def fault(self, began: int, ended: int, *, in_flight: int = 1) -> None:
        self.audit.faults.append(Fault(frozenset([1]), began, ended, in_flight))

    def check(self) -> int:
        totals = self.audit.check(self.client, "jobs", self.started, self.finished, all_done=False)
        return totals.done + totals.dead


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[AuditedQueue]:
    with LocalClient() as client:
        yield AuditedQueue(client, tmp_path)


def test_what_adds_up_passes(queue: AuditedQueue) -> None:
    queue.client.publish("jobs", [Message("d", b"{}")])
    queue.settle(lambda receipt: Dead(receipt, "rejected", "no"))
    queue.audit.confirmed.add("d")
    assert queue.check() == 4


def test_a_lost_job_is_told(queue: AuditedQueue) -> None:
    queue.audit.confirmed.add("lost")
    with pytest.raises(AssertionError, match="1 of 4 jobs are lost"):
        queue.check()


def test_a_job_that_came_from_nowhere_is_told(queue: AuditedQueue) -> None:
    queue.client.publish("jobs", [Message("d", b"{}")])
    with pytest.raises(AssertionError, match="1 jobs more than were published"):
        queue.check()
    queue.client.purge("jobs")
    queue.note(1, "d")
    with pytest.raises(AssertionError, match="ran that were never published: d"):
        queue.check()


def test_a_job_that_is_done_without_having_run_is_told(queue: AuditedQueue) -> None:
    queue.client.publish("jobs", [Message("d", b"{}")])
    queue.settle(Ack)
    queue.audit.confirmed.add("d")
    with pytest.raises(AssertionError, match="said to be done and never ran: d"):
        queue.check()


def test_a_job_that_ran_again_is_told_unless_a_fault_hit_it_in_hand(queue: AuditedQueue) -> None:
    queue.note(2, "c")
    with pytest.raises(AssertionError, match="ran again without a fault: c"):
        queue.check()
    queue.fault(began=2, ended=2)
    assert queue.check() == 3, "process 1 began it right after"


def test_a_fault_long_after_excuses_nothing(queue: AuditedQueue) -> None:
    queue.note(2, "a")
    queue.fault(began=3, ended=3)
    with pytest.raises(AssertionError, match="ran again without a fault: a"):
        queue.check()


def test_a_fault_excuses_no_more_jobs_than_were_in_hand(queue: AuditedQueue) -> None:
    for job_id in "abc":
        queue.note(2, job_id)
    queue.fault(began=0, ended=3)
    with pytest.raises(AssertionError, match="3 ran again, 1 were in flight at most"):
        queue.check()


def test_a_line_that_is_being_written_is_not_read_yet(queue: AuditedQueue) -> None:
    with queue.started.path.open("a") as file:
        file.write("2 ")
    assert [run.job_id for run in queue.started.runs()] == ["a", "b", "c"]
    with queue.started.path.open("a") as file:
        file.write("d\n")
    assert [run.job_id for run in queue.started.runs()] == ["a", "b", "c", "d"]


def test_a_fault_excuses_all_that_a_worker_ran_which_ran_less_than_it_may_hold() -> None:
    runs = [Execution(1, "a"), Execution(2, "b"), Execution(1, "c"), Execution(2, "d"), Execution(1, "e")]
    assert Fault(frozenset([1]), began=3, ended=3, in_flight=3).affected(runs) == {"a", "c", "e"}
    assert Fault(frozenset([1]), began=3, ended=3, in_flight=1).affected(runs) == {"c", "e"}
    assert Fault(frozenset([1]), began=3, ended=3, in_flight=0).affected(runs) == set()
