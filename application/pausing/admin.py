"""What an orchestrator does with pauses: set, end and show them."""

import logging
from collections.abc import Sequence

from ...domain.errors import InvalidInput
from ...ports import CoordinationStore, OrchestratorBackend
from ...ports.base_classes import Closeable
from ..registration.registry import QueueRef, queue_name_of
from .records import MAX_REASON_CHARS, Pause, delete_pause, read_pauses, write_pause
from .watch import PauseWatch


class PauseAdmin(Closeable):
    """A base of :class:`Orchestrator`: its methods for pauses."""

    backend: OrchestratorBackend
    logger: logging.Logger

    def pause(self, queue_name: QueueRef, reason: str | None = None) -> Pause:
        """Pause a queue: within a second, no consumer anywhere starts another of its jobs.

        Running jobs finish. Jobs that a consumer has taken and not started go back, without an attempt spent
        (SET-4). Jobs can be published as before. Pausing a paused queue
        changes nothing but the reason, if one is given.

        Args:
            queue_name: A declared queue.
            reason: Why; shown with the queue. At most 1,024 characters.

        Raises:
            QueueNotFound: the queue isn't declared.
            UnsupportedCapability: the backend has no coordination store.
            InvalidInput: ``reason`` is too long, or no text.
        """
        name, store = queue_name_of(queue_name), self._pause_store()
        given: object = reason
        if given is not None and not (isinstance(given, str) and len(given) <= MAX_REASON_CHARS):
            raise InvalidInput(
                f"reason {reason!r:.80}: must be a text of at most {MAX_REASON_CHARS} characters"
            )
        self.backend.counts(name)
        if reason is not None:  # a byte of the command line that is no UTF-8 can't be written
            reason = reason.encode(errors="backslashreplace").decode()
        pause = write_pause(store, name, reason)
        self._look_anew_at(name)
        return pause

    def resume(self, queue_name: QueueRef) -> bool:
        """Let the consumers of a queue go on, within a second; return whether it was paused.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
        """
        name = queue_name_of(queue_name)
        was_paused = delete_pause(self._pause_store(), name)
        self._look_anew_at(name)
        return was_paused

    def paused(self, queue_name: QueueRef) -> Pause | None:
        """Say since when a queue is paused, and why; None if it isn't.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
        """
        name = queue_name_of(queue_name)
        return self.pauses([name]).get(name)

    def pauses(self, queue_names: Sequence[str]) -> dict[str, Pause]:
        """Return the pauses of those of these queues that are paused, by name, in one round trip.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
        """
        return read_pauses(self._pause_store(), list(queue_names))

    @property
    def pause_watch(self) -> PauseWatch | None:
        """What tells the consumers of this orchestrator of pauses; None without a coordination store."""
        made: PauseWatch | None = vars(self).get("_pause_watch")
        if made is not None or not self.backend.capabilities.coordination:
            return made
        is_own = self.backend.capabilities.guarded_publish
        made = PauseWatch(self.backend.coordination, self.logger, is_own=is_own)
        watch: PauseWatch = vars(self).setdefault("_pause_watch", made)
        return watch

    def _look_anew_at(self, queue: str) -> None:
        if (watch := self.pause_watch) is not None:
            watch.look_anew_at(queue)

    def _pause_store(self) -> CoordinationStore:
        self.backend.capabilities.require_coordination("pauses need")
        return self.backend.coordination
