"""The memory, threads and file descriptors of a process, sampled while it runs, and whether they grow."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self


class ResourceUsage(NamedTuple):
    """The resources of one process at one moment, read from /proc (Linux only)."""

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


ALLOWED = ResourceUsage(rss_mib=4.0, threads=1, descriptors=4)
"""By how much the last quarter of a run may exceed the second, by which time the process is warm."""


class UsageTrend(NamedTuple):
    """How the resources of a process changed over a run."""

    second: ResourceUsage
    """The medians of the second quarter of the samples."""
    last: ResourceUsage
    """The medians of the last quarter."""

    @classmethod
    def of(cls, samples: Sequence[ResourceUsage]) -> Self:
        """Summarise samples taken at even intervals.

        Raises:
            ValueError: there are fewer than four.
        """
        quarter = len(samples) // 4
        if not quarter:
            raise ValueError(f"{len(samples)} samples tell of no trend")
        return cls(_medians(samples[quarter : 2 * quarter]), _medians(samples[-quarter:]))

    @property
    def grown(self) -> list[str]:
        """What grew by more than is allowed."""
        return [
            name
            for name, before, after, allowed in zip(
                ResourceUsage._fields, self.second, self.last, ALLOWED, strict=True
            )
            if after > before + allowed
        ]


def _medians(samples: Sequence[ResourceUsage]) -> ResourceUsage:
    return ResourceUsage(*(median(values) for values in zip(*samples, strict=True)))
