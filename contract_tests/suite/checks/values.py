"""Values arrive whole: errors, results, ids, times; and what is kept stays over a declare and a purge."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from ...domain import Queue
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    JobResult,
    Message,
    PublishStatus,
    Release,
    ResultStatus,
    Retry,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_MIB = 1024 * 1024
_DAY_S = 86_400.0


@check("SET-3")
def an_error_of_any_text_ends_its_job(context: CheckContext) -> None:
    """Errors of 2,048 characters come back whole; one that UTF-8 can't encode is kept with replacements."""
    texts = [("x" * 2047 + "y")[-length:] for length in (2047, 2048)] + ["ü" * 2048, "\x00first", "last\x00"]
    torn = "before \ud800 after \udfff"
    with context.queue() as queue:
        consumer = queue.consumer()
        for number, text in enumerate([*texts, torn]):
            queue.publish(f"job-{number}")
            for is_last in (False, True):
                receipt = queue.receive_one(consumer).receipt
                settlement = Dead(receipt, "rejected", text) if is_last else Retry(receipt, 0.0, text)
                answer = _settled(queue, consumer, settlement)
                demand("SET-3", answer is SettleOutcome.OK, f"an error of {text!r:.30} got {answer!r}")
        *letters, last = queue.backend.dead_letters(queue.name)
        for letter, text in zip(letters, texts, strict=True):
            kept = (letter.history[0].error, letter.error)
            lengths = [len(error) for error in kept]
            demand("SET-3", kept == (text, text), f"an error of {len(text)} characters is {lengths} long")
        is_kept = last.error.startswith("before ") and " after " in last.error
        demand("SET-3", is_kept, f"{torn!r} became {last.error!r}")


def _settled(
    queue: QueueUnderTest, consumer: ConsumerBackend, settlement: Retry | Dead
) -> SettleOutcome | UnicodeError:
    """Settle, and return the answer, or the error of an adapter that can't encode a text."""
    try:
        return queue.settle(consumer, settlement)
    except UnicodeError as error:
        return error


@check("RES-1", needs="results")
def a_result_is_kept_as_it_is(context: CheckContext) -> None:
    """A result of 1 MiB, one of every byte, and the error of a dead job come back as they were."""
    every_byte = bytes(range(256))
    results = {"large": b'"' + b"x" * (_MIB - 2) + b'"', "bytes": every_byte, "text": '"größe \x00"'.encode()}
    error = "\x00 größe " + "x" * 2048
    with context.queue() as queue:
        consumer = queue.consumer()
        for id_, result in results.items():
            queue.publish(id_)
            queue.settle(consumer, Ack(queue.receive_one(consumer).receipt, result))
            found = queue.backend.result(queue.name, id_)
            kept = found is not None and found.body == result
            size = len(found.body or b"") if found else None
            demand("RES-1", kept, f"the {id_} result of {len(result)} bytes has {size}, or others")
        queue.publish("dead")
        queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", error))
        found = queue.backend.result(queue.name, "dead")
        demand("RES-1", found == JobResult(ResultStatus.FAILED, error=error), f"the error is {found!r:.80}")


_ALIKE = ("job", "JOB", "x" * 64 + "a", "x" * 64 + "b", "x" * 127 + "a", "x" * 127 + "b")
"""Ids that are the same without regard to case, or up to 64 or 127 characters."""


@check("RES-1", needs="results")
def alike_ids_have_results_of_their_own(context: CheckContext) -> None:
    """Ids that differ in case, or after 64 characters, and one id in two queues, have each its own result."""
    with context.queues(2) as queues:
        for queue in queues:
            queue.publish(*_ALIKE)
            consumer = queue.consumer()
            for _ in _ALIKE:
                held = queue.receive_one(consumer)
                queue.settle(consumer, Ack(held.receipt, f"{queue.name} {held.id}".encode()))
        for queue in queues:
            together = queue.backend.results(queue.name, _ALIKE)
            for id_ in _ALIKE:
                expected = JobResult(ResultStatus.DONE, f"{queue.name} {id_}".encode())
                found = queue.backend.result(queue.name, id_)
                demand("RES-1", found == expected, f"the result of {id_} in {queue.name} is {found}")
                demand("RES-1", together.get(id_) == expected, f"looked up together, {id_} has another's")
        queue, other = queues
        queue.backend.delete(queue.name)
        found = other.backend.result(other.name, "job")
        demand("ADM-3", found is not None, "deleting a queue took another's result")


