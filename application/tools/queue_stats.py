"""Looking at queues, once or again and again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from ...domain import Progress, QueueKind
from ...domain.errors import AccessDenied, BackendUnavailable, InvalidInput, UnsupportedCapability
from ...ports import QueueCounts
from ..api.orchestrator import Orchestrator
from ..pausing.records import Pause


@dataclass(frozen=True, slots=True)
class QueueView:
    """What was seen of a queue at one moment."""

    name: str
    kind: QueueKind | None
    """None where the backend can't tell."""
    counts: QueueCounts
    progress: Mapping[str, Progress]
    """Of the jobs that run, as far as they told, by id."""
    change_per_s: float | None = None
    """Jobs a second that came, less those that ended, since the look before; None at the first."""
    pause: Pause | None = None
    """Why it gives out no jobs; None if it isn't paused, or can't be."""
    pause_error: str | None = None
    """Why it isn't known whether it is paused; None if it is known."""

    @property
    def live(self) -> int:
        """How many jobs are neither done nor dead."""
        return self.counts.waiting + (self.counts.in_flight or 0)


def watch(orchestrator: Orchestrator, names: Sequence[str]) -> Iterator[list[QueueView]]:
    """Look at the queues named, or else at all there are, each time the next look is asked for.

    Raises:
        QueueNotFound: one that was named isn't declared.
        InvalidInput: none was named, and the backend can't list its queues.
    """
    before: dict[str, tuple[float, int]] = {}
    named = _queues(orchestrator, names) if names else None
    while True:
        views = []
        kinds = named or _queues(orchestrator, names)
        pauses, error = _pauses(orchestrator, list(kinds))
        for name, kind in kinds.items():
            counts, now = orchestrator.counts(name), monotonic()
            progress, pause = orchestrator.progress(name), pauses.get(name)
            view = QueueView(name, kind, counts, progress, pause=pause, pause_error=error)
            if name in before:
                then, live = before[name]
                view = replace(view, change_per_s=(view.live - live) / max(now - then, 1e-9))
            before[name] = (now, view.live)
            views.append(view)
        yield views


def _pauses(orchestrator: Orchestrator, names: list[str]) -> tuple[dict[str, Pause], str | None]:
    """Return the pauses of queues, and why they aren't known: counts need no store of another system."""
    if not orchestrator.backend.capabilities.coordination:
        return {}, None
    try:
        return orchestrator.pauses(names), None
    except (AccessDenied, BackendUnavailable) as error:
        return {}, str(error)


def _queues(orchestrator: Orchestrator, names: Sequence[str]) -> dict[str, QueueKind | None]:
    try:
        kinds: dict[str, QueueKind | None] = {queue.name: queue.kind for queue in orchestrator.queues()}
    except UnsupportedCapability as error:
        if not names:
            raise InvalidInput(str(error)) from error
        kinds = {}
    return {name: kinds.get(name) for name in names} if names else kinds
