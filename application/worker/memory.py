"""Memory: what this process holds, and what it may have. Linux tells both in files."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


def tells_memory() -> bool:
    """Whether this system says how much memory a process holds."""
    return _STATM.exists()


@cache
def _opened() -> int:
    """Open the file for as long as this process lives: that takes several times as long as to read it."""
    return os.open(_STATM, os.O_RDONLY)


def resident_bytes() -> int:
    """Return how many bytes of memory this process holds, without what is swapped out."""
    return int(os.pread(_opened(), 128, 0).split()[1]) * _PAGE


def available_bytes(root: Path = Path("/")) -> int:
    """Return how many bytes all processes of this container may hold, or of this machine if it limits none.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("ascii").splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits_of(mounts, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_of(mounts / "memory", path, "memory.limit_in_bytes")


def _limits_of(mount: Path, path: str, name: str) -> Iterator[int]:
    group = mount / path.lstrip("/")  # within a container only the mount itself may be there
    for folder in (group, *group.parents):
        if not folder.is_relative_to(mount):
            return
        try:
            text = (folder / name).read_text("ascii").strip()
        except OSError:
            continue
        if text != "max":
            yield int(text)
