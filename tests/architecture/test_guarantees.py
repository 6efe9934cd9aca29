"""docs/guarantees.md names tests: each must exist, and no clause of the contract may be missing."""

import ast
import re
from pathlib import Path

import pytest

from mindtrace.jobs.contract.clauses import CLAUSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
SHORT = {"checks/": "contract_tests/suite/checks/", "faults/": "e2e/faults/"}
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_what_is_said_to_show_a_guarantee_exists(file: str, test: str) -> None:
    for short, folder in SHORT.items():
        if file.startswith(short):
            file = file.replace(short, folder, 1)
    assert test in defined_in(ROOT / file)


def test_every_clause_has_a_line_with_what_shows_it() -> None:
    lines = dict(re.findall(r"^\| (\w+-?\d) \|(.*)$", PAGE, re.M))
    assert lines.keys() == CLAUSES.keys()
    assert not [clause for clause, line in lines.items() if "::" not in line]
