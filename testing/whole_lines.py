"""Read a file to which other processes append lines."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """Return the lines that are written to the end.

    One write makes a line, but not in one step: it goes from one page of memory to the next, and a reader may
    come between the two. Then the last line ends too soon.
    """
    lines = path.read_text("utf-8").split("\n")
    return lines[:-1]
