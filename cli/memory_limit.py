"""How much memory a process of a worker may hold, as an option says it."""

import re
from typing import NamedTuple

from ..application.worker.memory import available_bytes, tells_memory

_TEXT = re.compile(r"(\d+(?:\.\d+)?)([KMG%])", re.IGNORECASE)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class MemoryLimit(NamedTuple):
    """A size, or a share of what all processes of a worker may have together."""

    number: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "MemoryLimit":
        """Read ``500M``, ``2G`` or ``80%``.

        Raises:
            ValueError: it is none of these; or this system doesn't tell how much memory a process holds.
        """
        match = _TEXT.fullmatch(text)
        if match is None or not float(match[1]) or (match[2] == "%" and float(match[1]) > 100):
            raise ValueError("give a size such as 500M or 2G, or a share such as 80%")
        if not tells_memory():
            raise ValueError("this system doesn't tell how much memory a process holds, as Linux does")
        return cls(float(match[1]), match[2].upper())

    def bytes_of_each(self, processes: int) -> int:
        """Return how many bytes each of so many processes may hold."""
        if self.unit == "%":
            return int(available_bytes() * self.number / 100 / processes)
        return int(self.number * _UNITS[self.unit])
