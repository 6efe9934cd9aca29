"""Jobs that were taken and can't be delivered: a damaged job holds up no other."""

import re
from collections.abc import Iterator, Sequence

from ...domain.bounds import NAME
from ...domain.dead_reasons import DeadReason
from ...domain.printable import printable
from .transport import Argument, as_text

_NAME = re.compile(NAME.encode())
_LONGEST = 128
_NO_BODY = "it has no body"
_DAMAGED, _IN_FLIGHT = b"!", b"="
"""What ``settle_and_take.lua`` returns for such a job, in place of its attempt, number and crashes."""


def find_undeliverable(
    ids: Sequence[bytes], bodies: Sequence[bytes | None], infos: Sequence[bytes]
) -> dict[int, str]:
    """Find the jobs that can't be delivered among those that ``settle_and_take.lua`` returns.

    Returns:
        By the place of each, what is damaged; an empty text if the job is in flight already.
    """
    are_named = b"".join(ids).isalnum() and b"" not in ids and max(map(len, ids)) <= _LONGEST
    if are_named and None not in bodies and _DAMAGED not in infos and _IN_FLIGHT not in infos:
        return {}  # nearly always: these few calls look at all jobs at once
    odd: dict[int, str] = {}
    infos = infos or [b""] * len(ids)
    for place, (id_, body, info) in enumerate(zip(ids, bodies, infos, strict=True)):
        if info == _IN_FLIGHT:
            odd[place] = ""
        elif body is None:
            odd[place] = _NO_BODY
        elif info == _DAMAGED:
            odd[place] = "its record in the hash `state` is damaged"
        elif not _NAME.fullmatch(id_):
            odd[place] = "its id can't name a job, so it was given another"
    return odd


def burial(damaged: Sequence[tuple[bytes, str]], token: str) -> list[Argument]:
    """Return the arguments by which ``settle_and_take.lua`` makes damaged jobs dead letters.

    A job without a body is dropped: there is nothing to keep.
    """
    operations: list[Argument] = ["0"]
    for id_, damage in damaged:
        operations += (f"d{DeadReason.MALFORMED}", id_, token, damage, "0")
    return operations


def describe_buried(damaged: Sequence[tuple[bytes, str]], outcomes: bytes) -> Iterator[str]:
    """Describe what became of these jobs. Those that somebody else settled first are left out."""
    for (id_, damage), outcome in zip(damaged, outcomes.decode(), strict=True):
        if outcome == "1":
            end = "was dropped" if damage == _NO_BODY else f"is dead: {DeadReason.MALFORMED}"
            yield f"job {printable(as_text(id_))} {end}: {damage}"
