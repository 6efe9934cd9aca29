"""Publishes the next jobs of acks and deaths, before these are sent (THEN-1, THEN-4)."""

from collections.abc import Callable, Sequence
from logging import Logger
from typing import NamedTuple

from ....domain.errors import BackendUnavailable, Closed, JobsError
from ....ports import Ack, Dead, Message, PublishOutcome, PublishStatus
from .settler import Placed

Publish = Callable[[str, Sequence[Message]], list[PublishOutcome]]
"""Publishes messages into a queue, given by its name, as the port's ``publish``."""

Chained = tuple[Placed, Ack | Dead]
"""A settlement with next jobs, and where its job and its answer belong."""


class Published(NamedTuple):
    """What became of the next jobs of some settlements: these may be sent, or not."""

    confirmed: list[Placed]
    """All of their next jobs are confirmed."""
    refused: list[Placed]
    """One of their next jobs can't be published, and so they aren't to be settled (THEN-3)."""
    open: list[Placed]
    """It isn't known of each next job whether it was published: publish them again with the next call."""


class NextJobPublisher:
    """Publishes next jobs. One that is confirmed isn't published again with a later try.

    Args:
        publish: Publishes messages.
        logger: Gets a warning where next jobs weren't published.
    """

    def __init__(self, publish: Publish, logger: Logger) -> None:
        self._publish = publish
        self._logger = logger
        self._confirmed: dict[str, set[tuple[str, str]]] = {}
        """The queue and the id of next jobs, by the receipts of what waits for the confirms of others."""

    def publish(self, chained: Sequence[Chained]) -> Published:
        """Publish the next jobs of settlements, queue by queue, and wait for the broker to confirm them."""
        failures = self._publish_unconfirmed([end for _, end in chained])
        published = Published([], [], [])
        for placed, end in chained:
            failed = failures.get(end.receipt, [])
            if any(isinstance(failure, BackendUnavailable | Closed) for failure in failed):
                published.open.append(placed)
            else:
                self.forget(end.receipt)
                (published.refused if failed else published.confirmed).append(placed)
        return published

    def forget(self, receipt: str) -> None:
        """Forget what is confirmed: the settlement of this receipt won't be tried again."""
        self._confirmed.pop(receipt, None)

    def _publish_unconfirmed(self, ends: Sequence[Ack | Dead]) -> dict[str, list[JobsError]]:
        """Return by receipt why next jobs aren't known to be in their queues."""
        messages: dict[str, list[tuple[str, Message]]] = {}
        for end in ends:
            confirmed = self._confirmed.setdefault(end.receipt, set())
            for queue, message in end.then:
                if (queue, message.id) not in confirmed:
                    messages.setdefault(queue, []).append((end.receipt, message))
        failed: dict[str, list[JobsError]] = {}
        for queue, those in messages.items():
            failures = _publish(self._publish, queue, [message for _, message in those])
            for (receipt, message), failure in zip(those, failures, strict=True):
                if failure is None:
                    self._confirmed[receipt].add((queue, message.id))
                else:
                    failed.setdefault(receipt, []).append(failure)
            if first := next(filter(None, failures), None):
                self._logger.warning("next jobs weren't published into queue %s: %s", queue, first)
        return failed


def _publish(publish: Publish, queue: str, messages: Sequence[Message]) -> list[JobsError | None]:
    """Publish messages; return of each why it isn't known to be in the queue, or None."""
    try:
        outcomes = publish(queue, messages)
    except JobsError as error:
        return [error] * len(messages)
    unknown = BackendUnavailable("the connection broke before the confirm")
    return [
        None
        if outcome.status is PublishStatus.ACCEPTED
        else unknown
        if outcome.status is PublishStatus.UNKNOWN
        else outcome.error or unknown
        for outcome in outcomes
    ]
