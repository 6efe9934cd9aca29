"""CON-2: what namespaces keep in one store is kept apart: results, pauses and cancels; see ``records``, too.

A broker that keeps no results or records borrows a store, and all its namespaces may have the same one.
"""

from functools import partial

from ...domain import Job
from ...ports import Ack, JobResult, ResultStatus
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand
from .wakeups import LONG_S, woken


@check("CON-2", needs="results")
def results_of_two_namespaces_never_meet(context: CheckContext) -> None:
    """A job of one id in queues of one name has a result of its own in each namespace."""

    def done(result: bytes) -> JobResult:
        return JobResult(ResultStatus.DONE, result)

    with context.queue() as mine, context.queue() as other:
        consumers = {queue.backend: queue.consumer() for queue in (mine, other)}
        receipts = {}
        for queue in (mine, other):
            queue.publish("job")
            receipts[queue.backend] = queue.receive_one(consumers[queue.backend]).receipt
        waiting = context.start(partial(other.backend.result, other.name, "job", timeout_s=LONG_S))
        mine.settle_ok(consumers[mine.backend], Ack(receipts[mine.backend], b"mine"))
        found = other.backend.result(other.name, "job"), other.backend.results(other.name, ["job"])
        demand("CON-2", found == (None, {}), f"of a job of another namespace, {found} is known")
        other.settle_ok(consumers[other.backend], Ack(receipts[other.backend], b"other"))
        came = woken(context, waiting, "RES-1", "an ack")
        demand("CON-2", came == done(b"other"), f"who waited for b'other' got {came}")
        other.publish("job")
        other.backend.delete(other.name)
        kept = mine.backend.result(mine.name, "job", timeout_s=context.harness.timeout_s)
        demand("CON-2", kept == done(b"mine"), f"after a delete in another namespace, there is {kept}")


@check("CON-2", needs="coordination")
def pauses_of_two_namespaces_never_meet(context: CheckContext) -> None:
    """A queue of the same name in another namespace isn't paused, and its resume resumes no other."""
    with app_on(context) as mine, app_on(context) as other:
        mine.orchestrator.pause(QUEUE, "mine")
        pause = other.orchestrator.paused(QUEUE)
        demand("CON-2", pause is None, f"a queue of another namespace is {pause}")
        job_id = other.publish(Numbers())
        demand("CON-2", other.consume(other.recorder(), 1).ids == [job_id], "another's queue was paused")
        demand("CON-2", not other.orchestrator.resume(QUEUE), "a pause of another namespace was there to end")
        pause = mine.orchestrator.paused(QUEUE)
        demand("CON-2", pause is not None, "another namespace's resume ended a pause")


@check("CON-2", needs="coordination")
def cancels_of_two_namespaces_never_meet(context: CheckContext) -> None:
    """A job of the same id in a queue of the same name of another namespace runs, if one is cancelled."""
    with app_on(context) as mine, app_on(context) as other:
        for app in (mine, other):
            app.publish(Job(schema_name=QUEUE, payload=Numbers(), id="same"))
        mine.orchestrator.cancel(QUEUE, "same")
        ran = other.consume(other.recorder(), 1)
        demand("CON-2", ran.ids == ["same"], f"a cancel in another namespace left {ran.ids} to run")
