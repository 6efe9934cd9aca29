"""``mindtrace-jobs contract``: the contract suite against an adapter."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from .app import json_option, wants_json
from .errors import BadUsage, Exit, NotInstalled
from .loading import load
from .output import print_json, stdout
from .settings import add_to_path

_PROFILES = ("quick", "ci", "random", "thorough")


@click.command()
@click.argument("harness", metavar="module:Harness")
@click.option(
    "--profile", type=click.Choice(_PROFILES), default="quick", show_default=True, help="How much to test."
)
@click.option(
    "--clause", "clauses", multiple=True, help="Only this clause, such as LSE-4; may be given again."
)
@click.option("--seed", type=int, help="Fix the random numbers.")
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Folder to import modules from.  [default: the working folder]",
)
@json_option
def contract(
    harness: str, profile: str, clauses: tuple[str, ...], seed: int | None, app_dir: Path, as_json: bool
) -> int:
    """Run the contract suite against an adapter. Exits with 1 if a clause is broken.

    docs/adding_a_backend.md explains how to write a harness.
    """
    add_to_path(app_dir)
    try:
        from ..contract import CLAUSES, Harness, run_contract
        from ..contract.missing_hooks import untried
    except ModuleNotFoundError as error:
        raise NotInstalled("contract", error.name, "contract") from error
    if unknown := [clause for clause in clauses if clause not in CLAUSES]:
        raise BadUsage(f"no clause {', '.join(unknown)}; there are: {', '.join(CLAUSES)}")
    found = load(harness, "Harness")
    if not isinstance(found, type) or not issubclass(found, Harness):
        raise BadUsage(f"{harness} is no Harness: derive it from mindtrace.jobs.contract.Harness")
    with closing(found()) as made:
        results = list[Any]()
        for result in run_contract(made, profile=profile, seed=seed, clauses=clauses or None):
            results.append(result)
            _show(result, wants_json(as_json))
        hooks = untried((result.missing_hooks, result.clauses) for result in results)
    return _sum_up(results, hooks, wants_json(as_json))


def _show(result: Any, as_json: bool) -> None:
    console = stdout()
    if as_json:
        print_json(result.as_json())
    elif result.broken is None:
        how = "refused, as declared" if result.refusal else "holds"
        console.print(f"[green]✓[/] {escape(result.check)}: {how} ({result.seconds:.1f} s)")
    else:
        console.print(f"[red]✗[/] {escape(result.check)}: failed")
        console.print(f"  {escape(result.error or '')}")


def _sum_up(results: Sequence[Any], untried: Sequence[str], as_json: bool) -> int:
    broken = sum(result.broken is not None for result in results)
    if not as_json:
        for line in untried:
            stdout().print(escape(line))
        stdout().print(f"{len(results) - broken} checks passed, {broken} failed")
    return Exit.OK if not broken else Exit.NO
