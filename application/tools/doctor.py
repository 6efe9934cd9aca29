"""Looking for what is wrong between a program and its broker, from the outside in."""

from collections.abc import Sequence
from contextlib import suppress

from ...domain.errors import AdapterNotInstalled, JobsError, UnsupportedCapability
from ...ports import Finding, OrchestratorBackend, Verdict
from ...ports.findings import doubtful, good, wrong
from ..api.consumer import Consumer
from ..api.orchestrator import Orchestrator
from ..broker.backends import detect_backend
from ..failures.handler_errors import describe
from ..pausing.records import read_pauses
from ..worker.connecting import WorkerSettings, connect
from ..worker.worker import MakeConsumer, make_consumers
from .dry_run import DryRunBackend, EndOfDryRun


def examine(url: str, makers: Sequence[MakeConsumer], settings: WorkerSettings) -> list[Finding]:
    """Say what is good and what is amiss; nothing is changed, and what is amiss raises nothing.

    Args:
        url: The backend's URL.
        makers: What makes the consumers that are configured, if any.
        settings: How a worker would run them.
    """
    try:
        backend = detect_backend(url)
    except AdapterNotInstalled as error:
        return [wrong("adapter", str(error), str(error).rpartition(": ")[2])]
    except JobsError as error:
        return [wrong("url", str(error), "correct the URL")]
    with backend:
        diagnosis = backend.diagnose()
        findings = [good("adapter", type(backend).__name__), *diagnosis, *_check_settings(settings)]
        if diagnosis[0].verdict is not Verdict.WRONG:  # else nothing can be asked of it
            orchestrator = Orchestrator(DryRunBackend(backend))
            findings += [
                each for make in makers for each in _check_consumers(backend, orchestrator, make, settings)
            ]
            findings += _check_pauses(backend, makers)
    return findings


def _check_settings(settings: WorkerSettings) -> list[Finding]:
    findings = []
    if settings.lease_s < 5.0:
        findings.append(
            doubtful(
                "lease",
                f"a lease of {settings.lease_s:g} s ends in every short outage, and its job runs twice",
                "set lease_s to about 30 s; a heartbeat extends it while a job runs",
            )
        )
    return findings


def _check_consumers(
    backend: OrchestratorBackend, orchestrator: Orchestrator, make: MakeConsumer, settings: WorkerSettings
) -> list[Finding]:
    """Whether a worker could make and connect consumers, and their queues are or can be as they say."""
    try:
        consumers = make_consumers(make)
    except (Exception, SystemExit) as error:  # whatever a class does
        return [_refused(error)]
    return [_check_consumer(backend, orchestrator, consumer, settings) for consumer in consumers]


def _refused(error: BaseException) -> Finding:
    remedy = "correct its class, the settings or the URL; a worker ends with the same message"
    return wrong("consumer", str(error) if isinstance(error, JobsError) else describe(error), remedy)


def _check_consumer(
    backend: OrchestratorBackend, orchestrator: Orchestrator, consumer: Consumer, settings: WorkerSettings
) -> Finding:
    try:
        name = consumer.queue_name
        with suppress(EndOfDryRun):
            connect(consumer, orchestrator, settings)
            consumer.close()
    except (Exception, SystemExit) as error:  # whatever its class does
        return _refused(error)
    try:
        declared = {queue.name: queue.kind for queue in backend.queues()}
    except UnsupportedCapability:
        return good("queue", f"{name}: not checked, as this backend can't list its queues")
    except JobsError as error:
        return doubtful("queue", f"{name}: {error}", "permit the user to list the queues")
    own = consumer.own_schema()
    return _drift(name, declared.get(name), (consumer.queue_type or own.queue_type) if own else None)


def _check_pauses(backend: OrchestratorBackend, makers: Sequence[MakeConsumer]) -> list[Finding]:
    """Which queues are paused, of all that can be listed, or of those that the consumers name."""
    if not backend.capabilities.coordination:
        return []
    names: set[str] = set()
    for make in makers:
        with suppress(JobsError):  # told already
            names.update(consumer.queue_name for consumer in make_consumers(make))
    try:
        with suppress(UnsupportedCapability):
            names.update(queue.name for queue in backend.queues())
        pauses = read_pauses(backend.coordination, sorted(names))
    except JobsError as error:
        return [doubtful("pauses", str(error), "make the coordination store reachable")]
    return [
        doubtful("pause", f"{name} is {pause}", f"mindtrace-jobs resume {name}")
        for name, pause in pauses.items()
    ]


def _drift(name: str, found: str | None, wanted: str | None) -> Finding:
    if found is None:
        return good("queue", f"{name}: not declared yet; a worker declares it")
    if wanted is not None and found != wanted:
        return wrong(
            "queue",
            f"{name} exists as {found}, but its consumer says {wanted}",
            f'give its schema queue_type="{found}", or drain the queue, and then run: mindtrace-jobs '
            f"delete {name}",
        )
    return good("queue", f"{name}: {found}")
