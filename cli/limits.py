"""``mindtrace-jobs limits``: show what limits allow and what of it is used, and change them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Group

from .app import backend_option, json_option, opened, settings_of, wants_json
from .errors import BadUsage, Exit
from .output import print_json, shown, stdout, table

if TYPE_CHECKING:  # imported by the commands that need it
    from ..application.api.orchestrator import Orchestrator
    from ..application.limits.changes import LimitChange
    from ..application.limits.overview import LimitUse, RateUse

    Use = LimitUse | RateUse

Kind = Literal["limit", "rate"]
_COLUMNS = ("name", "kind", "queues", "by", "declared", "allowed", "used", "waiting", "next turn")
_NUMBERS = ("used", "waiting", "next turn")

_kind_option = click.option(
    "--kind",
    type=click.Choice(["limit", "rate"]),
    help="Which one, if a limit and a rate have this name.",
)


@click.group(invoke_without_command=True)
@click.option(
    "--busiest",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="How many keys to show of each limit by a field.",
)
@json_option
@backend_option
def limits(busiest: int, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Show what limits and rates allow, and how much of it is used. Change them while workers run.

    A limit is shown once a worker with it has run, for seven days.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return Exit.OK
    with opened(settings_of(backend, app_dir)) as orchestrator:
        found = orchestrator.limits(busiest=busiest)
    if wants_json(as_json):
        print_json([_plain(each) for each in found])
    elif found:
        _show(found)
    else:
        stdout().print("no limits are known yet: one is, once a worker has run a consumer that has it")
    return Exit.OK


@limits.command("set")
@click.argument("name")
@click.argument("count", type=int)
@click.option("--per", "per_s", type=float, help="Of a rate, in how many seconds COUNT jobs start.")
@click.option("--burst", type=int, help="Of a rate, how many may start at once.")
@_kind_option
@json_option
@backend_option
def set_(
    name: str,
    count: int,
    per_s: float | None,
    burst: int | None,
    kind: Kind | None,
    as_json: bool,
    backend: str | None,
    app_dir: Path,
) -> int:
    """Let COUNT jobs of the limit NAME run at once, or start as fast if it is a rate.

    Workers obey it within about a second, and until "limits reset". No running job is ended. A limit
    without a name has that of its queue. What isn't given of a rate stays as the code says.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        if kind is None:
            is_of_rate = per_s is not None or burst is not None
            kind = _kind_of(orchestrator, name, "rate" if is_of_rate else "limit", may_be_both=is_of_rate)
        if kind == "rate":
            change = orchestrator.change_rate(name, count, per_s=per_s, burst=burst)
        elif per_s is None and burst is None:
            change = orchestrator.change_limit(name, count)
        else:
            raise BadUsage(f"limit {name!r} is no rate: leave --per and --burst out")
    if wants_json(as_json):
        print_json({"name": name, "kind": kind, **_plain_change(change)})
    else:
        stdout().print(shown(f"{kind} {name} allows {change.terms}"))
    return Exit.OK


@limits.command()
@click.argument("name")
@_kind_option
@json_option
@backend_option
def reset(name: str, kind: Kind | None, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Let the limit NAME allow again what the code says."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        kind = _kind_of(orchestrator, name, "limit") if kind is None else kind
        was_changed = (orchestrator.reset_rate if kind == "rate" else orchestrator.reset_limit)(name)
    if wants_json(as_json):
        print_json({"name": name, "kind": kind, "was_changed": was_changed})
    else:
        what = "allows what the code says" if was_changed else "wasn't changed"
        stdout().print(shown(f"{kind} {name} {what}"))
    return Exit.OK


def _kind_of(orchestrator: "Orchestrator", name: str, otherwise: Kind, *, may_be_both: bool = False) -> Kind:
    """Return whether a name is that of a limit or of a rate; ``otherwise`` if it is neither, or may be both.

    Raises:
        BadUsage: it is both, and may not be.
    """
    kinds: set[Kind] = {each.kind for each in orchestrator.limits(busiest=0) if each.name == name}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds and not may_be_both:
        raise BadUsage(f"{name!r} is a limit and a rate: add --kind limit or --kind rate")
    return otherwise


def _show(found: "list[Use]") -> None:
    rows = [_row(each) for each in found]
    keys = [
        shown(f"  {each.name} {key.key}: {key.used} used, {key.waiting} waiting")
        for each in found
        if each.kind == "limit"
        for key in each.busiest
    ]
    changed = [each for each in found if each.change is not None]
    changes = [shown(f"  {each.kind} {each.name} is {each.change}") for each in changed]
    stdout().print(Group(table(_COLUMNS, rows, right=_NUMBERS), *changes, *keys))


def _row(use: "Use") -> tuple[Any, ...]:
    names = (use.name, use.kind, ", ".join(use.queues) or None, ", ".join(use.by) or None)
    if use.kind == "limit":
        return (*names, use.declared, use.allowed, use.used, use.waiting, None)
    next_turn = None if use.next_turn_s is None else f"{use.next_turn_s:.1f} s"
    return (*names, use.declared, use.allowed, None, None, next_turn)


def _plain(use: "Use") -> dict[str, Any]:
    change = None if use.change is None else _plain_change(use.change)
    fields = {"name": use.name, "kind": use.kind, **asdict(use), "change": change}
    if use.kind == "limit":
        return fields | {"busiest": [key._asdict() for key in use.busiest]}
    return fields | {"interval_s": use.allowed.interval_s}


def _plain_change(change: "LimitChange") -> dict[str, Any]:
    return asdict(change) | {"since": change.since.isoformat()}
