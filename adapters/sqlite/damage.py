"""Damaged rows: each costs only its own job, and wrong counts are counted again."""

import re
from collections.abc import Sequence

from ...domain.bounds import NAME
from ...domain.dead_reasons import DeadReason
from ...domain.printable import printable
from .transaction import NEVER_US, Transaction

_NAME = re.compile(NAME.encode())
_LONGEST = 128
_STAND_IN = re.compile("malformed-([0-9]{1,18})")
_SOME = 1000
"""The most rows that one transaction sets aside."""
_LOST = f"""
    SELECT seq, id FROM job WHERE queue = ? AND seq NOT IN (
        SELECT seq FROM ready WHERE queue = ? UNION ALL SELECT seq FROM delay WHERE queue = ?
        UNION ALL SELECT seq FROM lease WHERE queue = ? UNION ALL SELECT seq FROM dead WHERE queue = ?)
    LIMIT {_SOME}"""  # noqa: S608


def find_damaged(
    seqs: Sequence[int], ids: Sequence[bytes | None], bodies: Sequence[bytes | None], attempts: Sequence[int]
) -> dict[int, str]:
    """Find which jobs can't be delivered, of some that stand in the queue; one without a row has no id.

    Returns:
        Their places, and what is damaged at each; empty where the same job comes before.
    """
    if None not in bodies and None not in ids and len(set(seqs)) == len(seqs):
        known: Sequence[bytes] = ids  # type: ignore[assignment]
        are_named = b"".join(known).isalnum() and b"" not in known and max(map(len, known)) <= _LONGEST
        if are_named and min(attempts) > 0:
            return {}  # as nearly always: looked at all in one go
    odd: dict[int, str] = {}
    seen: set[int] = set()
    for place, (seq, id_, body, attempt) in enumerate(zip(seqs, ids, bodies, attempts, strict=True)):
        if seq in seen:
            odd[place] = ""
        elif id_ is None or body is None:
            odd[place] = "it has no body"
        elif not is_id(id_):
            odd[place] = "its id can't name a job"
        elif attempt <= 0:
            odd[place] = "its row is damaged"
        seen.add(seq)
    return odd


def is_id(raw: bytes) -> bool:
    """Tell whether ``raw`` can name a job."""
    return _NAME.fullmatch(raw) is not None


def substitute_id(death: int) -> str:
    """Return what commands call a dead job whose id can't name it."""
    return f"malformed-{death}"


def death_of(name: str) -> int | None:
    """Return the number of the death that ``name`` is the stand-in of, if it is one."""
    found = _STAND_IN.fullmatch(name)
    return int(found[1]) if found else None


def set_aside(tx: Transaction, seq: object, id_: bytes | None, damage: str) -> None:
    """Bury a job that can't be delivered; where it has no row, there is nothing to make_dead."""
    if id_ is None or not isinstance(seq, int):
        tx.log(f"an entry for job number {seq!r:.20} was dropped: {damage}")
        return
    death = tx.make_dead(seq, DeadReason.MALFORMED, damage)
    name = id_.decode(errors="backslashreplace")
    called = name if is_id(id_) else f"{printable(name)}, which commands call {substitute_id(death)},"
    tx.log(f"job {called} is dead: malformed: {damage}")


def repair(tx: Transaction) -> bool:
    """Bury jobs that nothing would ever deliver, drop entries that stand for none, and count anew.

    Returns:
        Whether there may be more such jobs: call it again.
    """
    for table in ("ready", "delay", "lease"):
        tx.db.execute(
            f"DELETE FROM {table} WHERE queue = ? AND typeof(seq) <> 'integer'",  # noqa: S608
            (tx.key,),
        )
    for table, moment in (("delay", "due"), ("lease", "ends")):
        # Text and blobs are sorted behind all numbers, so this finds them as well.
        tx.db.execute(
            f"DELETE FROM {table} WHERE queue = ? AND {moment} >= ?",  # noqa: S608
            (tx.key, tx.now + NEVER_US),
        )
    lost = tx.db.execute(_LOST, (tx.key,) * 5).fetchall()
    for seq, id_ in lost:
        set_aside(tx, seq, id_, "it stood nowhere in the queue, or where it would never have been delivered")
    tx.recount()
    return len(lost) >= _SOME
