"""Every call of a backend that names a queue."""

from collections.abc import Callable

from ..ports import ABSENT, Guard, Message, OrchestratorBackend

_JOB = Message("a", b"{}")


def calls_naming(backend: OrchestratorBackend, queue: str) -> dict[str, Callable[[], object]]:
    """Return the calls by what they do, also those of no job; without what the backend declares off."""
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: backend.publish(queue, [_JOB]),
        "publish of no job": lambda: backend.publish(queue, []),
        "open_consumer": lambda: backend.open_consumer(queue),
        "counts": lambda: backend.counts(queue),
        "purge": lambda: backend.purge(queue),
        "dead_letters": lambda: backend.dead_letters(queue),
        "redrive": lambda: backend.redrive(queue),
        "redrive by id": lambda: backend.redrive(queue, ["a"]),
        "redrive of no job": lambda: backend.redrive(queue, []),
        "discard": lambda: backend.discard(queue),
        "discard by id": lambda: backend.discard(queue, ["a"]),
        "discard of no job": lambda: backend.discard(queue, []),
        "delete": lambda: backend.delete(queue),
        "progress": lambda: backend.progress(queue),
        "progress by id": lambda: backend.progress(queue, ["a"]),
    }
    able = backend.capabilities
    if able.results:
        calls["result"] = lambda: backend.result(queue, "a")
        calls["a result that is waited for"] = lambda: backend.result(queue, "a", timeout_s=60.0)
        calls["results"] = lambda: backend.results(queue, ["a"])
        calls["results of no job"] = lambda: backend.results(queue, [])
        calls["ended_jobs"] = lambda: backend.ended_jobs(queue)
    if able.cancel:
        calls["cancel"] = lambda: backend.cancel(queue, ["a"])
        calls["cancel of no job"] = lambda: backend.cancel(queue, [])
    if able.guarded_publish:
        calls["publish_guarded"] = lambda: backend.publish_guarded(queue, _JOB, Guard("guard", ABSENT, b""))
    return calls