@check("PUB-2", "PUB-5")
def one_id_in_two_queues_is_two_jobs(context: CheckContext) -> None:
    """The same ids are published into two queues, and each queue delivers, buries and redrives its own."""
    with context.queues(2) as queues:
        for queue in queues:
            messages = [Message(id_, f"{queue.name} {id_}".encode()) for id_ in _ALIKE]
            statuses = [outcome.status for outcome in queue.backend.publish(queue.name, messages)]
            accepted = statuses == [PublishStatus.ACCEPTED] * len(_ALIKE)
            demand("PUB-5", accepted, f"ids of another queue, or alike, were answered {statuses}")
        first, second = queues
        consumer = first.consumer()
        for id_ in _ALIKE:
            held = first.receive_one(consumer)
            found = (held.id, held.body)
            demand("PUB-2", found == (id_, f"{first.name} {id_}".encode()), f"{found} came for {id_}")
            first.settle(consumer, Dead(held.receipt, "rejected", "no good"))
        demand("PUB-2", second.backend.redrive(second.name, _ALIKE) == 0, "another's dead were redriven")
        second.expect_counts(ready=len(_ALIKE))
        redriven = first.backend.redrive(first.name, ["job", _ALIKE[2]])
        demand("DLQ-2", redriven == 2, f"of two ids with others alike, {redriven} were redriven")
        came = first.drain(consumer, 2)
        demand("DLQ-2", set(came) == {"job", _ALIKE[2]}, f"{came} were redriven")


@check("RES-1", needs="results")
def a_results_time_is_exact_and_begins_with_the_ack(context: CheckContext) -> None:
    """A time to keep of less than a second holds, is over in time, and isn't spent while the job runs."""
    for ttl_s in (0.6, 6.0, 60.0):  # longer where this machine is too slow to look before it is over
        if _is_kept_for(context, ttl_s):
            return
    demand("RES-1", False, "this machine was too slow to read a result within a minute of its ack")


def _is_kept_for(context: CheckContext, ttl_s: float) -> bool:
    """Keep results for so long, and demand that it is as long; answer False if that can't be seen."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("a", "b", "long", "after")
        consumer = queue.consumer()
        held = {delivery.id: delivery.receipt for _ in range(4) for delivery in queue.receive(consumer)}
        harness.advance(ttl_s)
        queue.settle(consumer, Ack(held["long"], b"2", 3600.0))
        began = harness.now()
        for id_, after_s in (("a", 0.0), ("b", math.ceil(ttl_s + 0.4) + 0.5)):  # at other parts of a second
            harness.advance(max(0.0, began + after_s - harness.now()))
            acked = harness.now()
            queue.settle(consumer, Ack(held[id_], b"1", ttl_s))
            answered = harness.now()
            for part in (0.0, 0.8):
                harness.advance(max(0.0, acked + part * ttl_s - harness.now()))
                found, kept_s = queue.backend.result(queue.name, id_), harness.now() - acked
                queue.backend.results(queue.name, [id_])  # who reads a result keeps it no longer
                if kept_s >= ttl_s:
                    return False
                whole = found == JobResult(ResultStatus.DONE, b"1")
                demand("RES-1", whole, f"{kept_s:.2f} s after the ack, of {ttl_s:g}, the result is {found}")
            harness.advance(max(0.0, answered + ttl_s + 0.4 - harness.now()))
            gone = queue.backend.result(queue.name, id_)
            demand(
                "RES-1", gone is None, f"kept for {ttl_s:g} s, it is there {ttl_s + 0.4:g} s after the ack"
            )
        queue.settle(consumer, Ack(held["after"]))  # adapters drop what is over when they settle
        kept = queue.backend.result(queue.name, "long")
        demand("RES-1", kept is not None, "a result that is kept for an hour went with shorter ones")
        return True


@check("DLY-1", "SET-2", "SET-4")
def a_month_is_a_month(context: CheckContext) -> None:
    """Delays of a month, of jobs, retries and releases, aren't over at once, as 32-bit milliseconds are."""
    days = (1, 25, 30, 45, 51, 365)
    with context.queue() as queue:
        consumer = queue.consumer()
        queue.publish("retried")
        outcome = queue.settle(consumer, Retry(queue.receive_one(consumer).receipt, 30 * _DAY_S, "later"))
        demand("SET-2", outcome is SettleOutcome.OK, f"a retry in 30 days was answered {outcome}")
        came = [delivery.id for delivery in consumer.receive(10, 0.0)]
        demand("SET-2", not came, "a retry in 30 days came at once")
        queue.publish("released")
        outcome = queue.settle(consumer, Release(queue.receive_one(consumer).receipt, 30 * _DAY_S))
        demand("SET-4", outcome is SettleOutcome.OK, f"a release in 30 days was answered {outcome}")
        came = [delivery.id for delivery in consumer.receive(10, 0.0)]
        demand("SET-4", not came, "a release in 30 days came at once")
        for day in days:
            queue.publish(f"days-{day}", delay_s=day * _DAY_S)
        came = [delivery.id for delivery in consumer.receive(10, 0.0)]
        demand("DLY-1", not came, f"{came} came at once")
        queue.expect_counts(delayed=len(days) + 2)
        if context.harness.virtual_time:
            context.harness.advance(29 * _DAY_S)
            came = sorted(delivery.id for delivery in consumer.receive(10, 0.0))
            demand("SET-2", "retried" not in came, "a retry in 30 days came after 29")
            demand("SET-4", "released" not in came, "a release in 30 days came after 29")
            demand("DLY-1", came == ["days-1", "days-25"], f"after 29 days, {came} came")


