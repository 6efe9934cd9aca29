"""What a check does to one call of a client: by a hook of the harness, which may have none."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TypeVar

from ..domain.errors import JobsError
from ..ports import OrchestratorBackend
from .check_context import CheckContext

AnswerT = TypeVar("AnswerT")


class Disturbance(StrEnum):
    """What happens to a call; each value is the name of the harness's hook."""

    LOST_REQUEST = "cut_request"
    LOST_REPLY = "cut_reply"
    CUT_OFF = "cut_off"
    REFUSAL = "refuse"

    @property
    def words(self) -> str:
        """What happens, for the message of a failure."""
        return _WORDS[self]


_WORDS = {
    Disturbance.LOST_REQUEST: "whose request was lost",
    Disturbance.LOST_REPLY: "whose reply was lost",
    Disturbance.CUT_OFF: "that couldn't reach the broker",
    Disturbance.REFUSAL: "that the broker refused",
}


def call_disturbed(
    context: CheckContext, backend: OrchestratorBackend, how: Disturbance, call: Callable[[], AnswerT]
) -> AnswerT | JobsError | None:
    """Make a call while ``backend`` is disturbed, and return what it answered or raised.

    Returns:
        None if the harness can't disturb it so: then the call isn't made.
    """
    disturbed = _begin(context, backend, how)
    if disturbed is None:
        context.missing_hooks.add(how.value)
        return None
    with disturbed:
        try:
            return context.call_in_time(call)
        except JobsError as error:
            return error


def _begin(
    context: CheckContext, backend: OrchestratorBackend, how: Disturbance
) -> AbstractContextManager[object] | None:
    harness = context.harness
    match how:
        case Disturbance.LOST_REQUEST:
            return nullcontext() if harness.cut_request(backend) else None
        case Disturbance.LOST_REPLY:
            return nullcontext() if harness.cut_reply(backend) else None
        case Disturbance.CUT_OFF:
            return harness.cut_off(backend)
        case Disturbance.REFUSAL:
            return harness.refuse(backend)
