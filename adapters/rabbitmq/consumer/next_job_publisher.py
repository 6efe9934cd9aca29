"""Publishes the next jobs of acks, before the acks are sent (THEN-1)."""

from collections.abc import Callable, Sequence
from logging import Logger
from typing import NamedTuple

from ....domain.errors import BackendUnavailable, Closed, JobsError
from ....ports import Ack, Message, PublishOutcome, PublishStatus
from .settler import Placed

Publish = Callable[[str, Sequence[Message]], list[PublishOutcome]]
"""Publishes messages into a queue, given by its name, as the port's ``publish``."""


class Published(NamedTuple):
    """What became of the next jobs of some acks: these may be sent, or not."""

    confirmed: list[Placed]
    """All of their next jobs are confirmed."""
    refused: list[Placed]
    """One of their next jobs can't be published, and so they aren't to be acked (THEN-3)."""
    open: list[Placed]
    """It isn't known of each next job whether it was published: publish them again with the next call."""


def publish_next(publish: Publish, chained: Sequence[tuple[Placed, Ack]], logger: Logger) -> Published:
    """Publish the next jobs of acks, queue by queue, and wait for the broker to confirm them."""
    messages: dict[str, list[tuple[int, Message]]] = {}
    for number, (_, ack) in enumerate(chained):
        for queue, message in ack.then:
            messages.setdefault(queue, []).append((number, message))
    refused, is_open = set[int](), set[int]()
    for queue, numbered in messages.items():
        failures = _publish(publish, queue, [message for _, message in numbered])
        for (number, _), failure in zip(numbered, failures, strict=True):
            if isinstance(failure, BackendUnavailable | Closed):
                is_open.add(number)
            elif failure is not None:
                refused.add(number)
        if failure := next(filter(None, failures), None):
            logger.warning("next jobs weren't published into queue %s: %s", queue, failure)
    published = Published([], [], [])
    for number, (placed, _) in enumerate(chained):
        if number in is_open:
            published.open.append(placed)
        else:
            (published.refused if number in refused else published.confirmed).append(placed)
    return published


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
