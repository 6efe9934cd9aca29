"""Dead letters: listing, redriving and discarding them."""

from collections.abc import Sequence
from typing import Literal

from ...domain.dead_reasons import DeadReason
from ...ports import DeadLetter
from ..shared.chunks import in_chunks
from ..shared.records import parse_history, parse_json, parse_moment
from .requests import CHUNK_BYTES, CHUNK_JOBS, RemoteQueue, operation
from .scripts import COUNTS, DEAD_LETTERS, REDRIVE_OR_DISCARD
from .transport import as_text


def list_dead_letters(queue: RemoteQueue, *, limit: int, offset: int) -> list[DeadLetter]:
    """List dead letters, oldest first, page by page: each begins after the death that ended the last."""
    found, last = list[DeadLetter](), b""
    while True:
        size = min(CHUNK_JOBS, limit - len(found))
        last, *columns = queue.run(DEAD_LETTERS, [str(offset), str(size), str(CHUNK_BYTES), last])
        found += [_read_dead_letter(*row) for row in zip(*columns, strict=True)]
        if not last or len(found) >= limit:
            return found


def redrive_or_discard(
    queue: RemoteQueue, how: Literal["redrive", "discard"], ids: Sequence[str] | None
) -> int:
    """Redrive or discard dead letters, of the given ids or all, and return how many they were."""
    count = 0
    with operation(queue, REDRIVE_OR_DISCARD) as run:
        if ids is not None:
            if not ids:
                queue.run(COUNTS)  # raises QueueNotFound
            for chunk in in_chunks(dict.fromkeys(ids), CHUNK_JOBS):
                taken, _ = run([how, "", str(CHUNK_JOBS), *chunk]).split()
                count += int(taken)
            return count
        up_to = ""  # then the last death of when it began: those that come meanwhile stay
        while True:
            taken, last = run([how, up_to, str(CHUNK_JOBS), "*"]).split()
            up_to = last.decode()
            count += int(taken)
            if int(taken) < CHUNK_JOBS:
                return count


def read_error(letter: bytes | None) -> str:
    """Return the last error of a dead job."""
    return _read_death(letter)[1]


def _read_dead_letter(
    id_: bytes, body: bytes | None, info: bytes, letter: bytes | None, history: bytes | None
) -> DeadLetter:
    """Read a dead letter, as ``dead_letters.lua`` returns it."""
    attempt, _, crashes = map(int, info.split(b":"))
    reason, error, died_ms = _read_death(letter)
    return DeadLetter(
        id=as_text(id_),
        body=body or b"",
        reason=reason,
        error=error,
        attempt=attempt,
        crashes=crashes,
        died_at=parse_moment(died_ms / 1000),
        history=parse_history(history),
    )


def _read_death(letter: bytes | None) -> tuple[str, str, float]:
    """Reason, error and moment (ms) of a death."""
    match parse_json(letter):
        case [str(reason), str(error), int() | float() as died_ms]:
            return reason, error, died_ms
        case _:
            return DeadReason.MALFORMED, "its dead letter is damaged: how it died isn't known", 0
