"""CON-2: what calls leave in this process and in the broker, once all that they made has ended."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from ...domain.errors import UnsupportedCapability
from ...domain.job_progress import Progress
from ...ports import Ack, ConsumerBackend, Dead, JobResult, Place, ResultStatus, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_DESCRIPTORS = Path("/proc/self/fd")
_WARMING, _ROUNDS = 3, 8
"""Rounds before the first count, as what is opened once and kept is no trace; and rounds after it."""


@check("CON-2", takes_long=True)
def calls_leave_nothing(context: CheckContext) -> None:
    """However often each call is made, also a ``result`` that is answered while it waits, nothing adds up.

    These are counted: threads, descriptors, and what the broker stores, where the harness can tell.
    """
    with context.queue() as queue:
        for _ in range(_WARMING):
            _use(queue)
        seen = _in_this_process()
        stored = context.harness.count_stored(queue.backend)
        for _ in range(_ROUNDS):
            _use(queue)

        def no_more() -> None:
            left = {what: len(now - seen[what]) for what, now in _in_this_process().items()}
            if stored is not None:
                left["stored items"] = (context.harness.count_stored(queue.backend) or 0) - stored
            for what, count in left.items():
                found = f"{_ROUNDS} rounds of every call left {count} {what}"
                demand("CON-2", count < _ROUNDS, f"{found}: a trace of each")

        context.eventually(no_more)


def _in_this_process() -> dict[str, set[object]]:
    """Return the threads and descriptors of this process, each by itself.

    Their number wouldn't do: where others of this process end meanwhile, as those of an earlier check do, it
    stays the same though calls leave some.
    """
    gc.collect()
    found: dict[str, set[object]] = {"threads": set(threading.enumerate())}
    if _DESCRIPTORS.is_dir():
        found["descriptors"] = set(_descriptors())
    return found


def _descriptors() -> Iterator[tuple[str, str]]:
    """Yield each descriptor with what it is open on, as its number is given again once it is closed."""
    for each in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # it was that of the folder itself, or was closed meanwhile
            yield each.name, str(each.readlink())


def _use(queue: QueueUnderTest) -> None:
    """Make every call, and end every job."""
    with queue.consumer() as consumer:
        _end_in_every_way(queue, consumer)
        _wait_for_a_result(queue, consumer)
    for use in (_administrate, _coordinate):
        use(queue)
    queue.expect_counts()


def _end_in_every_way(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    backend, name = queue.backend, queue.name
    result = (
        b"{}" if backend.capabilities.results else None
    )  # ends without one are remembered, up to a number
    queue.publish("acked", "retried", "dropped", "redriven")
    held = {each.id: each.receipt for each in (queue.receive_one(consumer) for _ in range(4))}
    consumer.report(held["acked"], Progress(1.0, 2.0))
    consumer.extend([*held.values()])
    consumer.settle(
        [
            Ack(held["acked"], result),
            Retry(held["retried"], 0.0, "again"),
            Dead(held["dropped"], "rejected", "no good"),
            Dead(held["redriven"], "rejected", "no good"),
        ]
    )
    backend.dead_letters(name)
    backend.redrive(name, ["redriven"])
    backend.discard(name)
    for _ in range(2):
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, result))
    consumer.receive(1, 0.01)  # it waits in vain
    consumer.interrupt()
    consumer.receive(1, 0.0)


def _wait_for_a_result(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    """Have a result waited for, by a call and by ended_jobs, and then end the job."""
    context, backend = queue.context, queue.backend
    if not backend.capabilities.results:
        return
    queue.publish("awaited")
    held = queue.receive_one(consumer)
    with closing(backend.ended_jobs(queue.name)) as ended:
        waiting = context.start(lambda: backend.result(queue.name, "awaited", timeout_s=600.0))
        time.sleep(0.02)  # most often it waits by then
        queue.settle_ok(consumer, Ack(held.receipt, b"{}"))
        found = context.finish(waiting)
        demand("RES-1", found == JobResult(ResultStatus.DONE, b"{}"), f"the awaited result is {found}")
        ended.wait(0.0)
    backend.result(queue.name, "never-published", timeout_s=0.01)
    backend.results(queue.name, ["awaited", "never-published"])


def _administrate(queue: QueueUnderTest) -> None:
    backend, name = queue.backend, queue.name
    queue.publish("cancelled", "purged")
    queue.publish("delayed", delay_s=3600.0)
    if backend.capabilities.cancel:
        with queue.consumer() as consumer:
            held = queue.receive_one(consumer)
            backend.cancel(name, [held.id, "purged", "unknown"])
            consumer.settle([Retry(held.receipt, 0.0, "again")])
        queue.publish("purged")
    backend.counts(name)
    backend.progress(name)
    with suppress(UnsupportedCapability):
        backend.status(name, "purged")
    with suppress(UnsupportedCapability):
        backend.queues()
    backend.purge(name)


def _coordinate(queue: QueueUnderTest) -> None:
    if not queue.backend.capabilities.coordination:
        return
    store = queue.backend.coordination
    version = store.put("record", b"{}")
    store.get(["record"])
    store.scan("rec")
    store.delete("record", expected=version)
    places = [Place("place", 1, "holder")]
    store.take_places(places, ttl_s=60.0)
    store.leave_places(places)
