"""The blocks of code in the documentation, as they are run and as type checkers read them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if "```" in page.read_text("utf-8")),
]
SESSION = "first_worker.md"
"""Its recorded session is run on each backend, and its output compared, by ``e2e/test_session.py``."""

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?^ *```(?P<kind>\w+)\n(?P<text>.*?)^ *```$", re.M | re.S
)
_FILE = re.compile(r"# ([\w/.-]+\.(?:py|toml))\n")


class Block(NamedTuple):
    kind: str
    line: int
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that are run, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        kind, body = match["kind"], match["text"]
        if match["reason"] or (kind == "console" and page.name == SESSION):
            continue
        if (name := _FILE.match(body)) is not None and kind in ("python", "toml"):
            kind, body = "file", f"{name[1]}\n{body}"
        if kind in ("python", "console", "text", "file"):
            found.append(Block(kind, text.count("\n", 0, match.start("text")) + 1, body))
    return found
