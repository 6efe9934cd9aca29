"""A batch in several requests: each message has its answer, whichever request failed."""

from collections.abc import Callable, Sequence

import pytest

from mindtrace.jobs.adapters.shared.chunked_publish import publish_in_chunks
from mindtrace.jobs.domain.errors import BackendUnavailable, JobsError, QueueNotFound
from mindtrace.jobs.ports import Message, PublishOutcome, PublishStatus

ACCEPTED, REJECTED, UNKNOWN = PublishStatus.ACCEPTED, PublishStatus.REJECTED, PublishStatus.UNKNOWN
AWAY = BackendUnavailable("away")

Publish = Callable[[list[Message]], list[PublishOutcome]]


def statuses_of(answers: Sequence[PublishStatus | JobsError]) -> list[PublishStatus]:
    """Publish three messages in requests of one each, which are answered in turn; return the outcomes."""
    left = iter(answers)

    def publish(messages: list[Message]) -> list[PublishOutcome]:
        answer = next(left)
        if isinstance(answer, JobsError):
            raise answer
        return [PublishOutcome(message.id, answer, AWAY) for message in messages]

    messages = [Message(str(number), b"{}", 0, 0.0) for number in range(3)]
    outcomes = publish_in_chunks(messages, publish, max_jobs=1, max_bytes=100, unsent=(QueueNotFound,))
    assert [outcome.id for outcome in outcomes] == ["0", "1", "2"]
    assert not list(left), "a request was left out"
    return [outcome.status for outcome in outcomes]


def test_nothing_is_sent_after_a_request_that_left_messages_open() -> None:
    assert statuses_of([ACCEPTED, UNKNOWN]) == [ACCEPTED, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(("error", "status"), [(QueueNotFound("gone"), REJECTED), (AWAY, UNKNOWN)])
def test_a_failure_is_told_by_message_once_others_were_answered(
    error: JobsError, status: PublishStatus
) -> None:
    assert statuses_of([ACCEPTED, error]) == [ACCEPTED, status, status]


def test_a_failure_of_the_first_request_is_raised() -> None:
    with pytest.raises(BackendUnavailable):
        statuses_of([AWAY])
