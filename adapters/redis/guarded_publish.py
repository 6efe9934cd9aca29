"""Publishing a job and writing a record of the coordination store in one script."""

from ...ports import Guard, Message, PublishOutcome, PublishStatus
from .coordination import SharedCoordinationStore, duration_us
from .errors import RefusedByServer, ServerUnreachable, why_refused
from .requests import RemoteQueue
from .scripts import PUBLISH_GUARDED
from .transport import Argument

_STATUS_OF = {b"a": PublishStatus.ACCEPTED, b"d": PublishStatus.DUPLICATE}
"""What the script answers where the record had the expected version."""


def publish_guarded(
    queue: RemoteQueue, store: SharedCoordinationStore, message: Message, guard: Guard
) -> PublishOutcome | None:
    """Publish, and write the guard's record, if that has the expected version (CRD-4); None if not.

    Raises:
        BackendUnavailable: the server couldn't be reached in time, and nothing was sent.
        BackendError: as of :meth:`RemoteQueue.run`.
    """
    key, expected, value, ttl_s = guard
    plan = f"{message.priority}:{round(message.delay_s * 1000)}"
    arguments: list[Argument] = [message.id, plan, message.body]
    arguments += (key, str(expected), value, duration_us(ttl_s))
    try:
        answer: bytes = store.senders.run(
            PUBLISH_GUARDED, store.keys.of(PUBLISH_GUARDED, queue.keys), arguments
        )
    except ServerUnreachable as out:
        error = queue.redis.unavailable(out)
        if not out.may_have_run:
            raise error from out.error
        return PublishOutcome(message.id, PublishStatus.UNKNOWN, error)
    except RefusedByServer as refusal:
        queue.check(refusal)
        if refusal.may_have_run:
            return PublishOutcome(message.id, PublishStatus.UNKNOWN, refusal)
        return PublishOutcome(message.id, PublishStatus.REJECTED, why_refused(refusal))
    return PublishOutcome(message.id, _STATUS_OF[answer]) if answer else None
