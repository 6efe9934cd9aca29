"""Waiting for a job to end, with an eye on its progress, where its schema isn't known."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from pydantic import BaseModel

from ...domain import Progress, Queue
from ...domain.bounds import check_name
from ...domain.errors import InvalidInput, JobNotFound, ResultNotReady, UnsupportedCapability
from ...ports import JobStatus
from ..api.orchestrator import Orchestrator

_LOOK_S = 0.5
"""How often progress is looked at."""


def await_result(
    orchestrator: Orchestrator,
    job_id: str,
    queue: str | None = None,
    *,
    timeout_s: float = 0.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Any:
    """Return what the handler of a job returned, as a dict, or None; wait up to ``timeout_s`` seconds.

    Args:
        orchestrator: Where to ask.
        job_id: The job.
        queue: Its queue; without one, every declared queue is asked in turn.
        timeout_s: How long to wait.
        on_progress: Called when the job has told how far it has come.

    Raises:
        JobFailed: the job is dead; the message ends with its last error.
        JobNotFound: no queue that was asked knows it, or its result has expired.
        ResultNotReady: it hasn't ended by then.
        QueueNotFound: the queue isn't declared.
        InvalidInput: the id is none, or no queue was named and the backend can't list them.
    """
    check_name("job id", job_id)
    found = [queue] if queue is not None else _all_queues(orchestrator)
    for each in found:
        orchestrator.attach(each)
    queues = [each.name if isinstance(each, Queue) else each for each in found]
    give_up_s = monotonic() + timeout_s
    while True:
        remaining_s = max(0.0, give_up_s - monotonic())
        answer: ResultNotReady = JobNotFound(f"job {job_id}: not known in any queue: {', '.join(queues)}")
        for name in queues:
            wait_s = min(_LOOK_S, remaining_s) if len(queues) == 1 else 0.0
            try:
                value = orchestrator.result(name, job_id, timeout_s=wait_s)
            except JobNotFound as error:
                if len(queues) == 1:
                    answer = error
            except ResultNotReady:
                answer = _not_yet(orchestrator, name, job_id, timeout_s)
                for progress in orchestrator.progress(name, [job_id]).values():
                    on_progress(progress)
            else:
                return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if not remaining_s:
            raise answer
        if len(queues) != 1:
            sleep(min(_LOOK_S, remaining_s))


def _not_yet(orchestrator: Orchestrator, queue: str, job_id: str, timeout_s: float) -> ResultNotReady:
    status = orchestrator.status(queue, job_id)
    said = f"it is {status}"
    if status is JobStatus.UNKNOWN:
        said = "it hasn't ended, is unknown, or its result has expired; this backend can't tell which"
    waited = f"no result within {timeout_s:g} s: {said}; a higher" if timeout_s else f"{said};"
    return ResultNotReady(f"job {job_id}: {waited} --wait SECONDS waits for its result")


def _all_queues(orchestrator: Orchestrator) -> list[Queue]:
    try:
        return orchestrator.queues()
    except UnsupportedCapability as error:
        raise InvalidInput(f"{error} (--queue)") from error