@contextmanager
def _with_everything(context: CheckContext) -> Iterator[QueueUnderTest]:
    """A queue with a job in every state."""
    with context.queue() as queue:
        queue.publish("done", "dead", "retried", "flying", "ready")
        queue.publish("delayed", delay_s=3600.0)
        consumer = queue.consumer()
        held = {delivery.id: delivery.receipt for _ in range(4) for delivery in queue.receive(consumer)}
        queue.settle(consumer, Ack(held["done"], b"1" if context.capabilities.results else None))
        queue.settle(consumer, Dead(held["dead"], "rejected", "no good"))
        queue.settle(consumer, Retry(held["retried"], 3600.0, "later"))
        queue.expect_counts(ready=1, delayed=2, in_flight=1, dead=1)
        yield queue


def _expect_kept(context: CheckContext, queue: QueueUnderTest, clause: str, after: str) -> None:
    """Demand that the dead letter and the result are still there."""
    dead = [letter.id for letter in queue.backend.dead_letters(queue.name)]
    demand(clause, dead == ["dead"], f"after {after}, the dead letters are {dead}")
    if context.capabilities.results:
        found = queue.backend.result(queue.name, "done")
        expected = JobResult(ResultStatus.DONE, b"1")
        demand(clause, found == expected, f"after {after}, the result of a job that is done is {found}")
        failed = queue.backend.result(queue.name, "dead")
        demand(clause, failed is not None, f"after {after}, a dead job has no result")


@check("ADM-1")
def declaring_again_keeps_jobs_in_every_state(context: CheckContext) -> None:
    """Another declaration keeps what is ready, delayed, retried, in flight, dead and done."""
    with _with_everything(context) as queue:
        queue.backend.declare(Queue(queue.name))
        _expect_kept(context, queue, "ADM-1", "a second declaration")
        queue.expect_counts(ready=1, delayed=2, in_flight=1, dead=1)


@check("ADM-2", "PUB-5")
def purging_keeps_what_has_ended(context: CheckContext) -> None:
    """Purge keeps dead letters, results and what is in flight, and frees the ids of what it dropped."""
    with _with_everything(context) as queue:
        purged = queue.backend.purge(queue.name)
        demand("ADM-2", purged == 3, f"it says {purged}, and 3 waited")
        _expect_kept(context, queue, "ADM-2", "a purge")
        queue.expect_counts(in_flight=1, dead=1)
        again = [queue.message(id_) for id_ in ("ready", "delayed", "retried")]
        statuses = [outcome.status for outcome in queue.backend.publish(queue.name, again)]
        accepted = statuses == [PublishStatus.ACCEPTED] * 3
        demand("PUB-5", accepted, f"the ids of purged jobs were answered {statuses}")
        consumer = queue.consumer()
        attempts = {each.id: each.attempt for _ in range(3) for each in queue.receive(consumer)}
        demand("ADM-2", set(attempts.values()) == {1}, f"jobs with purged ids go on at attempts {attempts}")
