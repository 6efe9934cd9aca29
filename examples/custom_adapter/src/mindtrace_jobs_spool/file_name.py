"""The name of a job's file. It holds all that changes, so that one rename changes it all at once."""

import time
from collections.abc import Iterable, Iterator
from math import ceil
from typing import NamedTuple, Self

_SEPARATOR = ","  # which stands in no id


class FileName(NamedTuple):
    """The parts of a file's name. Times are nanoseconds since 1970, by the machine's clock."""

    when: int
    """When a delayed job is due, a lease ends, or a job died; 0 for a job that is ready."""
    place: int
    """Its place in the order of arrival, which it keeps while it is leased."""
    token: str
    """What makes the name unique; the receipt, once the job was delivered."""
    attempt: int
    number: int
    """How often it was delivered."""
    crashes: int
    id: str

    def __str__(self) -> str:
        # Padded, so that names sort by `when` and then by `place`. With an id of 128 characters, the
        # longest there is, it stays below the 255 bytes that a name may have.
        when, place, *rest = self
        return _SEPARATOR.join([f"{when:020}", f"{place:020}", *map(str, rest)])

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a name."""
        when, place, token, attempt, number, crashes, id_ = name.split(_SEPARATOR)
        return cls(int(when), int(place), token, int(attempt), int(number), int(crashes), id_)


def parse_all(names: Iterable[str]) -> Iterator[FileName]:
    """Parse names one after the other, and skip those that aren't ours."""
    return (FileName.parse(name) for name in names if name.count(_SEPARATOR) == len(FileName._fields) - 1)


def time_ns(in_s: float = 0.0) -> int:
    """Return the time in ``in_s`` seconds."""
    return time.time_ns() + ceil(in_s * 1e9)
