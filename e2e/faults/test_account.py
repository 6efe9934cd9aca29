"""The account, on which the whole matrix rests: it fails where it must."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers.account import Account, Fault, Record
from mindtrace.jobs import LocalClient, Queue
from mindtrace.jobs.ports import Ack, Dead, Message


class Books:
    """A queue of three jobs, which were run and acknowledged by process 1, one after the other."""

    def __init__(self, client: LocalClient, folder: Path) -> None:
        self.client = client
        self.started, self.finished = Record(folder / "started"), Record(folder / "finished")
        client.declare(Queue("jobs"))
        self.account = Account(confirmed={"a", "b", "c"})
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

    def fault(self, began: int, ended: int, *, in_hand: int = 1) -> None:
        self.account.faults.append(Fault(frozenset([1]), began, ended, in_hand))

    def check(self) -> int:
        totals = self.account.check(self.client, "jobs", self.started, self.finished, all_done=False)
        return totals.done + totals.dead


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with LocalClient() as client:
        yield Books(client, tmp_path)


def test_what_adds_up_passes(books: Books) -> None:
    books.client.publish("jobs", [Message("d", b"{}")])
    books.settle(lambda receipt: Dead(receipt, "rejected", "no"))
    books.account.confirmed.add("d")
    assert books.check() == 4


def test_a_lost_job_is_told(books: Books) -> None:
    books.account.confirmed.add("lost")
    with pytest.raises(AssertionError, match="1 of 4 jobs are lost"):
        books.check()


def test_a_job_that_came_from_nowhere_is_told(books: Books) -> None:
    books.client.publish("jobs", [Message("d", b"{}")])
    with pytest.raises(AssertionError, match="1 jobs more than were published"):
        books.check()
    books.client.purge("jobs")
    books.note(1, "d")
    with pytest.raises(AssertionError, match="ran that were never published: d"):
        books.check()


def test_a_job_that_is_done_without_having_run_is_told(books: Books) -> None:
    books.client.publish("jobs", [Message("d", b"{}")])
    books.settle(Ack)
    books.account.confirmed.add("d")
    with pytest.raises(AssertionError, match="said to be done and never ran: d"):
        books.check()


def test_a_job_that_ran_again_is_told_unless_a_fault_hit_it_in_hand(books: Books) -> None:
    books.note(2, "c")
    with pytest.raises(AssertionError, match="ran again without a fault: c"):
        books.check()
    books.fault(began=2, ended=2)
    assert books.check() == 3, "process 1 began it right after"


def test_a_fault_long_after_excuses_nothing(books: Books) -> None:
    books.note(2, "a")
    books.fault(began=3, ended=3)
    with pytest.raises(AssertionError, match="ran again without a fault: a"):
        books.check()


def test_a_fault_excuses_no_more_jobs_than_were_in_hand(books: Books) -> None:
    for job_id in "abc":
        books.note(2, job_id)
    books.fault(began=0, ended=3)
    with pytest.raises(AssertionError, match="3 ran again, 1 were in hand at most"):
        books.check()
