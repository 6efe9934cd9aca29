"""Running a script over a connection."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from ..scripts import Script
from .commands import Argument, Command, Execute


def evalsha(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
    """The command that runs a script which the server knows."""
    return ("EVALSHA", script.sha, str(len(keys)), *keys, *arguments)


def evaluate(execute: Execute, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run a script, whether the server knows it or not, and return its answer.

    Raises:
        RedisError: the driver's: the script's error, or what ``execute`` raises.
    """
    (answer,) = execute(evalsha(script, keys, arguments))
    if isinstance(answer, NoScriptError):  # the server was restarted, or its scripts flushed
        (answer,) = execute(("EVAL", script.text, str(len(keys)), *keys, *arguments))
    if isinstance(answer, Exception):
        raise answer
    return answer
