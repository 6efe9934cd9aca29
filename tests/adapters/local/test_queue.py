"""One queue in memory: its states, the steps between them, and who is woken."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import LocalClient, LocalConsumerBackend, Queue, QueueKind
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.queue import LocalQueue
from mindtrace.jobs.domain.errors import Closed, QueueNotFound
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    JobResult,
    Message,
    PublishStatus,
    Release,
    ResultStatus,
    Retry,
    SettleOutcome,
)
from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent

OK, ALREADY, LOST = SettleOutcome.OK, SettleOutcome.ALREADY, SettleOutcome.LOST
Put = Callable[..., None]


def take(consumer: LocalConsumerBackend, count: int = 100) -> dict[str, str]:
    """Receive what is ready, as receipts by id."""
    return {delivery.id: delivery.receipt for delivery in consumer.receive(count, 0)}


# -- leases ---------------------------------------------------------------------------------------


def test_a_lease_ends_to_the_second_and_the_job_is_ready_again(
    client: LocalClient, consumer: LocalConsumerBackend, clock: ManualClock, put: Put
) -> None:
    """With the crash counted, the attempt not (LSE-2, RTY-3)."""
    put("a")
    receipt = take(consumer)["a"]
    other = client.open_consumer("points")

    clock.advance(9.999)
    assert other.receive(1, 0) == []
    clock.advance(0.001)
    (delivery,) = other.receive(1, 0)

    assert (delivery.id, delivery.attempt, delivery.number, delivery.crashes) == ("a", 1, 2, 1)
    assert consumer.settle([Ack(receipt)]).outcomes == [LOST]
    assert consumer.extend([receipt]) == [LOST]
    assert other.settle([Ack(delivery.receipt)]).outcomes == [OK]


def test_extending_one_lease_extends_no_other(
    consumer: LocalConsumerBackend, clock: ManualClock, put: Put
) -> None:
    """Each delivery has a deadline of its own, in whatever order they are extended (LSE-3)."""
    put("a", "b", "c")
    receipts = take(consumer)
    clock.advance(6)
    assert consumer.extend([receipts["b"]]) == [OK]
    clock.advance(3)
    assert consumer.extend([receipts["a"]]) == [OK]

    clock.advance(1)

    assert consumer.extend(list(receipts.values())) == [OK, OK, LOST]


@pytest.mark.parametrize("kind", QueueKind)
def test_what_came_back_is_served_before_what_was_behind_it(
    client: LocalClient, clock: ManualClock, put: Put, kind: QueueKind
) -> None:
    """Expired or released, on every kind of queue (ORD-4)."""
    client.declare(Queue("kind", kind))
    put("a", "b", "c", "d", queue="kind")
    consumer = client.open_consumer("kind", lease_s=10)
    served = list(take(consumer))
    clock.advance(10)

    receipts = take(consumer, 2)
    assert list(receipts) == served[:2]
    consumer.settle([Release(receipt) for receipt in receipts.values()])

    assert list(take(consumer)) == served


def test_a_short_lease_beside_a_long_one_ends_first(
    client: LocalClient, clock: ManualClock, put: Put
) -> None:
    """Whatever the order in which they were granted (LSE-2)."""
    put("a", "b")
    long, short = client.open_consumer("points", lease_s=100), client.open_consumer("points", lease_s=1)
    take(long, 1)
    take(short, 1)

    clock.advance(1)
    assert client.counts("points").in_flight == 1
    clock.advance(99)
    assert client.counts("points").in_flight == 0


# -- receipts -------------------------------------------------------------------------------------


def test_settling_again_says_so(consumer: LocalConsumerBackend, put: Put, clock: ManualClock) -> None:
    """However it was settled, whatever comes after, even much later (SET-1)."""
    put("a", "b", "c", "d")
    a, b, c, d = take(consumer).values()
    first = [Ack(a), Retry(b, 0, "error"), Dead(c, "rejected", "error"), Release(d)]
    assert consumer.settle(first).outcomes == [OK] * 4

    clock.advance(1000)

    assert consumer.settle(first).outcomes == [ALREADY] * 4
    assert consumer.settle([Ack(d)]).outcomes == [ALREADY]
    assert consumer.extend([a, b, c, d]) == [ALREADY] * 4


@pytest.mark.parametrize("receipt", ["", "1", "x.1", "{0}", "{0}.0", "{0}.2", "{0}.-1", "{0}.²"])
def test_a_receipt_that_was_never_granted_is_lost(
    consumer: LocalConsumerBackend, put: Put, receipt: str
) -> None:
    """It can neither settle nor break anything (LSE-4)."""
    put("a")
    (granted,) = take(consumer).values()
    table, _, number = granted.rpartition(".")
    assert number == "1"

    assert consumer.settle([Ack(receipt.format(table))]).outcomes == [LOST]
    assert consumer.extend([receipt.format(table), granted]) == [LOST, OK]


def test_one_consumers_receipt_is_no_use_to_another(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """Nor after its owner has closed (LSE-4)."""
    put("a")
    (receipt,) = take(consumer).values()
    other = client.open_consumer("points")
    assert other.settle([Ack(receipt)]).outcomes == [LOST]

    consumer.close()

    assert other.settle([Ack(receipt)]).outcomes == [LOST]
    with pytest.raises(Closed):
        consumer.settle([Ack(receipt)])
    assert list(take(other)) == ["a"]


def test_settling_and_receiving_are_one_step(consumer: LocalConsumerBackend, put: Put) -> None:
    """Up to so many, without waiting, and what was just released may come back (SET-4)."""
    put("a", "b", "c")
    receipts = take(consumer, 1)

    answer = consumer.settle([Release(receipts["a"])], take=2)

    assert answer.outcomes == [OK]
    assert [delivery.id for delivery in answer.deliveries] == ["a", "b"]
    assert consumer.settle([], take=5).deliveries[0].id == "c"
    assert consumer.settle([], take=5) == ([], [])


# -- ends -----------------------------------------------------------------------------------------


def test_an_id_is_free_once_its_job_is_done(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """Ready, delayed, leased or dead it is taken (PUB-5)."""
    put("a", "b", "c")
    put("d", delay_s=60)
    receipts = take(consumer, 2)
    consumer.settle([Dead(receipts["a"], "rejected", "error")])

    def statuses() -> list[str]:
        outcomes = client.publish("points", [Message(id_, b"{}") for id_ in "abcd"])
        return [outcome.status for outcome in outcomes]

    assert statuses() == [PublishStatus.DUPLICATE] * 4
    consumer.settle([Ack(receipts["b"])])
    client.discard("points", ["a"])
    assert statuses() == ["accepted", "accepted", "duplicate", "duplicate"]


def test_a_new_job_under_an_old_id_has_no_old_result(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """What became of the first is no answer to a question for the second (RES-1)."""
    put("a")
    consumer.settle([Ack(take(consumer)["a"], b"1")])
    assert client.result("points", "a") == JobResult(ResultStatus.DONE, b"1")

    put("a")
    assert client.result("points", "a") is None
    consumer.settle([Ack(take(consumer)["a"])])
    assert client.result("points", "a") == JobResult(ResultStatus.DONE, None)

    put("a")
    consumer.settle([Dead(take(consumer)["a"], "rejected", "error")])
    assert client.result("points", "a") == JobResult(ResultStatus.FAILED, error="error")
    client.discard("points")
    assert client.result("points", "a") is None


def test_a_redriven_job_has_no_old_error(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """It is live again, with fresh budgets and under its old id (DLQ-2)."""
    put("a")
    consumer.settle([Retry(take(consumer)["a"], 0, "first")])
    consumer.settle([Dead(take(consumer)["a"], "rejected", "second")])

    assert client.redrive("points", ["a", "a", "b"]) == 1

    assert client.result("points", "a") is None
    (delivery,) = consumer.receive(1, 0)
    assert (delivery.id, delivery.attempt, delivery.crashes) == ("a", 1, 0)
    consumer.settle([Dead(delivery.receipt, "rejected", "third")])
    assert client.dead_letters("points")[0].history == ()


def test_a_history_keeps_the_last_ten_failures(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """A job that is retried for ever doesn't grow for ever (SET-3)."""
    put("a")
    for n in range(15):
        consumer.settle([Retry(take(consumer)["a"], 0, f"error {n}")])
    consumer.settle([Dead(take(consumer)["a"], "attempts exhausted", "the end")])

    (letter,) = client.dead_letters("points")
    assert [failure.error for failure in letter.history] == [f"error {n}" for n in range(5, 15)]
    assert [failure.attempt for failure in letter.history] == list(range(6, 16))
    assert letter.attempt == 16


