"""Jobs that were taken and can't be delivered: what is damaged costs itself alone."""

import re
from collections.abc import Sequence

from ...domain.bounds import NAME

_NAME = re.compile(NAME.encode())
_LONGEST = 128
NO_BODY = "it has no body"
_DAMAGED, _IN_FLIGHT = b"!", b"="
"""What ``settle_and_take.lua`` tells of a job in place of its attempt, number and crashes."""


def find_undeliverable(
    ids: Sequence[bytes], bodies: Sequence[bytes | None], infos: Sequence[bytes]
) -> dict[int, str]:
    """Find what can't be delivered of what ``settle_and_take.lua`` returns.

    Returns:
        Its places, and what is damaged at each; empty where the job is in flight already.
    """
    are_named = b"".join(ids).isalnum() and b"" not in ids and max(map(len, ids)) <= _LONGEST
    if are_named and None not in bodies and _DAMAGED not in infos and _IN_FLIGHT not in infos:
        return {}  # as nearly always: looked at all in one go
    odd: dict[int, str] = {}
    infos = infos or [b""] * len(ids)
    for place, (id_, body, info) in enumerate(zip(ids, bodies, infos, strict=True)):
        if info == _IN_FLIGHT:
            odd[place] = ""
        elif body is None:
            odd[place] = NO_BODY
        elif info == _DAMAGED:
            odd[place] = "its record in the hash `state` is damaged"
        elif not _NAME.fullmatch(id_):
            odd[place] = "its id can't name a job, so it was given another"
    return odd
