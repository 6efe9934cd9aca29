"""The Lua scripts, as the server is to run them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from .connections import Argument, Ask, Command


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text, and the digest by which the server knows it."""

    text: str
    sha: str


def _load(name: str) -> Script:
    folder = files(__package__) / "lua"
    shebang, _, own = (folder / f"{name}.lua").read_text("utf-8").partition("\n")
    text = f"{shebang}\n{_used((folder / 'common.lua').read_text('utf-8'), own)}{own}"
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _used(common: str, own: str) -> str:
    """The parts of ``common`` that a script uses: all that it begins with is made anew each time it runs."""
    text = ""
    for part in reversed(common.split("\n\n")):  # a part uses only what stands before it
        defined = re.findall(r"^local (?:function )?(\w+)", part, re.MULTILINE)
        if any(re.search(rf"\b{name}\b", text + own) for name in defined):
            text = f"{part}\n\n{text}"
    return text


def evalsha(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
    """The command that runs a script which the server knows."""
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)


def evaluate(ask: Ask, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run a script, whether the server knows it or not, and return its answer.

    Raises:
        RedisError: the driver's: the script's error, or what ``ask`` raises.
    """
    (answer,) = ask(evalsha(script, keys, arguments))
    if isinstance(answer, NoScriptError):  # the server was restarted, or its scripts flushed
        (answer,) = ask(("EVAL", script.text, len(keys), *keys, *arguments))
    if isinstance(answer, Exception):
        raise answer
    return answer


PUBLISH = _load("publish")
EXCHANGE = _load("exchange")
EXTEND = _load("extend")
REPORT = _load("report")
DECLARE = _load("declare")
COUNTS = _load("counts")
PURGE = _load("purge")
DELETE = _load("delete")
LETTERS = _load("letters")
UNBURY = _load("unbury")
RESULT = _load("result")
DENIED = _load("denied")
MARK = _load("mark")
RESUME = _load("resume")
INSPECT = _load("inspect")
PUT_RESULTS = _load("put_results")
GET_RESULT = _load("get_result")
FORGET_RESULTS = _load("forget_results")
