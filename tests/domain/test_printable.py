"""Text that a stranger wrote can be shown: it stays on one line, and no terminal obeys it."""

import json
import unicodedata

import pytest

from mindtrace.jobs.domain.printable import printable, printable_json, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 漢字, 👩‍👩‍👧", "plain, ünïcode, 漢字, 👩‍👩‍👧"),
        ("\x1b]0;owned\x07\x1b[31mred", r"\x1b]0;owned\x07\x1b[31mred"),
        ("first\nsecond\r\nthird\tend", r"first\nsecond\r\nthird\tend"),
        ("\x9b31m and \x7f", r"\x9b31m and \x7f"),
        ("user\u202etxt.exe \u2066x\u2069", r"user\u202etxt.exe \u2066x\u2069"),
        ("line\u2028paragraph\u2029\x85\x0b\x0c", r"line\u2028paragraph\u2029\x85\x0b\x0c"),
        ("half \udcff", r"half \udcff"),
        ("", ""),
    ],
)
def test_what_a_terminal_or_a_log_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_character_is_left_nor_anything_that_ends_a_line_or_turns_the_writing() -> None:
    everything = printable("".join(map(chr, range(0x11000))))

    assert len(everything.splitlines()) == 1
    assert {"Cc", "Cs", "Zl", "Zp"}.isdisjoint(map(unicodedata.category, everything))
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert turning.isdisjoint(map(unicodedata.bidirectional, everything))
    everything.encode()


def test_lines_stay_lines_but_none_begins_where_a_record_does() -> None:
    assert printable_lines("a\n12:00 INFO forged\r\x1b[2K") == "    a\n    12:00 INFO forged\\r\\x1b[2K"


def test_a_document_stays_the_same_document() -> None:
    value = ["\x1b[31m\n", "\x9b31m\x7f", "a\u202eb\u2028", "half \udcff", "ünïcode"]
    document = printable_json(json.dumps(value, ensure_ascii=False))

    assert json.loads(document) == value
    assert document == printable(document)
    assert "ünïcode" in document
