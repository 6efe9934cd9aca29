"""Reading dead letters where the schema of their jobs isn't known."""

from typing import Any

from ...domain.envelope import open_envelope
from ...domain.errors import InvalidInput, ResultNotReady
from ...ports import DeadLetter
from ..api.orchestrator import Orchestrator

_PAGE = 500


class DeadLetterNotFound(ResultNotReady):
    """No dead job of the queue has this id."""


def find_dead_letter(orchestrator: Orchestrator, queue: str, job_id: str) -> DeadLetter:
    """Return the dead letter of a job.

    Raises:
        DeadLetterNotFound: there is none.
        QueueNotFound: the queue isn't declared.
    """
    offset = 0
    while page := orchestrator.dead_letters(queue, limit=_PAGE, offset=offset):
        for letter in page:
            if letter.id == job_id:
                return letter
        offset += len(page)
    raise DeadLetterNotFound(f"no dead job {job_id} in queue {queue!r}")


def payload_of(letter: DeadLetter) -> dict[str, Any] | str:
    """Return a letter's payload, or its body as text where that is no envelope."""
    try:
        return open_envelope(letter.body).payload
    except InvalidInput:
        return letter.body.decode(errors="backslashreplace")
