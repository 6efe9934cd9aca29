"""RES: many results at once."""

from ...domain.errors import QueueNotFound
from ...ports import Ack, Dead, JobResult, Next, ResultStatus
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand

_MANY = 1200
"""More than adapters look up in one request."""
_WAIT_S = 5.0


@check("RES-1", needs="results")
def many_results_are_looked_up_at_once(context: CheckContext) -> None:
    """Those of the jobs that have ended, as one by one: done with and without an output, and dead."""
    with context.queue() as queue:
        queue.publish("done", "silent", "dead", "ready", "again")
        consumer = queue.consumer()
        for answer in (b'{"total":1}', None):
            queue.settle(consumer, Ack(queue.receive_one(consumer).receipt, answer))
        queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
        ids = ["done", "silent", "dead", "ready", "again", "never"]
        found = queue.backend.results(queue.name, [*ids, *(f"never-{n}" for n in range(_MANY)), "done"])
        one_by_one = {id_: queue.backend.result(queue.name, id_) for id_ in ids}
        expected = {
            "done": JobResult(ResultStatus.DONE, b'{"total":1}'),
            "silent": JobResult(ResultStatus.DONE),
            "dead": JobResult(ResultStatus.FAILED, error="no good"),
        }
        demand("RES-1", found == expected, f"looked up at once: {found}")
        demand("RES-1", {id_: one_by_one[id_] for id_ in expected} == expected, f"one by one: {one_by_one}")
        assert queue.backend.results(queue.name, []) == {}
        queue.publish("done", "silent")
        again = queue.backend.results(queue.name, ids)
        demand("RES-1", again.keys() == {"dead"}, f"former ends of what was published again: {again}")


@check("RES-1", needs="results")
def those_who_wait_for_many_miss_no_end(context: CheckContext) -> None:
    """A caller that waits for jobs to end is told of each, or told to look all of them up."""
    plan = ((1, b"1"), (99, None), (150, b"2"), (_MANY, None), (1, None))
    ids = [f"job-{n}" for n in range(sum(count for count, _ in plan))]
    with context.queue() as queue:
        queue.publish(*ids)
        can_chain = context.capabilities.then
        following = (Next(queue.name, queue.message("next")),) if can_chain else ()
        leaving = queue.backend.ended_jobs(queue.name)
        with queue.backend.ended_jobs(queue.name) as ended:
            leaving.close()  # which is nobody else's business
            consumer = queue.consumer()
            missing = set(ids)
            for place, (count, result) in enumerate(plan, 1):
                receipts: list[str] = []
                while len(receipts) < count:
                    came = queue.receive(consumer, count - len(receipts))
                    demand("RCV-1", came, f"only {len(receipts)} of {count} came")
                    receipts += [delivery.receipt for delivery in came]
                then = following if place == len(plan) else ()
                consumer.settle([Ack(receipt, result, then=then) for receipt in receipts])
                elapsed_s = context.stopwatch()
                expected = len(missing) - count
                while len(missing) > expected and elapsed_s() < context.harness.timeout_s:
                    told = ended.wait(_WAIT_S)
                    ask = missing if told is None else missing.intersection(told)
                    missing -= queue.backend.results(queue.name, sorted(ask)).keys()
                demand("RES-1", len(missing) == expected, f"{len(missing) - expected} ends were never told")
        found = queue.backend.results(queue.name, ids)
        demand("RES-1", found.keys() == set(ids), f"{len(ids) - len(found)} results aren't found")


@check("RES-1", "ADM-3", needs="results")
def results_of_an_undeclared_queue_are_refused(context: CheckContext) -> None:
    """Looking results up in a queue that isn't declared raises QueueNotFound."""
    with context.queue() as queue:
        error = context.failure_of(lambda: queue.backend.results("never-declared", ["job"]))
        demand("ADM-3", isinstance(error, QueueNotFound), f"it raised {error!r}")
