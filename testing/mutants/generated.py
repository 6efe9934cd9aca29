"""Mutants that are made by rules: a condition, a bound or an order that is changed, a line that is left out.

Rules work on text, line by line, so that one set of them serves Python, Lua and SQL. A rule can make a mutant
that isn't a fault: nobody can find those, so their score is only good for comparing.
"""

import ast
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .mutant import ADAPTERS, Mutant

_COMMENTS = {".py": "#", ".lua": "--", ".sql": "--"}
_LEFT_OUT = {"diagnosis", "diagnosis.py", "settings.py", "errors.py"}
"""What words the suite doesn't read: settings, diagnoses, messages."""
_DROPPED = {
    ".py": re.compile(r"^\s+(?:self\.|await )[\w.]+\(.*\)$"),
    ".lua": re.compile(r"^\s+(?:redis\.call\(.*\)|[\w.\[\]]+ = .*)$"),
    ".sql": re.compile(r"^\s+(?:AND .*[^;(]|PERFORM .*;|[\w.]+ := .*;)$"),
}
"""Lines that are a whole statement or condition, whose loss leaves a text that can be read."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to change a line."""

    name: str
    pattern: re.Pattern[str]
    replacement: str
    languages: tuple[str, ...] = (".py", ".lua", ".sql")


RULES = (
    Rule("AtMostIsBelow", re.compile(r" <= "), " < "),
    Rule("BelowIsAtMost", re.compile(r" < "), " <= "),
    Rule("AtLeastIsAbove", re.compile(r" >= "), " > "),
    Rule("AboveIsAtLeast", re.compile(r" > "), " >= "),
    Rule("EqualIsOther", re.compile(r" == "), " != ", (".py",)),
    Rule("EqualIsOther", re.compile(r" == "), " ~= ", (".lua",)),
    Rule("OtherIsEqual", re.compile(r" (?:!=|~=|<>) "), " = ", (".sql",)),
    Rule("OtherIsEqual", re.compile(r" (?:!=|~=) "), " == ", (".py", ".lua")),
    Rule("AndIsOr", re.compile(r" and "), " or ", (".py", ".lua")),
    Rule("OrIsAnd", re.compile(r" or "), " and ", (".py", ".lua")),
    Rule("AndIsOr", re.compile(r" AND "), " OR ", (".sql",)),
    Rule("OrIsAnd", re.compile(r" OR "), " AND ", (".sql",)),
    Rule("NotIsLost", re.compile(r"\bnot (?!in\b)"), "", (".py", ".lua")),
    Rule("NotIsLost", re.compile(r"\bNOT (?!NULL|EXISTS|DISTINCT)"), "", (".sql",)),
    Rule("PlusOneIsLost", re.compile(r" \+ 1\b"), ""),
    Rule("MinusOneIsLost", re.compile(r" - 1\b"), ""),
    Rule("OneMore", re.compile(r"(?<![\w.])(?<!\[)([1-9])(?![\w.\]])"), "1\\1"),
    Rule("TrueIsFalse", re.compile(r"\bTrue\b"), "False", (".py",)),
    Rule("FalseIsTrue", re.compile(r"\bFalse\b"), "True", (".py",)),
    Rule("TrueIsFalse", re.compile(r"\btrue\b"), "false", (".lua", ".sql")),
    Rule("FalseIsTrue", re.compile(r"\bfalse\b"), "true", (".lua", ".sql")),
    Rule("WrongEnd", re.compile(r"'RPUSH'"), "'LPUSH'", (".lua",)),
    Rule("WrongEnd", re.compile(r"'LPUSH'"), "'RPUSH'", (".lua",)),
    Rule("NewestFirst", re.compile(r"(ORDER BY [\w.]+)(?! DESC)\b"), "\\1 DESC", (".sql",)),
    Rule("Minimum", re.compile(r"\bmin\("), "max(", (".py",)),
    Rule("Maximum", re.compile(r"\bmax\("), "min(", (".py",)),
)


def sample(backend: str, count: int, seed: int) -> list[Mutant]:
    """Choose as many mutants of a backend, the same for the same seed; no two change one line."""
    found = list(all_mutants(backend))
    random.Random(f"{seed} {backend}").shuffle(found)
    chosen: dict[str, Mutant] = {}
    for mutant in found:
        line = mutant.name.split("@")[1]
        chosen.setdefault(line, mutant)
    return list(chosen.values())[:count]


def all_mutants(backend: str) -> Iterator[Mutant]:
    """Make all mutants of a backend that can be loaded."""
    for path in sorted((ADAPTERS / backend).rglob("*")):
        if path.suffix in _COMMENTS and _LEFT_OUT.isdisjoint(path.parts):
            yield from _of_file(path)


def _of_file(path: Path) -> Iterator[Mutant]:
    text = path.read_text("utf-8")
    lines = text.splitlines(keepends=True)
    for number in _code_lines(path, text, lines):
        line = lines[number]
        for name, changed in _changes(path.suffix, line):
            mutated = "".join((*lines[:number], changed, *lines[number + 1 :]))
            if path.suffix != ".py" or _compiles(mutated):
                old, new = _in_context(text, lines, number, changed)
                yield Mutant(f"{name}@{path.name}:{number + 1}", str(path), old, new)


def _changes(language: str, line: str) -> Iterator[tuple[str, str]]:
    code, _, _ = line.partition(f" {_COMMENTS[language]} ")
    for rule in RULES:
        if language in rule.languages and (found := rule.pattern.search(code)):
            yield rule.name, line[: found.start()] + found.expand(rule.replacement) + line[found.end() :]
    if _DROPPED[language].match(line.rstrip("\n")):
        indent = line[: len(line) - len(line.lstrip())]
        yield "LineIsLost", f"{indent}pass\n" if language == ".py" else "\n"


def _code_lines(path: Path, text: str, lines: Sequence[str]) -> Iterator[int]:
    """Yield the numbers of lines that are neither comments nor, in Python, texts or imports."""
    skipped: set[int] = set()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if is_text or isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise)):
                skipped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
    mark = _COMMENTS[path.suffix]
    for number, line in enumerate(lines):
        if number not in skipped and line.strip() and not line.lstrip().startswith(mark):
            yield number


def _in_context(text: str, lines: Sequence[str], number: int, changed: str) -> tuple[str, str]:
    """Return the line before and after, with as many lines above and below as make it the only such text."""
    above = below = number
    while text.count(old := "".join(lines[above : below + 1])) > 1:
        above, below = max(0, above - 1), min(len(lines) - 1, below + 1)
    return old, "".join((*lines[above:number], changed, *lines[number + 1 : below + 1]))


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
