"""The Lua scripts, put together from their parts.

A script's file begins with a header: what it does, its keys, arguments, answer, errors and cost. The names
behind ``KEYS`` are keys of :mod:`.keys`, and local variables of the script. A line ``--- @include sweep``
stands for the text of ``lua/parts/sweep.lua``. Of ``lua/functions.lua``, a script gets what it uses.
``{{remembered_ends}}`` stands for a constant of Python's.
"""

import re
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files

from ..shared.records import REMEMBERED_ENDS

_FOLDER = files(__package__) / "lua"
_FUNCTIONS = (_FOLDER / "functions.lua").read_text("utf-8").split("\n\n")
_INCLUDE = re.compile(r"^ *--- @include (\w+)\n", re.MULTILINE)
_KEYS = re.compile(r"^-- KEYS +(\w+(?: \w+)*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text, the digest by which the server knows it, and the names of its keys."""

    text: str
    sha: str
    keys: tuple[str, ...]
    writes: bool
    """Whether it may change anything."""


def compose(source: str) -> Script:
    """Put a script together: its own text is ``source``, which begins with ``#!lua``."""
    shebang, _, own = source.partition("\n")
    while _INCLUDE.search(own):
        own = _INCLUDE.sub(lambda line: (_FOLDER / "parts" / f"{line[1]}.lua").read_text("utf-8"), own)
    own = own.replace("{{remembered_ends}}", str(REMEMBERED_ENDS))
    (names,) = _KEYS.findall(own)
    keys = tuple(names.split())
    text = f"{shebang}\n{_used_functions(own)}local {', '.join(keys)} = unpack(KEYS)\n{own}"
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(text, digest, keys, writes="no-writes" not in shebang)


def _used_functions(own: str) -> str:
    """The functions that a script uses, and no others: each is made anew whenever the script runs."""
    text = ""
    for part in reversed(_FUNCTIONS):  # a function uses only those that stand before it
        defined = re.findall(r"^local (?:function )?(\w+)", part, re.MULTILINE)
        if any(re.search(rf"\b{name}\b", text + own) for name in defined):
            text = f"{part}\n\n{text}"
    return text


def _load(name: str) -> Script:
    return compose((_FOLDER / f"{name}.lua").read_text("utf-8"))


PUBLISH = _load("publish")
FIND_ANSWER = _load("find_answer")
SETTLE_AND_TAKE = _load("settle_and_take")
SETTLE_PUBLISH_AND_TAKE = _load("settle_publish_and_take")
EXTEND = _load("extend")
REPORT_PROGRESS = _load("report_progress")
DECLARE = _load("declare")
REDECLARE = _load("redeclare")
COUNTS = _load("counts")
FIRST_READY = _load("first_ready")
PURGE = _load("purge")
DELETE = _load("delete")
DEAD_LETTERS = _load("dead_letters")
REDRIVE_OR_DISCARD = _load("redrive_or_discard")
GET_RESULT = _load("get_result")
GET_RESULTS = _load("get_results")
ENDED_JOBS = _load("ended_jobs")
STATUS = _load("status")
CANCEL = _load("cancel")
DENIED_COMMANDS = _load("denied_commands")
PROTECT_LEASES = _load("protect_leases")
INSPECT = _load("inspect")
RESULT_STORE_PUT = _load("result_store_put")
RESULT_STORE_GET = _load("result_store_get")
RESULT_STORE_GET_MANY = _load("result_store_get_many")
RESULT_STORE_ENDED = _load("result_store_ended")
RESULT_STORE_FORGET = _load("result_store_forget")
GET_RECORDS = _load("get_records")
SCAN_RECORDS = _load("scan_records")
PUT_RECORD = _load("put_record")
DELETE_RECORD = _load("delete_record")
PUBLISH_GUARDED = _load("publish_guarded")
TAKE_PLACES = _load("take_places")
COUNT_PLACES = _load("count_places")
RESERVE = _load("reserve_turns")
