"""What commands print: for people, or as JSON for scripts. Answers go to stdout, all else to stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .errors import Exit


def stdout() -> Console:
    """A console for answers. It has colours only on a terminal, and a pipe gets whole lines."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=10_000)


def stderr() -> Console:
    """A console for all else."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print ``value`` as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Say something that isn't the answer."""
    stderr().print(escape(text))


def fail(text: str, code: Exit) -> int:
    """Say what is wrong, as one paragraph, and return the exit code."""
    stderr().print(f"[bold red]error[/]: {escape(text)}")
    return int(code)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> Table:
    """A table without lines, its columns as wide as what is in them; those named ``right`` are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*("-" if value is None else escape(str(value)) for value in row))
    return made
