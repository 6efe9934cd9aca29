"""CON-2, ADM-3, SEC-3: what is left behind, listed or said that shouldn't be."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...domain import Queue, QueueKind
from ...domain.errors import JobsError, UnsupportedCapability
from ...ports import Ack, OrchestratorBackend
from ..check_context import CheckContext
from ..registry import check
from ..violation import demand

_DESCRIPTORS = Path("/proc/self/fd")


class NoSecretsWarning(UserWarning):
    """A harness names no secrets, so that SEC-3 proves nothing."""


@check("CON-2")
def closing_leaves_no_descriptor(context: CheckContext) -> None:
    """However often clients and consumers are opened, used and closed, no descriptor or socket is left."""
    if not _DESCRIPTORS.is_dir():
        return

    def use() -> None:
        with context.backends(2) as backends:
            queue = context.queue_on(backends[0])
            for backend in backends:
                queue.publish("job")
                with backend.open_consumer(queue.name) as consumer:
                    held = queue.receive_one(consumer)
                    consumer.settle([Ack(held.receipt)])
            backends[1].counts(queue.name)

    def descriptors() -> int:
        gc.collect()
        return len(list(_DESCRIPTORS.iterdir()))

    for _ in range(3):  # what is opened once and kept, such as of a shared event loop, is no leak
        use()
    before, times = descriptors(), 8
    for _ in range(times):
        use()

    def no_more() -> None:
        more = descriptors() - before
        demand("CON-2", more < times, f"{more} descriptors more after {times} rounds")

    context.eventually(no_more)


def _listed(backend: OrchestratorBackend) -> list[Queue] | None:
    """The queues that a client lists; None if it can't."""
    try:
        return backend.queues()
    except UnsupportedCapability:
        return None


@check("ADM-3", "CON-2")
def queues_are_listed_while_they_are_there(context: CheckContext) -> None:
    """A backend that lists queues lists those that are declared, by name, of its own namespace only."""
    with context.backends(2) as (mine, other), context.backends(1) as (stranger,):
        if _listed(mine) is None:
            return
        stranger.declare(Queue("strangers"))
        for name in ("b", "a", "c"):
            mine.declare(Queue(name))
        demand("CON-2", _listed(stranger) == [Queue("strangers")], f"{_listed(stranger)} are listed")
        found = _listed(other)
        demand(
            "ADM-3", found == [Queue("a"), Queue("b"), Queue("c")], f"a, b, c are declared, {found} listed"
        )
        other.delete("b")
        for backend in (mine, other):
            found = _listed(backend)
            demand("ADM-3", found == [Queue("a"), Queue("c")], f"b is deleted, {found} are listed")
        if mine.capabilities.stack:
            mine.declare(Queue("b", QueueKind.STACK))
            found = _listed(other)
            is_new = found is not None and Queue("b", QueueKind.STACK) in found
            demand("ADM-3", is_new, f"b was deleted, and is declared as a stack: {found} are listed")
            mine.delete("b")
        stranger.delete("strangers")
        demand("CON-2", _listed(mine) == [Queue("a"), Queue("c")], "another's delete changed the list")


@contextmanager
def _collected_logs(into: list[str]) -> Iterator[None]:
    """Collect all that is logged."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            into.append(self.format(record))

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(collector)
        root.setLevel(level)


def _chain(error: BaseException | None) -> Iterator[str]:
    """An error and all that it came of, also what a traceback doesn't show."""
    while error is not None:
        yield f"{error!r} {error.args!r}"
        error = error.__cause__ or error.__context__


@check("SEC-3")
def secrets_stay_secret_to_the_end(context: CheckContext) -> None:
    """What the harness connects with is in no finding, URL, cause of an error or log of a close."""
    secrets = context.harness.secrets
    if secrets == ():
        warnings.warn(
            f"{context.harness.backend_name()}: the harness names no secrets, so SEC-3 proves nothing: "
            "connect with a password and name it, or set secrets = None if there is none",
            NoSecretsWarning,
            stacklevel=2,
        )
    records: list[str] = []
    with _collected_logs(records), context.backends(1) as (backend,):
        queue = context.queue_on(backend)
        consumer = queue.consumer()
        records += [f"{finding!r}" for finding in backend.diagnose()]
        with suppress(UnsupportedCapability):
            records += [backend.url, backend.make_url()]
        try:
            backend.counts("never-declared")
        except JobsError as error:
            records += _chain(error)
        context.harness.sever(backend)
        queue.publish("job")
        consumer.close()
        backend.close()
        records += _chain(context.failure_of(lambda: backend.counts("jobs")))
    for secret in secrets or ():
        leaks = [record for record in records if secret in record]
        demand("SEC-3", not leaks, f"a secret stands in {leaks[:1]!r:.200}")
