"""Text from strangers, made safe to show: no terminal obeys it, and none of it passes for a line of a log.

What is stored stays as it was: text is escaped where it leaves for a terminal or a log.
"""

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction of writing
    "\u2028\u2029\ufff9-\ufffb\ufeff"  # ends of lines, annotations, a byte order mark
    "\ud800-\udfff]"  # halves of characters, which can't be written at all
)


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with ``\x1b`` for an escape, ``\n`` for a newline, and so on."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Return ``text`` with each line indented and printable, so that none passes for a record of a log."""
    return "\n".join(f"    {printable(line)}" for line in text.split("\n"))


def printable_json(document: str) -> str:
    r"""Return a JSON document, written on one line, with ``\u001b`` and the like for what isn't printable."""
    if document.isprintable():
        return document
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
