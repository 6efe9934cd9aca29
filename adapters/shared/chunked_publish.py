"""Publishing a batch in several requests, and answering for each message though one of them fails."""

from collections.abc import Callable, Iterable, Sequence

from ...domain.errors import JobsError
from ...ports import Message, PublishOutcome, PublishStatus
from .chunks import in_chunks

Publish = Callable[[list[Message]], list[PublishOutcome]]
"""Publishes the messages of one request."""


def publish_in_chunks(
    messages: Sequence[Message],
    publish: Publish,
    *,
    max_jobs: int,
    max_bytes: int,
    unsent: tuple[type[JobsError], ...],
) -> list[PublishOutcome]:
    """Publish messages in requests of bounded size, and answer for each (PUB-4).

    After a request that left messages open, or failed, no other is sent: the outcomes of its messages and of
    all that come behind have its error.

    Args:
        messages: The batch.
        publish: Called with each chunk.
        max_jobs: The most messages of one request.
        max_bytes: The most bytes of the bodies of one request; a message that is larger has one of its own.
        unsent: The errors that say that nothing of a request was carried out.

    Raises:
        JobsError: the first request failed.
    """
    outcomes: list[PublishOutcome] = []
    failure: JobsError | None = None
    status = PublishStatus.UNKNOWN
    for chunk in in_chunks(messages, max_jobs, max_bytes=max_bytes, size_of=_size):
        if failure is None:
            try:
                answers = publish(chunk)
            except JobsError as error:
                if not outcomes:
                    raise
                failure = error  # raised, it would leave the messages before without an answer
                if isinstance(error, unsent):
                    status = PublishStatus.REJECTED
            else:
                outcomes += answers
                failure = _find_outage(answers)
                continue
        outcomes += same_for_all(chunk, status, failure)
    return outcomes


def same_for_all(
    messages: Iterable[Message], status: PublishStatus, error: JobsError
) -> list[PublishOutcome]:
    """Return the same outcome for each message."""
    return [PublishOutcome(message.id, status, error) for message in messages]


def _size(message: Message) -> int:
    return len(message.body)


def _find_outage(outcomes: Iterable[PublishOutcome]) -> JobsError | None:
    """Return the error that left messages open; to send more is of no use then."""
    return next((each.error for each in outcomes if each.status is PublishStatus.UNKNOWN), None)
