"""CPU time and memory of a process and those it started, from /proc."""

from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text("ascii").split())
        except OSError:  # it has ended
            continue
    return found


def cpu_s(pid: int) -> float:
    """Seconds of a processor that a tree has used so far."""
    total = 0
    for one in tree(pid):
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                total += int((task / "schedstat").read_text("ascii").split()[0])
        except OSError:
            continue
    return total / 1e9


def memory_mib(pid: int) -> float:
    """Memory of a process tree; what its processes share is counted once."""
    total = 0
    for one in tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text("ascii")
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024
