"""What a process holds, sampled while it runs, and whether that grows."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self


class Vitals(NamedTuple):
    """What one process holds at one moment; read from /proc, so on Linux only."""

    rss_mib: float
    threads: float
    descriptors: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Take a sample."""
        process = Path(f"/proc/{pid}")
        status = dict(
            line.split(":", 1) for line in (process / "status").read_text("ascii", "replace").splitlines()
        )
        return cls(
            int(status["VmRSS"].split()[0]) / 1024,
            int(status["Threads"]),
            len(list((process / "fd").iterdir())),
        )


ALLOWED = Vitals(rss_mib=4.0, threads=1, descriptors=4)
"""By how much the last quarter of a run may exceed the second: what is warm by then should hold no more."""


class Course(NamedTuple):
    """How what a process holds went over a run."""

    second: Vitals
    """The medians of the second quarter of the samples."""
    last: Vitals
    """The medians of the last quarter."""

    @classmethod
    def of(cls, samples: Sequence[Vitals]) -> Self:
        """Sum up samples taken at even intervals.

        Raises:
            ValueError: there are fewer than four.
        """
        quarter = len(samples) // 4
        if not quarter:
            raise ValueError(f"{len(samples)} samples tell of no course")
        return cls(_medians(samples[quarter : 2 * quarter]), _medians(samples[-quarter:]))

    @property
    def grown(self) -> list[str]:
        """What grew by more than is allowed."""
        return [
            name
            for name, before, after, allowed in zip(
                Vitals._fields, self.second, self.last, ALLOWED, strict=True
            )
            if after > before + allowed
        ]


def _medians(samples: Sequence[Vitals]) -> Vitals:
    return Vitals(*(median(values) for values in zip(*samples, strict=True)))
