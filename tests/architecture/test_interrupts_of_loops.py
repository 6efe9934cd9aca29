"""A signal handler that raises where a loop begins anew leaves no `with` or `try` around the loop.

Python looks for signals at each jump back to a loop's head. CPython 3.12 and 3.13 put such a jump outside the
exception table if it depends on a condition (issue 130279 of CPython). On 3.13, an exception that is raised
there passes by `with lock:` around the loop, and the lock stays locked. 3.12 looks after the jump.
"""

import ast
import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("domain", "ports", "application", "adapters", "cli", "src")
MODULES = sorted(path for layer in LAYERS for path in ROOT.joinpath(layer).rglob("*.py"))

PUTS_JUMPS_OUTSIDE = {(3, 11): False, (3, 12): True, (3, 13): True}.get(sys.version_info[:2])

BAD = {
    "a condition at the end of a loop": """
def f(lock, jobs):
    with lock:
        for job in jobs:
            if job:
                job()
""",
    "a condition in a comprehension": """
def f(lock, jobs):
    with lock:
        return [job for job in jobs if job]
""",
    "the condition of a loop": """
def f(lock, jobs):
    try:
        while jobs:
            jobs.pop()
    finally:
        lock.release()
""",
}
GOOD = """
def of_no_condition(lock, jobs):
    with lock:
        for job in jobs:
            job()

def of_no_with(jobs):
    for job in jobs:
        if job:
            job()

def inside(lock, jobs):
    for job in jobs:
        with lock:
            if job:
                job()

def caught_inside(jobs):
    while True:
        try:
            if jobs:
                jobs.pop()()
        except ValueError:
            pass

def in_a_finally(lock, jobs):
    try:
        lock.acquire()
    finally:
        for job in jobs:
            if job:
                job()

def a_generator(lock, jobs):
    with lock:
        return list(job for job in jobs if job)

def defined_inside(lock, jobs):
    with lock:
        def f():
            while jobs:
                jobs.pop()
        return f

def called_in_a_loop(lock, jobs):
    with lock:
        for job in jobs:
            any(each() for each in job if each)
"""


class Span(NamedTuple):
    """Where something stands in a source: from a line and column to another."""

    start: tuple[int, int]
    end: tuple[int, int]

    def holds(self, other: "Span") -> bool:
        return self.start <= other.start and other.end <= self.end


class Scope(NamedTuple):
    """A loop or a function, and whether a `with` or `try` of the same function is around it."""

    span: Span
    is_protected: bool


def span_of(node: ast.AST) -> Span:
    assert isinstance(node, ast.stmt | ast.expr)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return Span((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)
LOOPS = (ast.For, ast.While, *COMPREHENSIONS)
FRAMES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp)
if sys.version_info < (3, 12):  # where each comprehension is a function of its own
    FRAMES += COMPREHENSIONS


def scopes_in(node: ast.AST, is_protected: bool = False) -> Iterator[Scope]:
    """Yield where loops and functions stand, each before what is inside it."""
    if isinstance(node, FRAMES):
        is_protected = False
    if isinstance(node, (*LOOPS, *FRAMES)):
        yield Scope(span_of(node), is_protected)
    protected = protected_parts(node)
    for child in ast.iter_child_nodes(node):
        yield from scopes_in(child, is_protected or child in protected)


def protected_parts(node: ast.AST) -> list[ast.AST]:
    """Return the statements after which a `with` or `try` still has something to do."""
    if isinstance(node, ast.With | ast.AsyncWith):
        return [*node.body]
    if isinstance(node, ast.Try | ast.TryStar):
        return [*node.body, *([*node.handlers, *node.orelse] if node.finalbody else [])]
    return []


def codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def jumps_back_of(code: CodeType) -> Iterator[tuple[Span, Span]]:
    """Yield where each jump back and its target stand that looks for signals outside the exception table."""
    bytecode = dis.Bytecode(code)
    covered = [range(entry.start, entry.end) for entry in bytecode.exception_entries]
    spans = {each.offset: span_at(each) for each in bytecode}
    for each in bytecode:
        is_checked = "JUMP_BACKWARD" in each.opname and each.opname != "JUMP_BACKWARD_NO_INTERRUPT"
        if is_checked and not any(each.offset in part for part in covered):
            yield spans[each.offset], spans[each.argval]


def span_at(instruction: dis.Instruction) -> Span:
    at = instruction.positions
    assert at is not None
    return Span((at.lineno or 0, at.col_offset or 0), (at.end_lineno or 0, at.end_col_offset or 0))


def lines_of_open_loops(source: str) -> list[int]:
    """Return the lines whose jump back to a loop's head escapes the `with` or `try` around the loop."""
    scopes = list(scopes_in(ast.parse(source)))
    lines = set()
    for code in codes_in(compile(source, "source", "exec")):
        for jump, target in jumps_back_of(code):
            holding = [scope for scope in scopes if scope.span.holds(jump) and scope.span.holds(target)]
            if holding and holding[-1].is_protected:
                lines.add(jump.start[0])
    return sorted(lines)


@pytest.mark.skipif(PUTS_JUMPS_OUTSIDE is None, reason="nobody has looked how this Python compiles loops")
@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_a_jump_outside_the_table_is_found_where_python_puts_it_there(source: str) -> None:
    assert bool(lines_of_open_loops(source)) is PUTS_JUMPS_OUTSIDE


def test_loops_that_need_no_change_are_not_found() -> None:
    assert not lines_of_open_loops(GOOD)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loop_escapes_its_with_block(path: Path) -> None:
    lines = lines_of_open_loops(path.read_text("utf-8"))

    assert not lines, "move the loop that goes back from there into a function without `with` or `try`"
