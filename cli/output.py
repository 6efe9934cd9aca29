"""What commands print: for people, or as JSON for scripts. Answers go to stdout, all else to stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..domain.printable import printable, printable_json
from .errors import Exit


def stdout() -> Console:
    """A console for answers. It has colours only on a terminal, and a pipe gets whole lines."""
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return Console(highlight=False, emoji=False, soft_wrap=True, width=10_000)


def stderr() -> Console:
    """A console for all else."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def shown(value: object) -> str:
    """Return the text of ``value`` on one line, with no part of it an order to a terminal or to rich."""
    return escape(printable(str(value)))


def print_json(value: Any) -> None:
    """Print ``value`` as one line of JSON."""
    sys.stdout.write(printable_json(json.dumps(value, ensure_ascii=False, default=str)) + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Say something that isn't the answer."""
    stderr().print(shown(text))


def fail(text: str, code: Exit) -> int:
    """Say what is wrong, as one paragraph, and return the exit code."""
    stderr().print(f"[bold red]error[/]: {shown(text)}")
    return int(code)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> Table:
    """A table without lines, its columns as wide as what is in them; those named ``right`` are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*("-" if value is None else shown(value) for value in row))
    return made
