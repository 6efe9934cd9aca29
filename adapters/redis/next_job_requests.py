"""Requests whose acks publish the next jobs, by a script of their own."""

from dataclasses import replace

from .errors import RefusedByServer, is_out_of_memory
from .keys import QueueKeys
from .requests import CHUNK_BYTES, Request
from .scripts import SETTLE_AND_TAKE, SETTLE_PUBLISH_AND_TAKE
from .settlements import SettlementBatch

_MOST = 2000
"""The most next jobs of one request, unless one ack has more."""
_OWN_ARGUMENTS = 5
"""How many arguments of the script come before the settlements."""


def add_next_jobs(request: Request[SettlementBatch], keys: QueueKeys) -> bool:
    """Have a request publish the next jobs of its acks as well, unless they are too many for one.

    Args:
        request: The request, as it is without them.
        keys: The keys of its queue.
    """
    batch = request.content
    size = sum(len(step.message.body) for _, step in batch.next_jobs)
    if len(batch.outcomes) > 1 and (len(batch.next_jobs) > _MOST or size > CHUNK_BYTES):
        return False
    _, own_keys, arguments = request.call
    next_keys = [key for name in batch.next_queues() for key in QueueKeys(keys.namespace, name).next]
    request.call = (
        SETTLE_PUBLISH_AND_TAKE,
        [*own_keys, *next_keys],
        [*arguments, *batch.next_arguments()],
    )
    return True


def looking_only(request: Request[SettlementBatch]) -> Request[SettlementBatch]:
    """Return what asks for the answer of such a request if it was carried out, and has it never be otherwise.

    That is a request of the same number that settles and takes nothing, and runs when memory is short. It is
    answered without outcomes where there was no other.
    """
    _, keys, arguments = request.call
    own_keys = keys[: len(SETTLE_AND_TAKE.keys)]
    return replace(request, call=(SETTLE_AND_TAKE, own_keys, [*arguments[: _OWN_ARGUMENTS - 1], "0", "0"]))


def find_refused(error: Exception, batch: SettlementBatch) -> set[str]:
    """Return the receipts of acks that can't publish their next jobs, by the server's refusal (THEN-3)."""
    if not (batch.next_jobs and isinstance(error, RefusedByServer)):
        return set()
    queues = batch.next_queues()
    if is_out_of_memory(error):
        return batch.publishes_into(queues)
    word, _, numbers = str(error).partition(" ")
    if word != "NONEXT":
        return set()
    return batch.publishes_into({queues[int(number) - 1] for number in numbers.split(",")})