def test_what_is_remembered_is_bounded(
    client: LocalClient, consumer: LocalConsumerBackend, local_queue: LocalQueue, clock: ManualClock, put: Put
) -> None:
    """Results until they expire, other ends by their number: a queue that runs for ever fits in memory."""
    for batch in range(11):
        put(*(f"{batch}-{n}" for n in range(1000)))
        consumer.settle([Ack(receipt) for receipt in take(consumer, 1000).values()])
    put(*(f"r{n}" for n in range(100)))
    consumer.settle([Ack(receipt, b"1", 5) for receipt in take(consumer).values()])
    clock.advance(5)
    put("last")
    consumer.settle([Ack(take(consumer)["last"], b"1")])

    assert len(local_queue._results._ended_ids) == 10_000
    assert list(local_queue._results._results) == ["last"]
    assert not local_queue._live
    assert client.result("points", "0-0") is None
    assert client.result("points", "10-999") == JobResult(ResultStatus.DONE)


def test_a_purge_leaves_what_is_in_hand(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """It empties what waits, and what is settled afterwards is settled (ADM-2)."""
    put("a", "b", "c")
    put("d", delay_s=60)
    receipts = take(consumer, 2)

    assert client.purge("points") == 2

    assert consumer.settle([Ack(receipts["a"]), Release(receipts["b"])]).outcomes == [OK, OK]
    counts = client.counts("points")
    assert (counts.ready, counts.delayed, counts.in_flight) == (1, 0, 0)
    put("a", "c", "d")


def test_a_purge_takes_what_has_just_expired(
    client: LocalClient, consumer: LocalConsumerBackend, clock: ManualClock, put: Put
) -> None:
    """A job whose lease is over waits, though nobody has looked since (ADM-2, LSE-4)."""
    put("a")
    (receipt,) = take(consumer).values()
    clock.advance(10)

    assert client.purge("points") == 1
    assert consumer.settle([Release(receipt)]).outcomes == [LOST]
    assert client.counts("points").ready == 0


# -- deleted and declared anew --------------------------------------------------------------------


def test_what_was_in_hand_of_a_deleted_queue_is_lost(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """A settle or an extend changes nothing, and receiving says why (ADM-3)."""
    put("a", "b")
    a, b = take(consumer).values()

    client.delete("points")

    assert consumer.settle([Ack(a), Release(b)], take=5) == ([LOST, LOST], [])
    assert consumer.extend([a]) == [LOST]
    with pytest.raises(QueueNotFound):
        consumer.receive(1, 0)
    consumer.interrupt()
    consumer.close()


def test_a_consumer_serves_the_queue_that_was_declared_anew(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put
) -> None:
    """Empty at first, with receipts that the old one never gave out (ADM-3)."""
    put("a")
    (old,) = take(consumer).values()
    client.delete("points")
    client.declare(Queue("points", "stack"))
    put("b", "c")

    receipts = take(consumer)

    assert list(receipts) == ["c", "b"]
    assert consumer.settle([Ack(receipts["c"]), Ack(old)]).outcomes == [OK, LOST]
    assert client.counts("points").in_flight == 1
    consumer.close()
    assert client.counts("points").ready == 1


def test_a_closed_consumer_stays_closed_whatever_is_declared(
    client: LocalClient, consumer: LocalConsumerBackend
) -> None:
    """It doesn't come back to life with the queue (CON-2)."""
    consumer.close()
    client.delete("points")
    client.declare(Queue("points"))

    with pytest.raises(Closed):
        consumer.receive(1, 0)
    assert not client._queue("points")._tables


# -- who is woken ---------------------------------------------------------------------------------


@pytest.fixture
def blocked(
    client: LocalClient, background: Any, until_blocked: Callable[..., None]
) -> Callable[..., list[Any]]:
    """Block so many receivers, each for an hour, and return their futures."""

    def block(count: int, *, max_jobs: int = 1) -> list[Any]:
        consumers = [client.open_consumer("points", lease_s=10) for _ in range(count)]
        futures = [background(consumer.receive, max_jobs, 3600) for consumer in consumers]
        until_blocked(count)
        return futures

    return block


def ids(futures: list[Any]) -> list[str]:
    return sorted(delivery.id for future in futures for delivery in future.result())


def test_each_job_wakes_one_receiver(blocked: Any, put: Put) -> None:
    """Three jobs in one call and one in another wake four (RCV-2)."""
    futures = blocked(4)

    put("a", "b", "c")
    put("d")

    assert ids(futures) == ["a", "b", "c", "d"]


def test_a_greedy_receiver_takes_all_and_the_others_wait_on(
    blocked: Any, put: Put, until_blocked: Any
) -> None:
    """Whoever is woken in vain blocks again (RCV-1)."""
    futures = blocked(3, max_jobs=10)

    put("a", "b", "c")
    until_blocked(2)
    put("d")
    until_blocked(1)
    put("e")

    assert ids(futures) == ["a", "b", "c", "d", "e"]


def test_a_job_that_becomes_due_wakes_a_receiver(blocked: Any, clock: ManualClock, put: Put) -> None:
    """And not before (DLY-1, DLY-2)."""
    (future,) = blocked(1)
    put("a", delay_s=60)

    clock.advance(59)
    assert not future.done()
    clock.advance(1)

    assert ids([future]) == ["a"]


@pytest.mark.parametrize("delay_s", [0, 3600])
def test_a_timeout_ends_though_the_clock_stands_still(
    client: LocalClient, consumer: LocalConsumerBackend, put: Put, delay_s: float
) -> None:
    """It is the caller's, in the machine's seconds: a job is due later, or there is none (RCV-1, RES-1)."""
    if delay_s:
        put("a", delay_s=delay_s)

    assert consumer.receive(1, 0.01) == []
    assert client.result("points", "a", timeout_s=0.01) is None


def test_a_clock_that_is_moved_shortens_no_timeout(blocked: Any, clock: ManualClock, put: Put) -> None:
    """A receiver waits on, and gets what comes then (RCV-1)."""
    (future,) = blocked(1)

    clock.advance(7200)
    put("a")

    assert ids([future]) == ["a"]


def test_a_lease_that_ends_wakes_a_receiver(
    blocked: Any, consumer: LocalConsumerBackend, clock: ManualClock, put: Put, until_blocked: Any
) -> None:
    """Though it was granted while the receiver slept already (LSE-1, RCV-2)."""
    (future,) = blocked(1)
    put("a")
    future.result()
    (second,) = blocked(1)

    clock.advance(10)

    (delivery,) = second.result()
    assert (delivery.id, delivery.crashes) == ("a", 1)


def test_a_receiver_sleeps_by_the_machines_clock_and_wakes_in_time(background: Any, eventually: Any) -> None:
    """For a delay that began after it fell asleep for an hour, and for a lease (RCV-2, DLY-2, LSE-1)."""
    with LocalClient() as client:
        client.declare(Queue("points"))
        sleeper = client.open_consumer("points", lease_s=0.05)
        receiving = background(sleeper.receive, 1, 3600)
        eventually(lambda: client._queue("points")._receivers)

        client.publish("points", [Message("a", b"{}", delay_s=0.05)])

        assert ids([receiving]) == ["a"]
        assert [delivery.crashes for delivery in client.open_consumer("points").receive(1, 3600)] == [1]


@pytest.mark.parametrize("give_back", ["release", "close", "retry", "redrive"])
def test_a_job_that_comes_back_wakes_a_receiver(
    client: LocalClient, consumer: LocalConsumerBackend, blocked: Any, put: Put, give_back: str
) -> None:
    """However it comes back (RCV-2)."""
    put("a")
    (receipt,) = take(consumer).values()
    futures = blocked(1)

    if give_back == "release":
        consumer.settle([Release(receipt)])
    elif give_back == "close":
        consumer.close()
    elif give_back == "retry":
        consumer.settle([Retry(receipt, 0, "error")])
    else:
        consumer.settle([Dead(receipt, "rejected", "error")])
        client.redrive("points")

    assert ids(futures) == ["a"]


def test_an_interrupt_ends_one_receive_and_no_other(
    client: LocalClient, blocked: Any, background: Any, until_blocked: Any, put: Put
) -> None:
    """The blocked one, or else the next; those of other consumers sleep on (RCV-1)."""
    others = blocked(1)
    consumer = client.open_consumer("points")
    receiving = background(consumer.receive, 1, 3600)
    until_blocked(2)

    consumer.interrupt()
    assert receiving.result() == []
    consumer.interrupt()
    assert consumer.receive(1, 3600) == []

    put("a")
    assert ids(others) == ["a"]


def test_closing_a_blocked_consumer_ends_its_receive(
    client: LocalClient, background: Any, until_blocked: Any, put: Put
) -> None:
    """By ``Closed``, while another sleeps on (CON-2)."""
    one, other = client.open_consumer("points"), client.open_consumer("points")
    first, second = background(one.receive, 1, 3600), background(other.receive, 1, 3600)
    until_blocked(2)

    one.close()
    with pytest.raises(Closed, match="this consumer of queue 'points' is closed"):
        first.result()

    put("a")
    assert ids([second]) == ["a"]


def test_deleting_a_queue_wakes_everyone(
    client: LocalClient, blocked: Any, background: Any, eventually: Any, local_queue: LocalQueue
) -> None:
    """Receivers and those who wait for a result alike (ADM-3)."""
    futures = blocked(2)
    futures.append(background(client.result, "points", "a", timeout_s=3600))
    eventually(lambda: local_queue._ends.waits)

    client.delete("points")

    for future in futures:
        with pytest.raises(QueueNotFound, match="queue 'points'"):
            future.result()


class Interrupting(ManualClock):
    """A clock on which the first wait is interrupted, as by Ctrl-C."""

    waits = 0

    def wait_until(self, moment_s: float, wake: SignalSafeEvent, timeout_s: float = math.inf) -> None:
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        super().wait_until(moment_s, wake, timeout_s)


def test_an_interrupted_wait_leaves_the_queue_as_it_was(background: Any, eventually: Any) -> None:
    """Nobody is counted as waiting who isn't, and the next one is served (RCV-2)."""
    with LocalClient(clock=Interrupting()) as client:
        client.declare(Queue("points"))
        local_queue = client._queue("points")
        consumer = client.open_consumer("points")
        with pytest.raises(KeyboardInterrupt):
            consumer.receive(1, 3600)
        assert not local_queue._receivers

        receiving = background(consumer.receive, 1, 3600)
        eventually(lambda: local_queue._receivers)
        client.publish("points", [Message("a", b"{}")])
        assert ids([receiving]) == ["a"]


def test_no_wake_up_is_lost_to_a_receiver_that_gives_up(background: Any) -> None:
    """One that times out or is interrupted as a job arrives leaves it to one that still waits (RCV-2)."""
    dice = random.Random(0)
    with LocalClient() as client:
        client.declare(Queue("points"))
        patient, hasty = client.open_consumer("points"), client.open_consumer("points")
        for n in range(300):
            waiting = background(patient.receive, 1, 3600)
            giving_up = background(hasty.receive, 1, dice.choice([0.0001, 0.0003, 3600]))
            client.publish("points", [Message(f"{n}-a", b"{}")])
            hasty.interrupt()
            if giving_up.result():
                client.publish("points", [Message(f"{n}-b", b"{}")])
            (delivery,) = waiting.result(timeout=60)
            assert delivery.id.startswith(f"{n}-")
            hasty.receive(1, 0)
