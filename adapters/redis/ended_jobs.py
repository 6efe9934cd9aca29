"""Learning which jobs have ended, by the wake-ups for those who wait for results."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from ...ports import EndedJobs
from .requests import CHUNK_BYTES, CHUNK_JOBS
from .scripts import Script
from .transport import Argument, RetryingConnection, as_text

Run = Callable[[Script, Sequence[Argument]], Any]
"""Runs a script on the keys of one queue, and makes its errors those of the port."""

_MARGIN_MS = 5000
"""Milliseconds that are added to the announced length of a wait, for what is done between two waits."""


class RedisEndedJobs(EndedJobs):
    """Reads the wake-ups, each of which names the jobs that have ended.

    Args:
        redis: The connection to the server.
        run: Runs a script.
        script: Says what has ended since a wake-up.
        keys: The script's keys.
        stream: The key of the wake-ups.
    """

    def __init__(
        self, redis: RetryingConnection, run: Run, script: Script, keys: Sequence[str], stream: str
    ) -> None:
        super().__init__()
        self._redis = redis
        self._run = run
        self._script = script
        self._keys = keys
        self._stream = stream
        self._note(run(script, ["", "", str(_MARGIN_MS)]))

    def wait(self, timeout_s: float) -> Collection[str] | None:
        arguments: list[Argument] = [self._last, self._since, str(round(timeout_s * 1000) + _MARGIN_MS)]
        call = (self._script, self._keys, arguments)
        _, answer = self._redis.wait([(self._stream, self._last)], timeout_s, call)
        ended = self._note(answer or self._run(self._script, arguments))
        return None if ended is None else [id_ for id_ in as_text(ended).split(",") if id_]

    def _note(self, answer: Sequence[bytes]) -> bytes | None:
        newest, ended, since = answer
        self._last = as_text(newest)
        self._since = as_text(since)
        return ended

    def close(self) -> None:
        """Leave the wake-ups to expire."""


def look_up(run: Run, script: Script, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Look ids up, in requests and answers of bounded size; yield those of which something is known."""
    done = 0
    while done < len(ids):
        answers = run(script, [str(CHUNK_BYTES), *ids[done : done + CHUNK_JOBS]])
        for id_, answer in zip(ids[done:], answers, strict=False):
            if answer is not None:
                yield id_, answer
        done += len(answers)
